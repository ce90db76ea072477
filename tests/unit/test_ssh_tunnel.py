"""The tunnel, against a real sshd and real servers behind it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from dhctl.infra import ssh_tunnel
from dhctl.infra.errors import NotUpError
from dhctl.infra.events import Event, Noted, Warned
from dhctl.infra.ssh import HostKeyDiffersError, LoginRefusedError, SshEndpoint, UnreachableError, pin_host_key
from dhctl.infra.ssh_tunnel import free_ports, open_tunnel, taken
from unit.own_sshd import ALIAS, OwnSshd, free_port, listens, make_key

Eventually = Callable[..., None]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnSshd]:
    sshd = OwnSshd(tmp_path / "sshd").start()
    yield sshd
    sshd.stop()


@pytest.fixture
def head(server: OwnSshd, tmp_path: Path) -> SshEndpoint:
    return server.endpoint(tmp_path / "known_hosts")


@pytest.fixture
def behind() -> Iterator[dict[str, tuple[str, int]]]:
    """Two servers that say their name to whoever comes."""
    with _saying(b"dashboard") as one, _saying(b"gcs") as two:
        yield {"dashboard": ("127.0.0.1", one), "gcs": ("localhost", two)}


@contextmanager
def _saying(name: bytes) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            with suppress(OSError):  # the door was closed
                while True:
                    visitor, _ = door.accept()
                    with visitor:
                        visitor.sendall(name)

        threading.Thread(target=serve, daemon=True).start()
        yield door.getsockname()[1]
        door.shutdown(socket.SHUT_RDWR)


def heard(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as visitor:
        return visitor.recv(100)


def ssh_processes() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any(f"HostKeyAlias={ALIAS}" in word for word in process.cmdline()):
                found.append(process)
    return found


def test_each_name_leads_to_its_place_and_all_ends_with_the_block(
    head: SshEndpoint, behind: dict[str, tuple[str, int]]
) -> None:
    with open_tunnel(head, behind) as ports:
        assert {name: heard(port) for name, port in ports.items()} == {"dashboard": b"dashboard", "gcs": b"gcs"}
        (ssh,) = ssh_processes()
        assert os.getsid(ssh.pid) == ssh.pid
        here = [c.laddr.ip for c in ssh.net_connections() if c.status == psutil.CONN_LISTEN]
        assert here == ["127.0.0.1"] * 2
    assert ssh_processes() == []
    assert not any(listens(port) for port in ports.values())


def test_an_error_inside_ends_it_too(head: SshEndpoint, behind: dict[str, tuple[str, int]]) -> None:
    with pytest.raises(KeyboardInterrupt), open_tunnel(head, behind):
        raise KeyboardInterrupt
    assert ssh_processes() == []


def test_nobody_at_the_other_end_is_not_the_tunnels_business(head: SshEndpoint) -> None:
    with open_tunnel(head, {"gcs": ("127.0.0.1", free_port())}) as ports:
        assert heard(ports["gcs"]) == b""


@pytest.mark.parametrize(
    ("wrong", "error", "told"),
    [
        ("port", UnreachableError, "Connection refused"),
        ("key", LoginRefusedError, "does not take the run's SSH key"),
        ("host key", HostKeyDiffersError, "somebody else answers"),
        ("pin", NotUpError, "not known yet"),
    ],
)
def test_why_it_does_not_open_is_told(
    head: SshEndpoint, tmp_path: Path, wrong: str, error: type[Exception], told: str
) -> None:
    make_key(tmp_path / "other")
    match wrong:
        case "port":
            head = replace(head, port=free_port())
        case "key":
            head = replace(head, key_file=tmp_path / "other")
        case "host key":
            pin_host_key(head.known_hosts, ALIAS, (tmp_path / "other.pub").read_text())
        case _:
            head = replace(head, alias="dh-zzzz-head")
    with pytest.raises(error, match=told), open_tunnel(head, {"gcs": ("127.0.0.1", 6379)}):
        pytest.fail("it opened")
    assert ssh_processes() == []


def test_a_silent_node_is_given_up_in_time(head: SshEndpoint) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = replace(head, port=silent.getsockname()[1])
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="no SSH tunnel to .* in time"):  # noqa: SIM117, RUF043
            with open_tunnel(endpoint, {"gcs": ("127.0.0.1", 6379)}, timeout_s=1):
                pytest.fail("it opened")
        assert time.monotonic() - began < 8
    assert ssh_processes() == []


def test_a_port_taken_meanwhile_is_another_one(
    head: SshEndpoint, behind: dict[str, tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with _saying(b"a stranger") as stranger:
        offers = [[stranger, free_port()], free_ports(2)]
        monkeypatch.setattr(ssh_tunnel, "free_ports", lambda count: offers.pop(0))
        with open_tunnel(head, behind) as ports:
            assert {heard(port) for port in ports.values()} == {b"dashboard", b"gcs"}
    assert offers == []


def test_ports_that_are_always_taken_are_a_sentence(head: SshEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    with _saying(b"a stranger") as stranger:
        monkeypatch.setattr(ssh_tunnel, "free_ports", lambda count: [stranger])
        with pytest.raises(UnreachableError, match="forwarding"), open_tunnel(head, {"gcs": ("127.0.0.1", 1)}):
            pytest.fail("it opened")


def test_a_broken_connection_is_opened_again_on_the_same_ports(
    head: SshEndpoint, server: OwnSshd, behind: dict[str, tuple[str, int]], told: list[Event], eventually: Eventually
) -> None:
    with open_tunnel(head, behind, told.append) as ports:
        (before,) = ssh_processes()
        server.stop()
        eventually(lambda: told)
        assert isinstance(told[0], Warned)
        assert "broke; opening it again" in told[0].text
        assert not any(listens(port) for port in ports.values())
        server.start()
        eventually(lambda: len(told) > 1, 20)
        assert isinstance(told[1], Noted)
        assert heard(ports["dashboard"]) == b"dashboard"
        (after,) = ssh_processes()
        assert before.pid != after.pid
    assert ssh_processes() == []


def test_it_closes_in_the_middle_of_an_outage(
    head: SshEndpoint, server: OwnSshd, told: list[Event], eventually: Eventually
) -> None:
    with open_tunnel(head, {"gcs": ("127.0.0.1", 6379)}, told.append):
        server.stop()
        eventually(lambda: told)
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert len(told) == 1
    assert ssh_processes() == []


def test_somebody_else_at_the_address_is_never_spoken_to_again(
    head: SshEndpoint, server: OwnSshd, tmp_path: Path, told: list[Event], eventually: Eventually
) -> None:
    with open_tunnel(head, {"gcs": ("127.0.0.1", 6379)}, told.append) as ports:
        server.stop()
        (server.folder / "host").unlink()
        make_key(server.folder / "host")
        server.start()
        eventually(lambda: len(told) > 1, 20)
        assert isinstance(told[1], Warned)
        assert "somebody else answers" in told[1].text
        assert not listens(ports["gcs"])
        assert ssh_processes() == []


def test_an_outage_without_end_is_given_up(
    head: SshEndpoint,
    server: OwnSshd,
    told: list[Event],
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ssh_tunnel, "OUTAGE_S", 0.5)
    with open_tunnel(head, {"gcs": ("127.0.0.1", 6379)}, told.append):
        server.stop()
        eventually(lambda: len(told) > 1, 20)
        assert isinstance(told[1], Warned)
        assert "cannot be reached over SSH" in told[1].text


CLIENT = """
import sys, time
from pathlib import Path
from dhctl.infra.ssh import SshEndpoint
from dhctl.infra.ssh_tunnel import open_tunnel
host, user, key, known, alias, port = sys.argv[1:]
with open_tunnel(SshEndpoint(host, user, Path(key), Path(known), alias, int(port)), {"gcs": ("127.0.0.1", 6379)}) as p:
    print(p["gcs"], flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_the_tunnel_dies_with_a_killed_client(head: SshEndpoint, eventually: Eventually, signum: int) -> None:
    place = [head.host, head.user, str(head.key_file), str(head.known_hosts), head.alias, str(head.port)]
    with subprocess.Popen([sys.executable, "-c", CLIENT, *place], stdout=subprocess.PIPE) as client:
        assert client.stdout
        port = int(client.stdout.readline())
        assert listens(port)
        client.send_signal(signum)
    eventually(lambda: not ssh_processes())
    assert not listens(port)


def test_free_ports_differ_and_are_free() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert not taken(ports)
    with _saying(b"x") as held:
        assert taken([*ports, held])
