"""Files to and from a node, through the standard streams of a command: no secret in a command line, no scp needed."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

from dhctl.infra.errors import ClusterError
from dhctl.infra.home import storage_errors
from dhctl.infra.ssh_client import SshEndpoint, exchange, require, run

# A connection that breaks looks to `cat` like the end of the file: hence the count of bytes.
_STORE = """
set -e
mkdir -p -- "$(dirname -- "$1")"
umask 077
trap 'rm -f -- "$1.part"' EXIT
cat > "$1.part"
[ $(wc -c < "$1.part") -eq "$2" ] || { echo 'only a part of the file arrived' >&2; exit 1; }
chmod "$3" "$1.part"
mv -f -- "$1.part" "$1"
"""
_CHANGED_WHILE_READ = 1
"""Exit status of tar for files that grew while it read them, as logs do."""


def push_file(
    endpoint: SshEndpoint,
    content: bytes,
    remote_path: str,
    mode: int = 0o600,
    *,
    sudo: bool = True,
    timeout_s: float = 120.0,
) -> None:
    """Stores `content` as the file `remote_path` (absolute), whole or not at all; missing folders above are made.

    It belongs to root (with `sudo`), and nobody else can read it before it has its `mode`.
    Raises what `dhctl.infra.ssh.run` raises, and ClusterError when the node cannot store it.
    """
    words = ["sh", "-c", _STORE, "store", remote_path, str(len(content)), f"{mode:o}"]
    done = run(endpoint, _as_root(words, sudo), content, timeout_s)
    require(endpoint, done, f"storing {remote_path}")


def fetch(
    endpoint: SshEndpoint, remote_folder: str, into: Path, *, sudo: bool = True, timeout_s: float = 300.0
) -> tuple[str, ...]:
    """Copies what lies in a folder of the node into a folder of this machine; can be repeated.

    The node is not trusted: what leads out of the folder, and what is no file, folder or link, is left out. The names
    of these are returned. Raises what `dhctl.infra.ssh.run` raises, ClusterError when there is no such folder or only a
    part arrived, StateFolderError when this machine cannot store it.
    """
    with storage_errors(into):
        into.mkdir(parents=True, exist_ok=True)
    with storage_errors(into), tempfile.TemporaryFile(dir=into) as tar:
        words = _as_root(["tar", "-C", remote_folder, "-cf", "-", "."], sudo)
        done = exchange(endpoint, words, None, timeout_s, tar)
        if done.returncode != _CHANGED_WHILE_READ:
            require(endpoint, done, f"reading {remote_folder}")
        tar.seek(0)
        left_out: list[str] = []

        def kept(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
            try:
                return tarfile.data_filter(member, path)
            except tarfile.FilterError:
                left_out.append(member.name)
                return None

        try:
            with tarfile.open(fileobj=tar, mode="r:") as archive:
                archive.extractall(into, filter=kept)
        except tarfile.TarError as error:
            raise ClusterError(f"only a part of {remote_folder} came from {endpoint.place} ({error})") from error
    return tuple(left_out)


def _as_root(words: list[str], sudo: bool) -> list[str]:
    return ["sudo", "-n", *words] if sudo else words
