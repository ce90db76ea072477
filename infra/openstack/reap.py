"""Ending runs of a project from the project's own lists, without a record of them: by mark and expiry alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

from openstack.connection import Connection

from dhctl.infra.events import Report, Warned
from dhctl.infra.ledger import Ledger
from dhctl.infra.marked_run import MarkedRun, past_lease
from dhctl.infra.openstack import inventory
from dhctl.infra.openstack.cloud import CloudError
from dhctl.infra.openstack.kinds import Owned, Project
from dhctl.infra.openstack.sweep import Sweep


def marked_runs(connection: Connection, report: Report) -> list[MarkedRun]:
    """All runs of which the project has something, each with the latest expiry that it tells.

    Warnings and errors are those of `inventory.find_all`.
    """
    by_run: dict[str, list[Owned]] = {}
    for owned in inventory.find_all(connection, report):
        by_run.setdefault(owned.mark.run_id, []).append(owned)
    return [MarkedRun(run, max(o.mark.expires_at for o in found), tuple(found)) for run, found in by_run.items()]


def expired(connection: Connection, report: Report, run_id: str | None = None) -> list[MarkedRun]:
    """Runs past their lease; with `run_id` that one, past it or not.

    A run of which only things are left that tell no expiry (a keypair, a server group) is not past it: nobody knows.
    Raises CloudError, UnknownRunError.
    """
    return past_lease(marked_runs(connection, report), run_id)


def end(connection: Connection, run: MarkedRun, report: Report) -> MarkedRun:
    """Sweeps a run and looks again. What the API says to a refused deletion stands in the checks."""
    with tempfile.TemporaryDirectory(prefix="dhctl-reap-") as folder:
        ledger = Ledger(Path(folder) / "ledger.jsonl")
        ledger.create()
        try:
            Sweep(Project(connection), run.run_id, ledger, report).run()
        except CloudError as error:
            report(Warned(str(error)))
        entries = ledger.entries()
    known = inventory.known_servers(run.run_id, entries)
    checks = inventory.look(Project(connection, known), run.run_id, inventory.refusals(entries))
    return MarkedRun(run.run_id, run.expires_at, run.owned, tuple(checks))
