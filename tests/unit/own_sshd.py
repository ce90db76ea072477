"""A real OpenSSH server of a test's own on 127.0.0.1: own host key, own user key, nothing of the machine's settings."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dhctl.infra.ssh import SshEndpoint, pin_host_key

ALIAS = "dh-aaaabbbbcc-head"
PRIVILEGE_SEPARATION = Path("/run/sshd")


@dataclass
class OwnSshd:
    """Started by `start`, ended by `stop` with all it serves; `stop` and `start` again keep port and host key."""

    folder: Path
    settings: tuple[str, ...] = ()
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        for name in ("host", "user"):
            make_key(self.folder / name)
        shutil.copy(self.folder / "user.pub", self.folder / "authorized_keys")
        self.port = self.port or free_port()

    def start(self) -> OwnSshd:
        if os.getuid() == 0:
            PRIVILEGE_SEPARATION.mkdir(exist_ok=True)
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder}/host",
            f"AuthorizedKeysFile {self.folder}/authorized_keys",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "PidFile none",
            *self.settings,
        ]
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n")
        command = [program(), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 10
        while not listens(self.port):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, "sshd does not listen"
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """The server and the sessions it serves: as when the node is cut off."""
        import psutil

        if self.process is None:
            return
        served = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        self.process.wait(5)
        for one in served:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(served, 5)
        self.process = None

    @property
    def host_key(self) -> str:
        return (self.folder / "host.pub").read_text()

    def endpoint(self, known_hosts: Path, bastion: str | None = None) -> SshEndpoint:
        """As a run has it: the host key pinned."""
        pin_host_key(known_hosts, ALIAS, self.host_key)
        return SshEndpoint("127.0.0.1", getpass.getuser(), self.folder / "user", known_hosts, ALIAS, self.port, bastion)


def program() -> str:
    found = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if found is None or shutil.which("ssh") is None:
        pytest.skip("needs the OpenSSH server and client (packages openssh-server, openssh-client)")
    return found


def make_key(path: Path) -> None:
    program()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path], check=True)


def listens(port: int) -> bool:
    with socket.socket() as visitor:
        return visitor.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])
