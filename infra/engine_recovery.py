"""What an engine that was killed leaves in a run's record, and ending that without starting the engine.

Pulumi's file backend: the state, one folder a run; its locks, which have no lease; the CLI's own folder.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from dhctl.infra.engine_state import TORN_S, StackState, read_stack
from dhctl.infra.errors import EngineError
from dhctl.infra.processes import ProcessMark, carries_mark, stop_all, wait_until
from dhctl.infra.record import RunRecord

PLUGIN_PROGRAMS = ("pulumi-resource-", "pulumi-language-")
DYNAMIC_RESOURCES = "pulumi.dynamic"
"""The module that the launcher of engine_build.py becomes."""


def backend_folder(record: RunRecord) -> Path:
    """Where the run's Pulumi state lies."""
    return record.engine_dir / "state"


def pulumi_home(record: RunRecord) -> Path:
    """PULUMI_HOME of this run alone: the CLI keeps logs there. Only the plugins are shared between runs."""
    return record.engine_dir / "pulumi"


def stack_state(record: RunRecord) -> StackState:
    """What the run's stack holds now."""
    return read_stack(backend_folder(record))


def settle(record: RunRecord) -> None:
    """Ends engine processes that a dead client left, gracefully first, and removes locks that nobody holds, and the
    CLI's note of which stack is the current one, which a full disk may have torn: each command names its stack.

    Raises EngineError when a process does not end, or when somebody else holds a lock.
    """
    left = stop_orphans(record)
    if left:
        raise EngineError(f"an engine process of an earlier command does not end (pid {left[0].pid})")
    wait_until(lambda: all(lock.host or lock.stale for lock in stack_state(record).locks), TORN_S, every_s=0.2)
    for lock in stack_state(record).locks:
        if not lock.stale:
            held = f"the stack is locked by {lock.holder} ({lock.path.name})"
            raise EngineError(held, "wait for it, or end it there and try again")
        record.ledger.note("engine.lock", "note", removed=lock.path.name, pid=lock.pid)
        lock.path.unlink(missing_ok=True)
    shutil.rmtree(pulumi_home(record) / "workspaces", ignore_errors=True)


def forget(record: RunRecord) -> None:
    """Removes state, passphrase and the CLI's own logs when nothing is in the state; keeps them otherwise."""
    if stack_state(record).empty:
        shutil.rmtree(backend_folder(record), ignore_errors=True)
        shutil.rmtree(pulumi_home(record), ignore_errors=True)  # plugins are a link, which is not followed
        (record.engine_dir / "passphrase").unlink(missing_ok=True)


def stop_orphans(record: RunRecord, grace_s: float = 90.0) -> list[ProcessMark]:
    """Ends engine processes whose client died; SIGINT first, so that they finish their step, write state and unlock.

    Found in the ledger, and by the mark for one whose client died before it wrote the line. Then their plugins: an
    engine that is killed leaves them, and one may be in the middle of a create. Those that still live after SIGKILL are
    returned.
    """
    told = (e.detail.get("process") for e in record.ledger.entries() if e.act == "engine.process")
    marks = {m for m in map(ProcessMark.from_dict, told) if m}
    marks |= set(_marked(record.run_id, _is_engine))
    living = [m for m in marks if m.signal(signal.SIGINT)]
    wait_until(lambda: not any(m.alive() for m in living), grace_s if living else 0)
    left = stop_all([m for m in living if m.alive()], grace_s=2)
    return left or stop_all(_marked(record.run_id, _is_plugin), grace_s=2)


def living_processes(record: RunRecord) -> list[ProcessMark]:
    """Engines of the run and their plugins that live on this machine."""
    return list(_marked(record.run_id, lambda process: _is_engine(process) or _is_plugin(process)))


def _marked(run_id: str, like: Callable[[psutil.Process], bool]) -> Iterator[ProcessMark]:
    for process in psutil.process_iter(["name", "cmdline"]):
        if like(process) and carries_mark(process.pid, run_id) and (mark := ProcessMark.of(process.pid)):
            yield mark


def _is_engine(process: psutil.Process) -> bool:
    return bool(process.info["name"] == "pulumi")


def _is_plugin(process: psutil.Process) -> bool:
    """A provider's or a language's program; that of dynamic resources is a module of Python's."""
    words = process.info["cmdline"] or [""]
    return Path(words[0]).name.startswith(PLUGIN_PROGRAMS) or DYNAMIC_RESOURCES in words
