"""Options and arguments that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

AnyCommand = Callable[..., Any]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON (one object a line while something runs).")

spec_file = click.argument("spec_file", type=click.Path(path_type=Path), metavar="SPEC", required=True)

target = click.option("--target", metavar="NAME", help="Run there instead of on the target that SPEC names.")


def _known_runs(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """For shell completion."""
    from dhctl.infra.home import Home, default_root
    from dhctl.infra.record import all_records

    records = all_records(Home(default_root()))
    known = dict.fromkeys([str(r.opened().detail["name"]) for r in records] + [r.run_id for r in records])
    return [word for word in known if word.startswith(incomplete)]


resume = click.option(
    "--resume", metavar="RUN", shell_complete=_known_runs, help="Go on from the last checkpoint of an earlier run."
)

strict = click.option(
    "--strict", is_flag=True, help="Refuse the run when not all of workers.max fit, instead of lowering it."
)

run_argument = click.argument("run", metavar="RUN", shell_complete=_known_runs)
