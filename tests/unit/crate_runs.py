"""A run that is over, made by the code that records real ones: what the tests of crates export and reproduce."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dhctl.infra.bundle import stage
from dhctl.infra.crate.digests import digest_data
from dhctl.infra.events import ignore
from dhctl.infra.home import Home
from dhctl.infra.job_journal import JobJournal
from dhctl.infra.job_outcome import JobOutcome, save_outcome
from dhctl.infra.receipt import Check, Receipt, now
from dhctl.infra.record import RunRecord
from unit.fakes import make_record

MAIN = "import os\nprint(os.environ['DHCTL_DATA'])\n"
ENVIRONMENT = {
    "type": "environment",
    "python": "3.11.7",
    "platform": "Linux",
    "packages": {"ray": "2.60.0", "numpy": "2.2"},
}
RESULT = {
    "metric": {
        "name": "auc",
        "value": 0.91,
        "ci95": [0.88, 0.94],
        "baseline": {"name": "mean colour", "value": 0.6},
    },
    "rows": 12,
    "skipped": [{"slide": "S-0007", "reason": "unreadable"}],
    "per_patient": {"P-1001": 0.5},
    "note": "free words of the job",
}
TABLE = "slide,patient_id,grade\nS-0007,P-1001,3\nS-0008,P-1002,1\n"


def finished_run(home: Home, folder: Path, *, result: Any = RESULT, down: bool = True, **changes: Any) -> RunRecord:
    """A run of a small job on a table with two patients, which left a model; taken down unless `down` is false."""
    code, data = folder / "job", folder / "data"
    for path, text in ((code / "main.py", MAIN), (data / "train.csv", TABLE)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    job = {"folder": str(code), "entrypoint": "python main.py", "params": {"folds": 3}, **changes.pop("job", {})}
    scratch = {"scratch": str(folder / "scratch")}
    record = make_record(home, job=job, **{"data": str(data), "local": scratch, **changes})
    ledger = record.ledger
    with ledger.act("up"), ledger.act("stack.up") as outcome:
        ledger.done("head.start", node="head-0a1b2c")
        outcome["engine"] = {"pulumi": "3.259.0"}
    ledger.note("data.digest", **digest_data(record.spec.data).to_dict())
    _job(record, result)
    model = Path(record.output) / "model.pt"
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_bytes(b"weights")
    (model.parent / "predictions.csv").write_text(TABLE)
    if down:
        _down(record)
    return record


def _job(record: RunRecord, result: Any) -> None:
    sent = stage(record, 1, {})
    told = {"number": 1, "submission": f"{record.run_id}-1", "entrypoint": sent.entrypoint, "sha256": sent.sha256}
    record.ledger.intent("job", **told)
    record.ledger.done("node.start", node="w-11112222")
    progress = {"type": "progress", "stage": "train", "step": 1, "of": 1, "metrics": {"loss": 0.25, "P-1001": 1.0}}
    with JobJournal(record.job_dir(1), ignore) as journal:
        for message in (ENVIRONMENT, progress, {"type": "result", "result": result}):
            journal.take(f"@dhctl {json.dumps(message)}")
        outcome = JobOutcome(1, "SUCCEEDED", 0, "", 12.5, 30.0, journal.result)
    record.ledger.note("node.leave", "note", nodes=["w-11112222"], why="released")
    record.ledger.done("job", number=1, status="SUCCEEDED", exit_code=0)
    save_outcome(record, outcome, ignore)


def _down(record: RunRecord) -> None:
    record.ledger.intent("down", reason="done")
    checks = (Check("run folder", f"{record.folder}"), Check(f"{record.folder}/secrets", "token"))
    created = {"heads": 1, "workers": 1}
    receipt = Receipt(record.run_id, "trial", "local", now(), now(), "done", checks, created)
    record.write_json(record.receipt_path, receipt.to_dict())
    record.ledger.done("down", clean=receipt.clean, left=0)
