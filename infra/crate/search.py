"""The last look before a crate is written: no value of a secret and no known identifier is anywhere in it."""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dhctl.infra.errors import RefusedError

LIMIT_BYTES = 256 * 2**20
"""Of one file or one member of a model's archive: text is never that long."""

_RUN = re.compile(r"[^\W_]+")
_TENSOR = re.compile(r"(?:.*/)?data/\d+")
"""Members of a torch file that hold raw numbers."""


@dataclass(frozen=True)
class Finding:
    """Something that must not be there. Never says what: a message is kept and sent, too."""

    file: str
    line: int
    what: str

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.file}, line {self.line}: {self.what}"


class UnsafeCrateError(RefusedError):
    """A crate would tell a secret or name a patient; nothing was written."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = tuple(findings)
        told = "; ".join(finding.text for finding in findings[:5])
        more = f"; and {len(findings) - 5} more" if len(findings) > 5 else ""
        super().__init__(
            f"the crate is not written, because it would hold what must not leave: {told}{more}",
            "take it out of the job's code, settings or names, and run the job again",
        )


class Searcher:
    """Looks for secrets anywhere, and for identifiers as whole words, whatever their case."""

    def __init__(self, secrets: Mapping[bytes, str], identifiers: Mapping[str, str]) -> None:
        self._secrets, self._identifiers = secrets, identifiers
        self._by_beginning: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for identifier, where in identifiers.items():
            first = _RUN.search(identifier)
            if first:
                self._by_beginning[first[0]].append((identifier[first.start() :], where))

    def search(self, folder: Path) -> list[Finding]:
        """Everything that is found in a folder's files and in their names."""
        found = []
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            found += self.search_bytes("the name of a file", name.encode())
            if path.is_file():
                for member, content in _contents(path):
                    found += self.search_bytes(f"{name}{member}", content)
        return found

    def search_bytes(self, file: str, content: bytes) -> list[Finding]:
        """What is found in the content of one file."""
        found = [
            Finding(file, content.count(b"\n", 0, content.find(value)) + 1, f"the value of {told}")
            for value, told in self._secrets.items()
            if value in content
        ]
        text = content.decode("utf-8", errors="replace").casefold()
        return [*found, *(self._inside(file, text) if b"\0" in content else self._words(file, text))]

    def _inside(self, file: str, text: str) -> Iterator[Finding]:
        """In what is no text, letters beside an identifier need not be a part of it."""
        where = {told for identifier, told in self._identifiers.items() if identifier in text}
        yield from (Finding(file, 1, f"an identifier of {told}") for told in sorted(where))

    def _words(self, file: str, text: str) -> Iterator[Finding]:
        told = set()
        for run in _RUN.finditer(text):
            for identifier, where in self._by_beginning.get(run[0], ()):
                end = run.start() + len(identifier)
                whole = text.startswith(identifier, run.start()) and not text[end : end + 1].isalnum()
                if whole and where not in told:
                    told.add(where)
                    yield Finding(file, text.count("\n", 0, run.start()) + 1, f"an identifier of {where}")


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """A file's content; of an archive, as torch writes one, what is no tensor."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            yield "", stream.read(LIMIT_BYTES)
        return
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            yield f" ({member.filename})", member.filename.encode()
            if not _TENSOR.fullmatch(member.filename):
                with archive.open(member) as stream:
                    yield f" ({member.filename})", stream.read(LIMIT_BYTES)
