"""OpenSSH's client: commands and files over a connection to one pinned host key.

No settings of the user's own play in (`-F none`), except on the hop to a bastion, which is the user's machine. What
ssh itself says goes to a file of its own, so that nothing a remote command prints is taken for it.

ClusterError
|- UnreachableError        nobody answers, or the connection broke
|- LoginRefusedError       the node does not take the run's key
`- HostKeyDiffersError     somebody else answers: nothing was sent
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dhctl.infra.errors import ClusterError, NotUpError, RefusedError
from dhctl.infra.home import storage_errors

CONNECT_S = 15
ALIVE_EVERY_S, ALIVE_TRIES = 15, 4
"""A connection over which nothing came for their product, in seconds, is broken; shorter outages are outlived."""
OWN_FAILURE = 255
"""Exit status of ssh when it failed itself. A remote command that ends with it cannot be told from that."""
LOGIN_EVERY_S = 1.0
_KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(255)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.execv(sys.argv[2], sys.argv[2:])
"""
# In a small Python before ssh, and not as `preexec_fn`: that may hang in a process with threads, as a client has.


class UnreachableError(ClusterError):
    """Nobody answers over SSH, or the connection broke."""


class LoginRefusedError(ClusterError):
    """The node answers, and does not take the run's key."""


class HostKeyDiffersError(ClusterError):
    """Who answers does not have the host key that was pinned."""


@dataclass(frozen=True)
class SshEndpoint:
    """One node over SSH: where it is, who logs in with which key, and by which host key it is known."""

    host: str
    user: str
    key_file: Path
    known_hosts: Path
    alias: str
    """Name of the node's host key in `known_hosts`: addresses are used again by others, this is not."""
    port: int = 22
    bastion: str | None = None
    """`user@host` or `user@host:port`."""

    @property
    def place(self) -> str:
        """For sentences."""
        return f"{self.user}@{self.host}:{self.port}" + (f" (by way of {self.bastion})" if self.bastion else "")


def ssh_program() -> str:
    """Path of the OpenSSH client. Raises RefusedError when there is none."""
    found = shutil.which("ssh")
    if found is None:
        raise RefusedError("there is no `ssh` on PATH", "install the OpenSSH client, such as package openssh-client")
    return str(Path(found).absolute())


def pin_host_key(known_hosts: Path, alias: str, key: str) -> None:
    """Writes down that `alias` has the host key `key` ("TYPE BASE64", a comment may follow) and no other.

    The key must come from a source that is trusted, such as the console log from the cloud's API; a newer one counts.
    Raises ClusterError when it is no key, StateFolderError when it cannot be stored.
    """
    words = key.split()[:2]
    if not _ALIAS.fullmatch(alias) or len(words) < 2 or words[0] not in _KEY_TYPES or _inner_type(words[1]) != words[0]:
        raise ClusterError(f"the node told no usable SSH host key ({key[:60]!r})", "look at its console log")
    with storage_errors(known_hosts.parent):
        others = [line for line in _lines(known_hosts) if line.split(" ", 1)[0] != alias]
        written = known_hosts.with_name(f".{known_hosts.name}.{os.getpid()}")
        written.touch(mode=0o600)
        written.write_text("\n".join([*others, f"{alias} {' '.join(words)}"]) + "\n")
        written.replace(known_hosts)


def _inner_type(blob: str) -> str:
    """The type inside a public key, which a cut line or a foreign word does not have; "" there."""
    try:
        raw = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        return ""
    length = int.from_bytes(raw[:4], "big")
    return raw[4 : 4 + length].decode("ascii", "replace") if 0 < length <= len(raw) - 4 else ""


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def arguments(endpoint: SshEndpoint, *, ask: bool = False) -> list[str]:
    """Command line of ssh up to and without the destination (`destination`).

    `ask`: whether the user's own ssh may ask for a passphrase on the way to the bastion.
    Raises RefusedError without ssh, NotUpError when the run's key or the pinned host key is missing.
    """
    if not endpoint.key_file.is_file():
        raise NotUpError(f"the run's SSH key {endpoint.key_file} is missing", "without it the head cannot be entered")
    if not any(line.startswith(f"{endpoint.alias} ") for line in _lines(endpoint.known_hosts)):
        raise NotUpError(f"the SSH host key of {endpoint.alias} is not known yet", "wait until the run is up")
    settings: dict[str, object] = {
        "LogLevel": "ERROR",
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "HostKeyAlias": endpoint.alias,
        "UserKnownHostsFile": _quoted(endpoint.known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "UpdateHostKeys": "no",
        "PreferredAuthentications": "publickey",
        "IdentityFile": _quoted(endpoint.key_file),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "ConnectTimeout": CONNECT_S,
        "ServerAliveInterval": ALIVE_EVERY_S,
        "ServerAliveCountMax": ALIVE_TRIES,
    }
    if endpoint.bastion:
        settings["ProxyCommand"] = _hop(endpoint.bastion, ask)
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    return [ssh_program(), "-F", "none", *options, "-l", endpoint.user, "-p", str(endpoint.port)]


def destination(endpoint: SshEndpoint) -> list[str]:
    """The last words of ssh's command line, before the remote command."""
    return ["--", endpoint.host]


def _quoted(path: Path) -> str:
    """A path as ssh reads it in an option: with blanks, and no expansion of `%`."""
    plain = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{plain}"'


def _hop(bastion: str, ask: bool) -> str:
    user_host, _, port = bastion.rpartition(":") if bastion.count(":") == 1 else (bastion, "", "")
    way = ["ssh", *([] if ask else ["-o", "BatchMode=yes"]), *(["-p", port] if port else [])]
    return shlex.join([*way, "-W", "[%h]:%p", "--", user_host])


def logging_to(file: IO[bytes]) -> list[str]:
    """Makes ssh write what it says itself to a file of ours that has no name: a killed client leaves none."""
    return ["-E", f"/proc/{os.getpid()}/fd/{file.fileno()}"]


def spawn(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a process in a session of its own that gets SIGTERM when the thread that calls this ends. Linux."""
    own = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
    return subprocess.Popen(own, start_new_session=True, **options)


def end(process: subprocess.Popen[bytes], grace_s: float = 3.0) -> None:
    """Ends a process of `spawn` with its whole group, and closes its pipes. Silent when it has ended."""
    if process.poll() is None:  # it has not been waited for: its number cannot be another's
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(grace_s)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            with suppress(BrokenPipeError):
                pipe.close()


def failure(endpoint: SshEndpoint, own_words: str, other_words: str = "") -> ClusterError:
    """What ssh's own log says, as an error; `other_words` is what the bastion's ssh and the remote command said."""
    # ssh has one exit status for all its failures, so its words must tell them apart; they are not translated
    told = "; ".join(dict.fromkeys(filter(None, (_last_line(other_words), _last_line(own_words))))) or "no reason given"
    if "Host key verification failed" in own_words:
        return HostKeyDiffersError(
            f"somebody else answers at {endpoint.place}: it does not have the host key of {endpoint.alias}",
            "nothing was sent there; see who has this address now, and end the run with `dhctl down`",
        )
    if "Permission denied (" in own_words:
        return LoginRefusedError(
            f"{endpoint.place} does not take the run's SSH key ({told})", "is `openstack.user` the login of the image?"
        )
    near = f"does `ssh {endpoint.bastion}` work?" if endpoint.bastion else "is SSH to it allowed from this address?"
    return UnreachableError(f"{endpoint.place} cannot be reached over SSH ({told})", near)


def text_of(log: IO[bytes]) -> str:
    """All that was written to a log file."""
    log.seek(0)
    return log.read().decode(errors="replace")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def run(
    endpoint: SshEndpoint, command: Sequence[str], stdin: bytes | None = None, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[bytes]:
    """Runs exactly these words on the node, for at most `timeout_s`. The caller looks at the exit status.

    A command whose time is over, or whose client died, may go on over there.

    For a line of shell pass `["sh", "-c", line]`. No secret may stand in `command`: pass it in `stdin`.
    Raises UnreachableError (also when time is over, or the command itself ends with 255), LoginRefusedError,
    HostKeyDiffersError, NotUpError, RefusedError.
    """
    return exchange(endpoint, command, stdin, timeout_s, subprocess.PIPE)


def exchange(
    endpoint: SshEndpoint, command: Sequence[str], stdin: bytes | None, timeout_s: float, stdout: int | IO[bytes]
) -> subprocess.CompletedProcess[bytes]:
    """As `run`, with the output to a file that is open for writing."""
    with tempfile.TemporaryFile() as own_log:
        line = [*arguments(endpoint), *logging_to(own_log), "-T", *destination(endpoint), shlex.join(command)]
        feed = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        process = spawn(line, stdin=feed, stdout=stdout, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(stdin, timeout_s)
        except subprocess.TimeoutExpired:
            raise UnreachableError(
                f"`{command[0]}` on {endpoint.place} was not done after {timeout_s:.0f} s", "try again"
            ) from None
        finally:
            end(process)
        if process.returncode == OWN_FAILURE:
            raise failure(endpoint, text_of(own_log), err.decode(errors="replace"))
    return subprocess.CompletedProcess(list(command), process.returncode, out or b"", err)


def require(endpoint: SshEndpoint, done: subprocess.CompletedProcess[bytes], what: str) -> None:
    """Raises ClusterError with the node's own words when a command did not end with 0; `what` is for the sentence."""
    if done.returncode != 0:
        told = _last_line((done.stderr or done.stdout).decode(errors="replace")) or f"exit status {done.returncode}"
        raise ClusterError(f"{what} on {endpoint.place} failed ({told})", "`dhctl ssh RUN` opens a shell there")


def with_first_login(act: Callable[[], None], timeout_s: float, check: Callable[[], None] = lambda: None) -> None:
    """Does `act`, which logs in, as often as it takes; it can be repeated. `check` is called before each try, and may
    raise to stop.

    A young node refuses connections, then logins. Raises ClusterError with the last reason when time is over, and
    HostKeyDiffersError at once.
    """
    until = time.monotonic() + timeout_s
    while True:
        check()
        try:
            return act()
        except HostKeyDiffersError:
            raise
        except ClusterError:
            if time.monotonic() + LOGIN_EVERY_S >= until:
                raise
        time.sleep(LOGIN_EVERY_S)


def login_line(endpoint: SshEndpoint, words: Sequence[str] = (), *, terminal: bool = True) -> list[str]:
    """Command line of ssh for a person: a shell, or a command. One word is a line of shell, several are exact words.

    `terminal`: whether the user sits at one. Raises as `arguments`.
    """
    told = words[0] if len(words) == 1 else shlex.join(words)
    return [
        *arguments(endpoint, ask=True),
        "-t" if terminal else "-T",
        *destination(endpoint),
        *([told] if words else []),
    ]
