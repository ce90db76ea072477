"""Writing a crate: what is allowed of a run, into a folder or a zip file, after a last look through all of it."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dhctl.infra.crate import layout
from dhctl.infra.crate.checkpoints import StoredModel, stored_models
from dhctl.infra.crate.describe import Description
from dhctl.infra.crate.digests import file_sha256
from dhctl.infra.crate.facts import JobFacts, RunFacts, facts_of
from dhctl.infra.crate.identifiers import Identifiers, identifiers_of
from dhctl.infra.crate.layout import Agent
from dhctl.infra.crate.search import Searcher, UnsafeCrateError
from dhctl.infra.crate.secrets import secrets_of
from dhctl.infra.errors import RunBusyError, UsageError
from dhctl.infra.home import storage_errors
from dhctl.infra.record import RunRecord, RunState


@dataclass(frozen=True)
class Wanted:
    """What a user asks of a crate beside what is always in it."""

    with_checkpoints: bool = False
    with_params: Set[str] = frozenset()
    with_code: tuple[str, ...] = ()
    agent: Agent | None = None
    license_url: str | None = None


@dataclass(frozen=True)
class Written:
    """A crate that was written. `sha256`: of its zip file, else of its metadata, which has the digests of all files."""

    path: Path
    sha256: str
    withheld: tuple[str, ...]
    remarks: tuple[str, ...] = field(default=())
    """Sentences on what is not in it, and what was not searched for."""


UNSETTLED = (RunState.STARTING, RunState.TRAINING, RunState.RECOVERING, RunState.STOPPING)
"""States of which a record would be half a one."""


def write_crate(record: RunRecord, path: Path, wanted: Wanted) -> Written:
    """Writes the crate of a run to `path`, a folder, or a file when its name ends in .zip.

    Raises UsageError when there is something already, RunBusyError while the run is on its way, UnsafeCrateError when
    the crate would hold a secret or an identifier of the run's tables, RefusedError when the output cannot be read.
    """
    if path.exists():
        raise UsageError(f"{path} is there already", "choose another with -o, or remove it")
    if record.state() in UNSETTLED:
        raise RunBusyError(f"{record.run_id} is {record.state().value}", "export it when that has ended")
    facts = facts_of(record, wanted.with_params, wanted.with_code)
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as made:
            folder = Path(made) / "crate"
            models = _fill(folder, facts, record, wanted)
            Description(facts, folder, models, wanted.agent).write(wanted.license_url)
            identifiers = _require_safe(folder, record)
            _place(folder, path)
    digest = file_sha256(path if path.is_file() else path / layout.METADATA)
    return Written(path, digest, tuple(facts.withheld), (*_remarks(facts), *_unsearched(identifiers)))


def _fill(folder: Path, facts: RunFacts, record: RunRecord, wanted: Wanted) -> list[StoredModel]:
    """All files but the metadata; what models and checkpoints there are."""
    folder.mkdir()
    into = folder / layout.CHECKPOINTS if wanted.with_checkpoints else None
    if into:
        into.mkdir()
    models = stored_models(record.output, into)
    listed = [{"name": m.key, "sha256": m.sha256, "size_bytes": m.size_bytes} for m in models]
    _json(folder / layout.RUN, {**facts.body, "jobs": [_job_row(job) for job in facts.jobs], "checkpoints": listed})
    _json(folder / layout.SPEC, facts.admitted)
    if facts.given:
        _json(folder / layout.GIVEN, facts.given)
    if facts.receipt:
        _json(folder / layout.RECEIPT, facts.receipt)
    _lines(folder / layout.TIMELINE, facts.timeline)
    for job in facts.jobs:
        _job_files(folder, job)
    return models


def _job_row(job: JobFacts) -> dict[str, Any]:
    code: dict[str, Any] = {"sha256": job.code_sha256, "folder": None, "files": {}, "withheld": 0}
    if job.code:
        code |= {"folder": layout.code_folder(job.code_sha256), "files": job.code.files, "withheld": job.code.withheld}
    return {
        "number": job.number,
        "started": job.started.isoformat(),
        "ended": job.ended.isoformat() if job.ended else None,
        "status": job.status,
        **job.outcome,
        "code": code,
    }


def _job_files(folder: Path, job: JobFacts) -> None:
    for name, body in (("result.json", job.result), ("environment.json", job.environment)):
        if body:
            _json(folder / layout.job_file(job.number, name), body)
    if job.metrics:
        _lines(folder / layout.job_file(job.number, "metrics.jsonl"), job.metrics)
    if job.code:
        target = folder / layout.code_folder(job.code_sha256)
        target.mkdir(parents=True, exist_ok=True)
        for name in job.code.files:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(job.code.folder / name, target / name)


def _json(path: Path, body: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


def _lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _require_safe(folder: Path, record: RunRecord) -> Identifiers:
    """The identifiers that were searched for. Raises UnsafeCrateError."""
    identifiers = identifiers_of(record)
    findings = Searcher(secrets_of(record), identifiers.known).search(folder)
    if findings:
        raise UnsafeCrateError(findings)
    return identifiers


def _place(folder: Path, path: Path) -> None:
    """All of it appears at once."""
    if path.suffix != ".zip":
        folder.rename(path)
        return
    packed = folder.with_name("packed.zip")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for found in sorted(folder.rglob("*")):
            archive.write(found, found.relative_to(folder).as_posix())
    packed.rename(path)


def _remarks(facts: RunFacts) -> list[str]:
    told = []
    if facts.withheld:
        told.append(f"withheld from the spec: {', '.join(facts.withheld)}")
    for job in facts.jobs:
        if job.left_out:
            told.append(f"left out of the result of job {job.number}: {', '.join(job.left_out)}")
        if job.code and job.code.withheld:
            told.append(
                f"{job.code.withheld} files of job {job.number}'s folder are no code and stay out (--with-code)"
            )
        if job.code is None:
            told.append(f"the code of job {job.number} is not in the record any more, or not as it was sent")
    if not facts.receipt:
        told.append("the run has no receipt yet: take it down, and export it again")
    return told


def _unsearched(identifiers: Identifiers) -> Iterator[str]:
    if identifiers.unsearchable:
        count = identifiers.unsearchable
        yield f"{count} identifiers are too short to be told from other words and were not searched for"
    if identifiers.unread:
        yield f"{identifiers.unread} tables are too large or too many: their identifiers were not searched for"
