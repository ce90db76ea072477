"""Files to and from a node, through the standard streams of a command: no secret in a command line, no scp needed."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from dhctl.infra.errors import ClusterError
from dhctl.infra.home import storage_errors
from dhctl.infra.ssh_client import SshEndpoint, exchange, require, run
from dhctl.infra.untrusted_tar import extract

# A connection that breaks looks to `head` like the end of the file: hence the count of bytes.
_STORE = """
set -e
mode=$1
shift
trap 'rm -f -- "$part"' EXIT
while [ $# -gt 0 ]; do
  part="$1.part"
  mkdir -p -- "$(dirname -- "$1")"
  (umask 077; head -c "$2" > "$part")
  [ $(wc -c < "$part") -eq "$2" ] || { echo 'only a part of the file arrived' >&2; exit 1; }
  chmod "$mode" "$part"
  mv -f -- "$part" "$1"
  shift 2
done
"""
# Its statuses are none of tar's own: 1 of the first command would look like logs that grew.
_READ = """
sh -c "$1" >&2 || exit 9
shift
for folder; do
  shift
  [ ! -d "$folder" ] || set -- "$@" -C "$folder" .
done
[ $# -gt 0 ] || { echo 'there is no such folder' >&2; exit 2; }
exec tar -cf - "$@"
"""
_CHANGED_WHILE_READ = 1
"""Exit status of tar for files that grew while it read them, as logs do."""


def push_files(
    endpoint: SshEndpoint,
    contents: Mapping[str, bytes],
    mode: int = 0o600,
    *,
    sudo: bool = True,
    timeout_s: float = 120.0,
) -> None:
    """Stores files by their absolute paths, in this order, each whole or not at all; missing folders are made.

    They belong to root (with `sudo`), and nobody else can read one before it has its `mode`.
    Raises what `dhctl.infra.ssh.run` raises, and ClusterError when the node cannot store one.
    """
    sizes = [word for path, content in contents.items() for word in (path, str(len(content)))]
    words = ["sh", "-c", _STORE, "store", f"{mode:o}", *sizes]
    done = run(endpoint, _as_root(words, sudo), b"".join(contents.values()), timeout_s)
    require(endpoint, done, f"storing {', '.join(contents)}")


def fetch(
    endpoint: SshEndpoint,
    folders: Sequence[str],
    into: Path,
    *,
    first: str = "true",
    sudo: bool = True,
    timeout_s: float = 300.0,
) -> tuple[str, ...]:
    """Copies what lies in those of the node's folders that are there into one of this machine; can be repeated.

    `first` is a line of shell that must end well on the node before they are read.
    The node is not trusted: what leads out of a folder, and what is no file, folder or link, is left out. The names
    of these are returned. Raises what `dhctl.infra.ssh.run` raises, ClusterError when `first` fails, when there is none
    of the folders, or only a part arrived, StateFolderError when this machine cannot store it.
    """
    told = ", ".join(folders)
    with storage_errors(into):
        into.mkdir(parents=True, exist_ok=True)
    with storage_errors(into), tempfile.TemporaryFile(dir=into) as tar:
        words = _as_root(["sh", "-c", _READ, "read", first, *folders], sudo)
        done = exchange(endpoint, words, None, timeout_s, tar)
        if done.returncode != _CHANGED_WHILE_READ:
            require(endpoint, done, f"reading {told}")
        tar.seek(0)
        try:
            return extract(tar, into)
        except tarfile.TarError as error:
            raise ClusterError(f"only a part of {told} came from {endpoint.place} ({error})") from error


def _as_root(words: list[str], sudo: bool) -> list[str]:
    return ["sudo", "-n", *words] if sudo else words
