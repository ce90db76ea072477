"""Reading a run's Pulumi state where it lies, without starting the engine: what a receipt and a stale lock need."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhctl.infra.processes import start_ticks

_PROVIDER = "pulumi:providers:"
"""Beginning of the type of a provider plugin in a state."""

TORN_S = 5.0
"""A lock is written in a moment: one that nobody can read and that is older was torn, by a full disk or a kill."""


@dataclass(frozen=True)
class StackLock:
    """One lock file of Pulumi's file backend: who took it. It has no lease, and a killed engine leaves it for ever.

    Without `host` nobody can tell: the file is not whole, or not yet. The CLI ends at such a file too.
    """

    path: Path
    pid: int = 0
    host: str = ""

    @property
    def holder(self) -> str:
        """In words."""
        return f"pid {self.pid} on {self.host}" if self.host else "whoever wrote half of it"

    @property
    def stale(self) -> bool:
        """Taken on this host by a process that is gone or is no Pulumi, or torn. Never true for another host's lock."""
        if not self.host:
            return self._is_old()
        if self.host != socket.gethostname():
            return False
        if start_ticks(self.pid) is None:
            return True
        try:
            return "pulumi" not in Path(f"/proc/{self.pid}/comm").read_text()
        except OSError:
            return True  # it ended between the two looks

    def _is_old(self) -> bool:
        try:
            return time.time() - self.path.stat().st_mtime > TORN_S
        except OSError:
            return True  # it went meanwhile


@dataclass(frozen=True)
class StackState:
    """What one run's stack holds. `unreadable` says why it could not be read, else it is empty."""

    resources: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    locks: tuple[StackLock, ...] = ()
    unreadable: str = ""

    @property
    def empty(self) -> bool:
        """Nothing in it, nothing pending, nobody at it."""
        return not (self.resources or self.pending or self.locks or self.unreadable)


def read_stack(backend: Path) -> StackState:
    """The stack in a run's backend folder (one stack a folder); an empty state when there is none."""
    locks, trouble = _read_locks(backend / ".pulumi" / "locks")
    resources: list[str] = []
    pending: list[str] = []
    for path in sorted((backend / ".pulumi" / "stacks").glob("*/*.json")):
        try:
            latest = json.loads(path.read_text())["checkpoint"].get("latest") or {}
            resources += [_name(r["urn"]) for r in latest.get("resources", []) if _ours(r["type"])]
            pending += [f"{p['type']} {_name(p['resource']['urn'])}" for p in latest.get("pending_operations", [])]
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            trouble = f"{path.name}: {type(error).__name__}: {error}"
    return StackState(tuple(resources), tuple(pending), tuple(locks), trouble)


def engine_versions(backend: Path) -> dict[str, str]:
    """Versions of the engine that wrote the state and of its plugins, by name; empty when there is no readable state.

    The plugin of dynamic resources (`pulumi-python`) has no version of its own: it is the SDK's.
    """
    found: dict[str, str] = {}
    for path in sorted((backend / ".pulumi" / "stacks").glob("*/*.json")):
        try:
            latest = json.loads(path.read_text())["checkpoint"]["latest"]
            found["pulumi"] = str(latest["manifest"]["version"]).removeprefix("v")
            for resource in latest.get("resources", []):
                version = (resource.get("inputs") or {}).get("version")
                if resource["type"].startswith(_PROVIDER) and version:
                    found[resource["type"].removeprefix(_PROVIDER)] = str(version)
        except (OSError, ValueError, LookupError, AttributeError, TypeError):
            continue
    return found


def _read_locks(folder: Path) -> tuple[list[StackLock], str]:
    """Whatever lies there is a lock to the CLI, also a file that has not got its name yet; but for `.attrs`."""
    found, trouble = [], ""
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".attrs"):
        try:
            body: dict[str, Any] = json.loads(path.read_text())
            found.append(StackLock(path, int(body["pid"]), str(body["hostname"])))
        except FileNotFoundError:
            continue  # released while we looked
        except (ValueError, KeyError, TypeError):
            found.append(StackLock(path))
        except OSError as error:
            trouble = f"lock {path.name}: {type(error).__name__}: {error}"
    return found, trouble


BOOK_KEEPING = ("pulumi:pulumi:Stack", _PROVIDER, "dhctl:component:")
"""Beginnings of types that nobody pays for: the stack, its providers, and our components, which only group others."""


def _ours(kind: str) -> bool:
    return not kind.startswith(BOOK_KEEPING)


def _name(urn: str) -> str:
    kind, _, name = urn.split("::", 2)[2].partition("::")
    return f"{name} ({kind.rpartition(':')[2]})"
