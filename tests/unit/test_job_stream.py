"""A job's log as it grows, from a stand-in for Ray's client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from dhctl.infra import job_stream
from dhctl.infra.errors import ClusterError
from dhctl.infra.job_stream import LogStream


@dataclass
class Status:
    terminal: bool

    def is_terminal(self) -> bool:
        return self.terminal


class BrokenSocketError(RuntimeError):
    """What Ray's client raises when the web socket breaks."""


@dataclass
class FakeClient:
    """A job whose log is `tails[-1]` in the end; each connection gives one of `tails`, and breaks where it says so."""

    tails: list[list[str | type[BrokenSocketError]]]
    first: str = ""
    terminal: bool = True
    connections: int = field(default=0)

    def get_job_logs(self, submission_id: str) -> str:
        return self.first

    def get_job_status(self, submission_id: str) -> Status:
        return Status(self.terminal)

    async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
        tail = self.tails[min(self.connections, len(self.tails) - 1)]
        self.connections += 1
        for chunk in tail:
            if not isinstance(chunk, str):
                raise chunk("the socket is gone")
            yield chunk


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_stream, "RECONNECT_S", 0.01)


def read(client: FakeClient) -> list[str]:
    return [line for line in LogStream(client, "s-1").lines(tick_s=0.01) if line is not None]


def test_lines_are_whole_however_they_arrive() -> None:
    assert read(FakeClient([["fir", "st\nsec", "ond\r\n", "\n", "no end"]])) == ["first", "second", "", "no end"]


def test_what_came_first_is_not_told_twice() -> None:
    assert read(FakeClient([["one\ntwo\n", "three\n"]], first="one\ntw")) == ["one", "two", "three"]


def test_a_chunk_that_spans_what_was_seen_is_cut() -> None:
    assert read(FakeClient([["o", "ne\ntwo\nthr", "ee\n"]], first="one\n")) == ["one", "two", "three"]


def test_nothing_at_all_is_an_empty_log() -> None:
    assert read(FakeClient([[]])) == []


def test_a_broken_connection_is_made_again() -> None:
    client = FakeClient([[BrokenSocketError], ["one\ntwo\n"]])
    assert read(client) == ["one", "two"]
    assert client.connections == 2


def test_after_a_broken_connection_it_goes_on_where_it_was() -> None:
    whole = ["one\n", "two\n", "three\n"]
    assert read(FakeClient([[*whole[:2], BrokenSocketError], [*whole[:1], BrokenSocketError], whole])) == [
        "one",
        "two",
        "three",
    ]


def test_a_connection_that_never_comes_back_is_an_error_after_all_whole_lines() -> None:
    client = FakeClient([[BrokenSocketError]], first="one\nhalf a li")
    seen: list[str | None] = []
    with pytest.raises(ClusterError, match=r"the connection to the job was lost \(the socket is gone\)"):
        seen.extend(LogStream(client, "s-1").lines(tick_s=0.01))
    assert [line for line in seen if line is not None] == ["one"]
    assert client.connections == job_stream.RECONNECTS + 1


def test_a_reader_may_look_around_while_nothing_comes() -> None:
    client = FakeClient([["one\n"]], terminal=False)  # it says nothing for as long as the first wait takes
    lines = LogStream(client, "s-1").lines(tick_s=0.01)
    assert [next(lines) for _ in range(3)] == [None, None, None]
    client.terminal = True
    assert [line for line in lines if line is not None] == ["one"]
