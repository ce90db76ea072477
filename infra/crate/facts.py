"""Everything of a run that its crate tells, gathered from its record through the lists of what is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from dhctl.infra.bundle import LAUNCHER
from dhctl.infra.crate import allowed
from dhctl.infra.crate.allowed_spec import allowed_spec
from dhctl.infra.crate.digests import hashes_of, tree_digest
from dhctl.infra.crate.resources import node_uses, worker_seconds
from dhctl.infra.errors import StateFolderError
from dhctl.infra.job_entries import JobEntries, job_entries
from dhctl.infra.ledger import Entry, last
from dhctl.infra.record import RunRecord
from dhctl.infra.spec import PHANTOMS

FORMAT = 1
"""Raised when run.json is laid out so that an older dhctl would misread it."""

KIND = "dhctl run record"

CODE_SUFFIXES = (".py", ".pyi", ".sh", ".toml", ".md", ".typed")
"""What of a job's folder is code; anything else may be data, and stays out unless it is asked for by name."""

_TOLD = (
    "number",
    "node",
    "status",
    "exit_code",
    "kind",
    "clean",
    "left",
    "alive",
    "by",
    "verb",
    "after",
    "attempt",
    "how",
)
"""Details of the ledger that may go into the timeline: names that dhctl draws itself, counts, and words of its own."""


@dataclass(frozen=True)
class Code:
    """A job's code. `files`: SHA-256 by path of what goes into the crate; `withheld`: how many files do not."""

    folder: Path
    sha256: str
    files: Mapping[str, str]
    withheld: int


@dataclass(frozen=True)
class JobFacts:
    """One job of the run."""

    number: int
    started: datetime
    ended: datetime | None
    status: str
    outcome: Mapping[str, Any]
    """exit_code, seconds, time_to_model_s."""
    code: Code | None
    """None where the record does not hold it any more, or holds another."""
    code_sha256: str
    result: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    environment: Mapping[str, Any]
    left_out: Sequence[str] = ()
    """Parts of its result that are no plain numbers."""

    @property
    def succeeded(self) -> bool:
        """Ray said so."""
        return self.status == "SUCCEEDED"


@dataclass(frozen=True)
class RunFacts:
    """What a crate is made of. `body` is run.json without checkpoints."""

    body: Mapping[str, Any]
    given: Mapping[str, Any]
    admitted: Mapping[str, Any]
    jobs: Sequence[JobFacts]
    receipt: Mapping[str, Any]
    timeline: Sequence[Mapping[str, Any]]
    withheld: Sequence[str] = field(default=())

    @property
    def told_job(self) -> JobFacts | None:
        """The newest job that succeeded, else the newest."""
        return next((job for job in reversed(self.jobs) if job.succeeded), self.jobs[-1] if self.jobs else None)


def facts_of(record: RunRecord, with_params: Set[str] = frozenset(), with_code: Sequence[str] = ()) -> RunFacts:
    """The facts of a run, living or over. `with_code`: patterns of files of the job's folder that go in as well.

    Raises StateFolderError when the record is damaged.
    """
    entries, opened = record.ledger.entries(), record.opened()
    admitted, withheld = allowed_spec(_json(record.folder / "spec.json"), with_params)
    given, more = allowed_spec(_json(record.given_path), with_params)
    jobs = [_job(record, job, with_code) for job in job_entries(entries)]
    uses, size = node_uses(entries), record.spec.workers
    receipt = _receipt(_json(record.receipt_path))
    data = last(entries, "data.digest")
    body = {
        "kind": KIND,
        "format": FORMAT,
        "run": record.run_id,
        "name": record.spec.name,
        "target": record.spec.target.value,
        "dhctl": opened.detail.get("dhctl", ""),
        "started": opened.at.isoformat(),
        "ended": _ended(entries),
        "lease": {"expires_at": record.expires_at.isoformat(), "seconds": record.spec.lease.total_seconds()},
        "engine": _engine(entries),
        "images": _images(entries),
        "resources": [use.to_dict(size) for use in uses],
        "worker_seconds": worker_seconds(uses),
        "created": receipt.get("created", {}),
        "data": {k: v for k, v in data.detail.items() if k != "why"} if data else {"kind": "none", "sha256": ""},
        "residency": sorted({store.residency for store in record.spec.stores.values() if store.residency}),
        "resumed": record.spec.resume is not None,
        "withheld": sorted({*withheld, *more}),
    }
    return RunFacts(body, given, admitted, jobs, receipt, [_told(e) for e in entries], body["withheld"])


def _json(path: Path) -> dict[str, Any]:
    """A JSON file of the record; empty when there is none."""
    try:
        body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StateFolderError(f"{path} cannot be read ({error})", "the record is damaged") from error
    return body


def _job(record: RunRecord, job: JobEntries, with_code: Sequence[str]) -> JobFacts:
    folder = record.job_dir(job.number)
    saved, sent = _json(folder / "result.json"), str(job.begun.detail.get("sha256", ""))
    result, left_out = allowed.result(saved.get("result"), record.spec.data == PHANTOMS)
    code = _code(folder / "bundle", with_code)
    return JobFacts(
        number=job.number,
        started=job.begun.at,
        ended=job.ended.at if job.ended else None,
        status=str(saved.get("status") or job.status or ("FAILED" if job.ended else "RUNNING")),
        outcome={key: allowed.number(saved.get(key)) for key in ("exit_code", "seconds", "time_to_model_s")},
        code=code if code and sent in ("", code.sha256) else None,
        code_sha256=sent or (code.sha256 if code else ""),
        result=result,
        metrics=allowed.progress(_rows(folder / "metrics.jsonl")),
        environment=allowed.pick(
            _json(folder / "environment.json"),
            {"python": allowed.version, "platform": allowed.version, "packages": allowed.packages},
        ),
        left_out=left_out,
    )


def _code(folder: Path, with_code: Sequence[str]) -> Code | None:
    if not folder.is_dir():
        return None
    hashes = hashes_of(folder, frozenset({LAUNCHER}))
    kept = {
        path: sha256
        for path, sha256 in hashes.items()
        if path.endswith(CODE_SUFFIXES) or any(Path(path).match(pattern) for pattern in with_code)
    }
    return Code(folder, tree_digest(hashes), kept, len(hashes) - len(kept))


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            yield json.loads(line)


def _engine(entries: Sequence[Entry]) -> Mapping[str, str]:
    up = last(entries, "stack.up", "done")
    found: Mapping[str, str] = up.detail.get("engine", {}) if up else {}
    return found


def _images(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Each one once: it is noted again when a head is made again."""
    found: list[dict[str, Any]] = []
    for entry in entries:
        if entry.act == "image":
            image = allowed.pick(entry.detail, {"digest": allowed.digest, "id": allowed.word, "name": allowed.word})
            found += [] if image in found else [image]
    return found


def _ended(entries: Sequence[Entry]) -> str | None:
    down = last(entries, "down", "done", "failed")
    return down.at.isoformat() if down else None


_PLACE = re.compile(r"[A-Za-z][A-Za-z ,'-]{0,79}")
"""A place's name in dhctl's own words: no path, no address."""


def _receipt(body: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict, and what each look found, without the places' own names."""
    if not body:
        return {}
    checks = [
        {
            "place": check["place"] if _PLACE.fullmatch(check["place"]) else "withheld",
            "state": check["state"],
            "found": len(check["found"]),
        }
        for check in body["checks"]
    ]
    created = {str(kind): count for kind, count in body["created"].items()}
    told = {key: body[key] for key in ("clean", "run_id", "target", "opened_at", "written_at")}
    return {**told, "checks": checks, "created": created}


def _told(entry: Entry) -> dict[str, Any]:
    kept = {key: entry.detail[key] for key in _TOLD if isinstance(entry.detail.get(key), str | int | float | bool)}
    if entry.act == "node.seen":
        kept.pop("node", None)  # an address of the site's network
    return {"at": entry.at.isoformat(), "act": entry.act, "phase": entry.phase, **kept}
