"""The proof at the end of `up`: doors inside and outside are tried side by side (dhctl.infra.up.prove)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from dhctl.infra import up
from dhctl.infra.errors import ClusterError
from dhctl.infra.events import Event, Noted
from dhctl.infra.home import Home
from dhctl.infra.interrupts import Interrupts
from dhctl.infra.ray_api import Connection
from dhctl.infra.record import RunRecord
from dhctl.infra.refusal import Probe
from dhctl.infra.up import Tools, prove
from unit.fakes import FakeTarget

REFUSED = [Probe("GCS", "UNAUTHENTICATED", answered=True, refused=True)]


class Place(FakeTarget):
    """One that can be reached, and whose doors outside are tried only once those inside are."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.outside = threading.Event(), threading.Event()
        self.found: str | Exception = "closed to the outside: 6379 (refused)"
        self.connected = False

    def connect(self, record: RunRecord) -> AbstractContextManager[Connection]:
        @contextmanager
        def connected() -> Iterator[Connection]:
            self.connected = True
            yield Connection("http://127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "token", "10.0.0.1")
            self.connected = False

        return connected()

    def probe_outside(self, record: RunRecord) -> str:
        self.outside.set()
        assert self.inside.wait(10), "the doors inside are tried meanwhile"
        assert self.connected
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place()

    def refuse(connection: Connection) -> list[Probe]:
        made.inside.set()
        assert made.outside.wait(10), "the doors outside are tried meanwhile"
        return REFUSED

    monkeypatch.setattr(up, "require_refusal", refuse)
    monkeypatch.setattr(up, "_joined", lambda connection: 0)
    return made


@pytest.fixture
def tools(place: Place, told: list[Event], tmp_path: Path) -> Tools:
    return Tools(Home(tmp_path), place, lambda record: pytest.fail("no engine"), told.append, Interrupts())


def test_both_are_tried_at_once_and_noted(record: RunRecord, tools: Tools, told: list[Event]) -> None:
    prove(record, tools)
    notes = {e.act: e.detail for e in record.ledger.entries() if e.phase == "note"}
    assert notes["probe"]["refused"] == ["GCS"]
    assert notes["probe.outside"]["found"] == "closed to the outside: 6379 (refused)"
    assert [e.text for e in told if isinstance(e, Noted)][1:] == ["closed to the outside: 6379 (refused)"]


def test_an_open_door_outside_is_an_error(record: RunRecord, tools: Tools, place: Place) -> None:
    place.found = ClusterError("port 6379 of 10.0.0.1 can be entered from outside, past the SSH tunnel")
    with pytest.raises(ClusterError, match="port 6379"):
        prove(record, tools)


def test_when_strangers_come_in_here_the_look_outside_ends_first(
    record: RunRecord, tools: Tools, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_door(connection: Connection) -> list[Probe]:
        assert place.outside.wait(10)
        place.inside.set()
        raise ClusterError("Ray does not refuse callers without the token: GCS (OK)")

    monkeypatch.setattr(up, "require_refusal", open_door)
    with pytest.raises(ClusterError, match=r"GCS \(OK\)"):
        prove(record, tools)
    assert not [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]
