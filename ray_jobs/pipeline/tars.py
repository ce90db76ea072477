"""Tiles of equal size in one tar in webdataset's layout: 00000.jpg or 00000.npy and on."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

JPEG_QUALITY = 90


class TileTar:
    """Tiles of a tar that is in memory; only those that are asked for are decoded. Threads may share it."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            self._places = [(entry.name, entry.offset_data, entry.size) for entry in tar.getmembers()]

    def __len__(self) -> int:
        return len(self._places)

    def tile(self, index: int) -> NDArray[np.uint8]:
        """The tile at a position, RGB (px, px, 3)."""
        name, start, size = self._places[index]
        content = io.BytesIO(self._content[start : start + size])
        if name.endswith(".npy"):
            tile: NDArray[np.uint8] = np.load(content, allow_pickle=False)
            return tile
        return np.asarray(Image.open(content).convert("RGB"))


def pack(tiles: Iterable[NDArray[np.uint8]], tile_format: str) -> bytes:
    """A tar of RGB tiles (px, px, 3) as jpg or npy; the same tiles give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for index, tile in enumerate(tiles):
            content = io.BytesIO()
            if tile_format == "jpg":
                Image.fromarray(tile).save(content, "JPEG", quality=JPEG_QUALITY)
            else:
                np.save(content, tile, allow_pickle=False)
            entry = tarfile.TarInfo(f"{index:05d}.{tile_format}")
            entry.size = content.tell()
            content.seek(0)
            tar.addfile(entry, content)
    return buffer.getvalue()


def unpack(content: bytes, wanted: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
    """Tiles (n, px, px, 3) of a tar, or those at the positions `wanted`; only these are decoded."""
    tar = TileTar(content)
    chosen = range(len(tar)) if wanted is None else wanted
    return np.stack([tar.tile(int(index)) for index in chosen])
