"""The lease: until when a run may live. A keeper outside the client ends the run then, also when the client is dead."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

from dhctl.infra import lease_keeper
from dhctl.infra.errors import ClusterError
from dhctl.infra.home import HOME_ENV
from dhctl.infra.ledger import Ledger
from dhctl.infra.processes import ProcessMark, children, stop_all
from dhctl.infra.receipt import Check, Leftover
from dhctl.infra.record import RunRecord

REASON = "lease ended"


def down_command(record: RunRecord) -> list[str]:
    """The command that ends a run from its record alone."""
    return [sys.executable, "-m", "dhctl.cli.main", "down", record.run_id, "--because", REASON]


def start_keeper(record: RunRecord) -> None:
    """Starts the keeper before anything else of the run is made. Raises ClusterError when it does not live."""
    command = [sys.executable, "-I", "-S", lease_keeper.__file__]
    command += ["--until", str(record.expires_at.timestamp()), "--record", str(record.folder)]
    command += ["--log", str(record.folder / "lease.log"), "--", *down_command(record)]
    env = {**os.environ, HOME_ENV: str(record.home.root)}
    with record.ledger.act("lease.start") as outcome, (record.folder / "lease.log").open("ab") as log:
        keeper = subprocess.Popen(
            command, env=env, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        mark = ProcessMark.of(keeper.pid)
        if mark is None:
            raise ClusterError("the lease keeper did not start", f"see {record.folder}/lease.log")
        outcome["process"] = mark.to_dict()


def keepers(ledger: Ledger) -> Iterator[ProcessMark]:
    """Keepers of the run that still live."""
    for entry in ledger.entries():
        mark = ProcessMark.from_dict(entry.detail.get("process")) if entry.act == "lease.start" else None
        if mark and mark.alive():
            yield mark


def stop_keeper(record: RunRecord) -> None:
    """Ends the keeper, and the `down` that it started where that only waits for us: the caller holds the run's lock."""
    keeping = list(keepers(record.ledger))
    waiting = [child for keeper in keeping for child in children(keeper.pid) if child.pid != os.getpid()]
    stop_all(keeping, grace_s=2)
    stop_all(waiting, grace_s=0)


def look(record: RunRecord) -> Check:
    """The receipt's check for the keeper."""
    found = (Leftover("process", f"lease keeper (pid {m.pid})", f"kill {m.pid}") for m in keepers(record.ledger))
    return Check("lease keeper", "the recorded process", tuple(found))
