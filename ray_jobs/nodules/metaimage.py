"""Reading MetaImage volumes (.mhd with .raw or .zraw), the format of LUNA16.

https://itk.org/Wiki/ITK/MetaIO/Documentation. Written here because SimpleITK, which reads it, is 50 MB for this alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhctl.ray_jobs.nodules.volume import Grid, UnusableScanError, Volume, to_hu

TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def read_metaimage(path: Path) -> Volume:
    """The volume that a .mhd file describes; its data file lies beside it. Raises UnusableScanError."""
    header = parse_header(path.read_bytes().decode("latin-1"))
    if header.get("NDims", "3") != "3":
        raise UnusableScanError(f"has {header['NDims']} dimensions; a scan has 3")
    shape = [int(value) for value in _numbers(header, "DimSize")][::-1]
    spacing = _numbers(header, "ElementSpacing")[::-1]
    origin = _numbers(header, "Offset" if "Offset" in header else "Position")
    # Row i of the matrix is the direction of axis i, x first.
    matrix = _numbers(header, "TransformMatrix", 9) if "TransformMatrix" in header else np.eye(3).ravel()
    grid = Grid.checked(shape, spacing, origin, np.reshape(matrix, (3, 3))[::-1])
    return Volume(to_hu(_values(header, path, grid)), grid)


def data_file(header: Mapping[str, str]) -> str:
    """Name of the file with the values, which lies beside the header. Raises UnusableScanError."""
    name = header.get("ElementDataFile", "")
    if not name or name in ("LOCAL", "LIST") or "/" in name or "\\" in name:
        raise UnusableScanError(f"has the ElementDataFile '{name}'; name one file beside the header")
    return name


def parse_header(text: str) -> dict[str, str]:
    """The `Key = Value` lines of a header."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def _values(header: Mapping[str, str], path: Path, grid: Grid) -> NDArray[np.generic]:
    kind = TYPES.get(header.get("ElementType", ""))
    if kind is None:
        raise UnusableScanError(f"has the ElementType '{header.get('ElementType', '')}'; use one of {', '.join(TYPES)}")
    big = "true" in (header.get("BinaryDataByteOrderMSB", "").lower(), header.get("ElementByteOrderMSB", "").lower())
    dtype = np.dtype(kind).newbyteorder(">" if big else "<")
    name = data_file(header)
    try:
        content = path.with_name(name).read_bytes()
        if header.get("CompressedData", "").lower() == "true":
            content = zlib.decompress(content)
    except (OSError, zlib.error) as error:
        raise UnusableScanError(f"has the data file {name}, which cannot be read: {error}") from error
    wanted = int(np.prod(grid.shape)) * dtype.itemsize
    if len(content) != wanted:
        raise UnusableScanError(f"has {len(content)} bytes in {name}, but its header says {wanted}; copy it again")
    return np.frombuffer(content, dtype).reshape(grid.shape)


def _numbers(header: Mapping[str, str], key: str, count: int = 3) -> NDArray[np.float64]:
    try:
        numbers = np.array([float(word) for word in header[key].split()])
    except (KeyError, ValueError):
        numbers = np.array([])
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise UnusableScanError(f"has no {key} of {count} numbers in its header; export it again")
    return numbers
