"""What lies in a store: files and bytes of each folder in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from dhctl.ray_jobs.storage import Store


@dataclass(frozen=True)
class Row:
    """A folder (its name ends with a slash) or a file that lies directly in the place."""

    name: str
    files: int
    size_bytes: int


@dataclass(frozen=True)
class Listing:
    """Rows by name, and their sums."""

    rows: tuple[Row, ...]

    @property
    def files(self) -> int:
        """All files, also those of folders in folders."""
        return sum(row.files for row in self.rows)

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(row.size_bytes for row in self.rows)


def listing(store: Store) -> Listing:
    """Folders first. Looks at every name in the place, and reads no file."""
    files, sizes = Counter[str](), Counter[str]()
    for file in store.files(deep=True):
        first, slash, _ = file.key.partition("/")
        files[first + slash] += 1
        sizes[first + slash] += file.size_bytes
    names = sorted(files, key=lambda name: (not name.endswith("/"), name))
    return Listing(tuple(Row(name, files[name], sizes[name]) for name in names))
