"""`dhctl`: the verbs, loaded when they are called, and the one place where errors become sentences and exit codes."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import click

from dhctl.infra.errors import DhctlError, ExitCode

VERBS = (
    "run",
    "up",
    "train",
    "down",
    "status",
    "list",
    "logs",
    "export",
    "reproduce",
    "report",
    "ssh",
    "plan",
    "data",
    "reap",
    "new",
    "doctor",
    "schema",
    "completion",
)


class Verbs(click.Group):
    """Loads a verb's module when it is needed, so that `dhctl --help` stays quick; turns errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of a run's life."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command object of a verb's module."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"dhctl.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """A reader of the output who leaves is no error; click would make it one."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _silence()
            return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Names the nearest verb for an unknown one."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], VERBS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f" (known: {', '.join(VERBS)})"
            raise click.UsageError(f"no verb '{args[0]}'{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.command(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Example:  dhctl run examples/prostate-local.yaml",
)
@click.version_option(package_name="dhctl")
def group() -> None:
    """One file, one command: a Ray training run that leaves nothing behind."""


def main() -> None:
    """Entry point of the `dhctl` command; exits with an `ExitCode`."""
    atexit.register(gc.freeze)  # else Python looks through all modules for garbage as it ends: a sixth of a second
    sys.exit(run_group(sys.argv[1:]))


def run_group(arguments: list[str]) -> int:
    """Runs one command line. The exit code; every error has been shown."""
    try:
        group.main(arguments, prog_name="dhctl", standalone_mode=False)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except BaseException as error:  # noqa: BLE001 - each becomes a sentence and an exit code
        return _exit_code(error, arguments)
    return ExitCode.DONE


def _exit_code(error: BaseException, arguments: list[str]) -> int:
    """Shows an error, and says what the process ends with."""
    from dhctl.infra.interrupts import StopNow

    match error:
        case DhctlError():
            code, told = error.exit_code, str(error)
        case click.UsageError():
            error.show()
            return ExitCode.USAGE
        case KeyboardInterrupt() | click.Abort():
            return ExitCode.INTERRUPTED
        case StopNow():
            code = ExitCode.LEFTOVER
            told = f"stopped at once ({error}); `dhctl down {error.subject or 'RUN'}` removes what remains"
        case _:  # dhctl's own bug: a file for the report, a sentence for the user
            code, told = ExitCode.BUG, _write_bug(error, arguments)
    _show(told, code, arguments)
    return code


def _show(sentence: str, code: int, arguments: list[str]) -> None:
    try:
        if "--json" in arguments:
            import json

            click.echo(json.dumps({"event": "error", "error": sentence, "exit_code": int(code)}))
        click.echo(click.style("Error: ", fg="red", bold=True) + sentence, err=True)
    except OSError:
        _silence()


def _silence() -> None:
    """Whoever read our output left: there is nobody to tell, and nothing to fail over while Python exits."""
    from dhctl.cli.console import silence

    silence(sys.stdout)
    silence(sys.stderr)


def _write_bug(error: BaseException, arguments: list[str]) -> str:
    from dhctl.infra.home import default_root

    text = f"dhctl {' '.join(arguments)}\n{''.join(traceback.format_exception(error))}"
    path: Any = Path(default_root()) / "bugs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError:
        click.echo(text, err=True)
        path = "above"
    return f"this is a bug in dhctl ({type(error).__name__}: {error}); please report it with the log {path}"


if __name__ == "__main__":
    main()
