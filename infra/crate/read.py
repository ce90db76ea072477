"""Opening a crate that dhctl wrote, and holding it to its own digests."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dhctl.infra.crate import layout
from dhctl.infra.crate.digests import file_sha256, hashes_of
from dhctl.infra.crate.facts import FORMAT, KIND
from dhctl.infra.errors import UsageError
from dhctl.infra.home import storage_errors

SHOWN = 5
NEXT = "give a folder or zip file of `dhctl export`"


class CrateError(UsageError):
    """What was given is no crate of dhctl, or was changed after it was written."""


@dataclass(frozen=True)
class Crate:
    """A crate that proved to be whole. `folder` is where it lies unpacked."""

    path: Path
    folder: Path
    run: Mapping[str, Any]
    """run.json."""
    spec: Mapping[str, Any]
    """As admitted, without what is withheld."""

    @property
    def job(self) -> Mapping[str, Any]:
        """The row of the newest job that succeeded, else of the newest. Raises CrateError when the run had none."""
        rows: Sequence[Mapping[str, Any]] = self.run["jobs"]
        if not rows:
            raise CrateError(f"{self.path} is of a run without a job", "there is nothing to reproduce")
        return next((row for row in reversed(rows) if row["status"] == "SUCCEEDED"), rows[-1])

    @property
    def result(self) -> Mapping[str, Any]:
        """What that job said; empty when it said nothing."""
        return self._of_job("result.json")

    @property
    def environment(self) -> Mapping[str, Any]:
        """What that job's driver found."""
        return self._of_job("environment.json")

    @property
    def code(self) -> Path | None:
        """The folder of that job's code; None when it is not in the crate."""
        named = self.job["code"]["folder"]
        return self.folder / str(named) if named else None

    def _of_job(self, name: str) -> Mapping[str, Any]:
        path = self.folder / layout.job_file(int(self.job["number"]), name)
        return _json(path, self.path) if path.exists() else {}


def open_crate(path: Path, into: Path) -> Crate:
    """The crate in a folder or a zip file, which is unpacked in `into`.

    Raises CrateError with a sentence: no crate, another tool's, a newer dhctl's, files missing or changed.
    """
    folder = _unpacked(path, into)
    if not (folder / layout.METADATA).is_file():
        raise CrateError(f"{path} is no RO-Crate: it has no {layout.METADATA}", NEXT)
    graph = _graph(folder, path)
    run = _run(folder, path, graph)
    problems = [*_changed_files(folder, graph), *_changed_code(folder, run)]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise CrateError(f"{path} is not as it was written: {'; '.join(problems[:SHOWN])}{more}", "get the crate anew")
    return Crate(path, folder, run, _json(folder / layout.SPEC, path))


def _unpacked(path: Path, into: Path) -> Path:
    if path.is_dir():
        return path.resolve()
    if not path.exists():
        raise CrateError(f"there is no {path}", NEXT)
    try:
        with zipfile.ZipFile(path) as archive, storage_errors(into):
            archive.extractall(into)  # takes no path out of `into`, whatever the archive says
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        told = f"{path} is no crate: neither a folder nor a zip file that can be read ({error})"
        raise CrateError(told, NEXT) from error
    inside = list(into.iterdir())
    packed_as_folder = len(inside) == 1 and inside[0].is_dir()
    return inside[0] if packed_as_folder else into


def _json(path: Path, crate: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CrateError(f"{crate} lacks {path.name}", "get the crate anew") from error
    except (OSError, ValueError) as error:
        raise CrateError(f"{path.name} in {crate} cannot be read ({error})", "get the crate anew") from error
    if not isinstance(body, dict):
        raise CrateError(f"{path.name} in {crate} is no JSON object", "get the crate anew")
    return body


def _graph(folder: Path, path: Path) -> Mapping[str, Mapping[str, Any]]:
    """The entities by id."""
    listed = _json(folder / layout.METADATA, path).get("@graph")
    if not isinstance(listed, list) or not all(isinstance(one, dict) and "@id" in one for one in listed):
        raise CrateError(f"{path} is no RO-Crate: its {layout.METADATA} has no @graph", "get the crate anew")
    return {str(one["@id"]): one for one in listed}


def _run(folder: Path, path: Path, graph: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """run.json. Raises CrateError when it is another tool's or a newer dhctl's."""
    if layout.RUN not in graph or "#dhctl" not in graph:
        tools = [str(e.get("name")) for e in graph.values() if "SoftwareApplication" in str(e.get("@type"))]
        by = f" by {', '.join(tools[:3])}" if tools else ""
        raise CrateError(
            f"{path} was not written by dhctl but{by or ' by another tool'}", "only dhctl's own can be run"
        )
    run = _json(folder / layout.RUN, path)
    if run.get("kind") != KIND or not isinstance(run.get("format"), int):
        raise CrateError(f"{layout.RUN} in {path} is no record of dhctl", "get the crate anew")
    if run["format"] > FORMAT:
        newer = f"{run.get('dhctl')}, format {run['format']}; this one knows {FORMAT}"
        raise CrateError(f"{path} was written by a newer dhctl ({newer})", "upgrade dhctl")
    return run


def _changed_files(folder: Path, graph: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, entity in graph.items():
        wanted = entity.get("sha256")
        if entity.get("@type") != "File" or not wanted or ":" in name:
            continue
        path = folder / unquote(name)
        if not path.resolve().is_relative_to(folder.resolve()):
            yield f"{name} leads out of it"
        elif not path.is_file():
            yield f"{name} is missing"
        elif file_sha256(path) != wanted:
            yield f"{name} was changed (SHA-256 {file_sha256(path)[:12]}, not {str(wanted)[:12]})"


def _changed_code(folder: Path, run: Mapping[str, Any]) -> Iterator[str]:
    named = {row["code"]["folder"]: row["code"]["files"] for row in run["jobs"] if row["code"]["folder"]}
    for code, wanted in named.items():
        found = hashes_of(folder / code) if (folder / code).is_dir() else {}
        yield from (f"{code}{name} is missing" for name in wanted.keys() - found.keys())
        yield from (f"{code}{name} was added" for name in found.keys() - wanted.keys())
        yield from (f"{code}{name} was changed" for name in wanted.keys() & found.keys() if found[name] != wanted[name])
