"""Unpacking what a node sent, which may have been taken over by whoever trains on it."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import IO


def extract(tar: IO[bytes], into: Path) -> tuple[str, ...]:
    """Unpacks a tar file, without what leads out of `into` and what is no file, folder or link: names of these.

    Raises tarfile.TarError when it is torn, OSError when it cannot be stored.
    """
    left_out: list[str] = []

    def kept(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        try:
            return tarfile.data_filter(member, path)
        except tarfile.FilterError:
            left_out.append(member.name)
            return None

    with tarfile.open(fileobj=tar, mode="r:") as archive:
        archive.extractall(into, filter=kept)
    return tuple(left_out)
