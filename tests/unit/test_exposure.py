"""Ports tried from outside."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dhctl.infra.errors import ClusterError
from dhctl.infra.exposure import Opening, probe_closed, require_closed

NOBODY = "192.0.2.1"  # TEST-NET-1, RFC 5737: routed nowhere


@pytest.fixture
def doors() -> Iterator[list[int]]:
    """Two ports that are open and two that nobody listens on, in turn: open, closed, open, closed."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(4)]
        for door in sockets:
            door.bind(("127.0.0.1", 0))
        for door in sockets[::2]:
            door.listen()
        yield [door.getsockname()[1] for door in sockets]


def test_each_port_is_told_in_order(doors: list[int]) -> None:
    found = probe_closed("127.0.0.1", doors)
    assert [(o.port, o.outcome, o.closed) for o in found] == [
        (doors[0], "open", False),
        (doors[1], "refused", True),
        (doors[2], "open", False),
        (doors[3], "refused", True),
    ]


def test_open_ports_are_named_and_closed_ones_are_not(doors: list[int]) -> None:
    with pytest.raises(ClusterError) as caught:
        require_closed("127.0.0.1", doors)
    assert f"ports {doors[0]}, {doors[2]} of 127.0.0.1 can be entered from outside" in str(caught.value)
    assert str(doors[1]) not in str(caught.value)


def test_closed_ports_are_rows_for_the_ledger(doors: list[int]) -> None:
    openings = require_closed("127.0.0.1", doors[1::2])
    assert [str(opening) for opening in openings] == [f"{port} (refused)" for port in doors[1::2]]
    rows = [opening.to_dict() for opening in openings]
    assert rows == [{"port": doors[1], "outcome": "refused"}, {"port": doors[3], "outcome": "refused"}]


def test_a_name_with_several_addresses_is_open_when_one_is(doors: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def two(*_: object, **__: object) -> list[object]:
        return [(0, 0, 0, "", (address, 0)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    monkeypatch.setattr(socket, "create_connection", _plain_connection)
    assert probe_closed("head.example", doors[:2]) == [Opening(doors[0], "open"), Opening(doors[1], "refused")]


def _plain_connection(address: tuple[str, int], timeout: float) -> socket.socket:
    """`socket.create_connection` asks the replaced `getaddrinfo` again."""
    door = socket.socket()
    door.settimeout(timeout)
    try:
        door.connect(address)
    except OSError:
        door.close()
        raise
    return door


def test_no_answer_is_closed_and_all_ports_are_tried_at_once() -> None:
    began = time.monotonic()
    found = probe_closed(NOBODY, range(6379, 6389), timeout_s=0.5)
    assert time.monotonic() - began < 4
    assert {o.outcome for o in found} <= {"no answer", "unreachable", "refused"}
    assert [o.port for o in found] == list(range(6379, 6389))


def test_a_host_that_cannot_be_looked_up_is_not_called_closed() -> None:
    with pytest.raises(ClusterError, match="cannot be tried from outside"):
        probe_closed("no-such-host.invalid", [6379])


def test_a_port_that_cannot_be_tried_is_not_called_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_sockets_left(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "create_connection", no_sockets_left)
    with pytest.raises(ClusterError, match=r"port 6379 of 127.0.0.1 cannot be tried.*Too many open files"):
        probe_closed("127.0.0.1", [6379])
