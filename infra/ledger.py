"""The ledger: a run's append-only journal. Intent before each act, outcome after, each line on disk before going on.

One JSON object a line: `at` (UTC, ISO 8601), `act` (dotted name), `phase`, and what belongs to the act. Several
processes write to it (client, Pulumi's plugin, autoscaler, lease keeper), so a line is appended under a file lock. A
process killed while writing leaves at most one torn last line; readers pass over it and the next writer starts anew.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

Phase = Literal["intent", "done", "failed", "note"]


@dataclass(frozen=True)
class Entry:
    """One line of the ledger. `detail` must never hold a secret."""

    at: datetime
    act: str
    phase: Phase
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_line(self) -> str:
        """The line as it stands in the file, with its line end."""
        body = {"at": self.at.isoformat(timespec="milliseconds"), "act": self.act, "phase": self.phase, **self.detail}
        return json.dumps(body, separators=(",", ":")) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Entry:
        """The entry of a whole line. Raises ValueError on a torn one."""
        body = json.loads(line)
        try:
            at, act, phase = datetime.fromisoformat(body.pop("at")), body.pop("act"), body.pop("phase")
        except (KeyError, AttributeError, TypeError) as error:
            raise ValueError("not a ledger line") from error
        return cls(at, act, phase, body)


class Ledger:
    """The journal file of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Makes the empty file durably. Raises FileExistsError when there is one."""
        os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # else a power cut may lose the file though its lines were synced
        finally:
            os.close(folder)

    def write(self, act: str, phase: Phase, /, **detail: Any) -> None:
        """Appends one line and returns when it is on disk. Raises OSError (such as no space) when it is not."""
        line = Entry(datetime.now(UTC), act, phase, detail).to_line().encode()
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line  # a writer was killed here: keep its torn line apart
            while line:  # a disk that is almost full takes a part, and says so at the next try
                line = line[os.write(handle, line) :]
            os.fsync(handle)
        finally:
            os.close(handle)

    def intent(self, act: str, /, **detail: Any) -> None:
        """Before the act."""
        self.write(act, "intent", **detail)

    def done(self, act: str, /, **detail: Any) -> None:
        """After it went well."""
        self.write(act, "done", **detail)

    @contextmanager
    def act(self, act: str, /, **detail: Any) -> Iterator[dict[str, Any]]:
        """Intent before, outcome after; what is put into the yielded mapping is written with the outcome."""
        self.intent(act, **detail)
        outcome: dict[str, Any] = {}
        try:
            yield outcome
        except BaseException as error:
            self.write(act, "failed", reason=f"{type(error).__name__}: {error}"[:2000], **detail)
            raise
        self.done(act, **{**detail, **outcome})

    def note(self, act: str, phase: Phase = "note", /, **detail: Any) -> bool:
        """As `write`, but a journal that cannot be written (a full disk) is no error; whether it was written."""
        try:
            self.write(act, phase, **detail)
        except OSError:
            return False
        return True

    @contextmanager
    def ending(self, act: str, /, **detail: Any) -> Iterator[None]:
        """As `act`, for what ends something: a journal that cannot be written must not keep it alive."""
        self.note(act, "intent", **detail)
        try:
            yield
        except BaseException as error:
            self.note(act, "failed", reason=f"{type(error).__name__}: {error}"[:2000], **detail)
            raise
        self.note(act, "done", **detail)

    def entries(self) -> list[Entry]:
        """All whole lines, oldest first; torn ones are left out."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        found = []
        for line in text.splitlines():
            try:
                found.append(Entry.from_line(line))
            except ValueError:
                continue
        return found


def last(entries: Iterable[Entry], act: str, *phases: Phase) -> Entry | None:
    """The newest entry of an act (in one of `phases`, where given)."""
    found = [e for e in entries if e.act == act and (not phases or e.phase in phases)]
    return found[-1] if found else None


def until_gone(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The entries up to the first `down` that found nothing left: later ones only looked again."""
    for number, entry in enumerate(entries):
        if entry.act == "down" and entry.phase == "done" and entry.detail.get("clean"):
            return entries[: number + 1]
    return entries
