"""`make bench`: dhctl beside its floors, alternating in one run; medians and ratios, printed and written down.

python tests/bench/measure.py [--rounds N] [--skip-training] [--write docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import training
from bench.cached_start import cached_start
from bench.slide_reading import slide_readings
from bench.survival import GOAL_S, resume_s
from dhctl.infra.engine_install import ensure_engine
from dhctl.infra.events import ignore
from dhctl.infra.home import Home, default_root
from dhctl.infra.ledger import last
from dhctl.infra.local.inventory import owned_processes
from dhctl.infra.local.layout import RunFolder, scratch_root
from dhctl.infra.record import RunRecord, all_records
from dhctl.infra.units import format_size

DHCTL = [sys.executable, "-m", "dhctl.cli.main"]
FLOORS = Path(__file__).with_name("floors.py")
ROOT = Path(__file__).resolve().parents[2]
RESUMES = 3
"""Runs in which a worker is killed."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    ours: str
    floor: str
    ratio: str
    goal: str
    met: bool


class Samples:
    """Measured values by name; medians of them."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, name: str, value: float) -> None:
        """One more."""
        self._values[name].append(value)

    def __getitem__(self, name: str) -> float:
        return median(self._values[name])

    def text(self, name: str) -> str:
        """Median, and the range where there is one."""
        values = self._values[name]
        return f"{median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"


class Bench:
    """One home, one spec, several rounds."""

    def __init__(self, engine: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dhctl-bench-"))
        path = os.pathsep.join([str(engine.parent), os.environ["PATH"]])
        self.env = {**os.environ, "DHCTL_HOME": str(self.folder / "home"), "PATH": path}
        (self.folder / "job").mkdir()
        (self.folder / "job" / "main.py").write_text(_JOB)
        (self.folder / "spec.json").write_text(json.dumps(_SPEC))
        self.engine, self.samples = engine, Samples()
        self.memory: dict[str, int] = {}

    def dhctl(self, *words: str) -> float:
        """Runs a verb to its end; seconds. Raises RuntimeError with its output when it fails."""
        started = time.monotonic()
        self._run(*words)
        return time.monotonic() - started

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            [*DHCTL, *words], env=self.env, cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"dhctl {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def floor(self, verb: str, folder: Path) -> float:
        """Runs a step of the floor in a process of its own, as dhctl is one; seconds."""
        started = time.monotonic()
        subprocess.run([sys.executable, FLOORS, verb, str(folder), str(self.engine)], env=self.env, check=True)
        return time.monotonic() - started

    def record(self) -> RunRecord:
        """The newest run."""
        return all_records(Home(self.folder / "home"))[0]

    def round(self) -> None:
        """Every measurement once, ours and the floor's in turn."""
        take = self.samples.add
        take("help", self.dhctl("--help"))
        take("plan", self.dhctl("plan", "spec.json"))
        floor = Path(f"/tmp/floor-{os.getpid()}")  # sockets need a short path
        take("floor up", self.floor("up", floor))
        self.floor("worker", floor)
        take("floor down", self.floor("down", floor))
        begun = datetime.now(UTC)
        self.dhctl("up", "spec.json")
        entries = self.record().ledger.entries()
        answered, proven = last(entries, "autoscaler.start", "intent"), last(entries, "up", "done")
        assert answered is not None
        assert proven is not None
        take("up to Ray answering", (answered.at - begun).total_seconds())
        take("up, proven", (proven.at - begun).total_seconds())
        self._train()
        self._memory()
        take("down", self.dhctl("down", "bench"))

    def _train(self) -> None:
        done = self._run("train", "bench", "--json")
        events = [json.loads(line) for line in done.splitlines()]
        seen = next(e["at"] for e in events if e["event"] == "JobLogged" and e["line"] == "first line")
        submitted = last(self.record().ledger.entries(), "job", "intent")
        assert submitted
        self.samples.add("first line", (datetime.fromisoformat(seen) - submitted.at).total_seconds())

    def _memory(self) -> None:
        record = self.record()
        folder = RunFolder(scratch_root(record.spec), record.run_id)
        for name in ("head", "w-"):
            path = next(iter(folder.nodes.glob(f"{name}*.json")), None)
            if path:
                root = psutil.Process(json.loads(path.read_text())["process"]["pid"])
                tree = {root.pid, *(p.pid for p in root.children(recursive=True))}
                self.memory[name] = sum(_pss(pid) for pid in tree)
        assert owned_processes(folder, record.ledger)

    def close(self) -> None:
        """Ends what a failed round left."""
        for record in all_records(Home(self.folder / "home")):
            subprocess.run([*DHCTL, "down", record.run_id], env=self.env, capture_output=True, check=False)
        shutil.rmtree(self.folder)


_JOB = """print("first line", flush=True)
import ray
ray.init(log_to_driver=False)
ray.get(ray.remote(num_cpus=1)(lambda: 1).remote())
"""
_SPEC = {
    "name": "bench",
    "lease": "20m",
    "workers": {"max": 1, "memory": "512MiB", "idle_timeout": "60s"},
    "job": {"folder": "job", "entrypoint": "python main.py"},
}


def _pss(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_full_info().pss)
    except psutil.Error:
        return 0


def _rate_row(what: str, ours: float, floor: float, least: float) -> Row:
    told = f"{ours:.2f} samples/s", f"{floor:.2f} samples/s"
    return Row(what, *told, f"{ours / floor:.3f}", f"at least {least}" if least else "", ours / floor >= least)


def _rows(bench: Bench, rates: training.Rates | None) -> list[Row]:
    s = bench.samples

    def against(what: str, ours: str, floor: str, most: float) -> Row:
        ratio = s[ours] / s[floor]
        return Row(what, s.text(ours), s.text(floor), f"{ratio:.2f}", f"at most {most}", ratio <= most)

    def below(what: str, ours: str, most: float) -> Row:
        return Row(what, s.text(ours), "", "", f"below {most} s", s[ours] < most)

    rows = [
        below("`dhctl --help`", "help", 0.3),
        below("`dhctl plan`", "plan", 2.0),
        against("up to Ray answering / `ray start --head` + empty Pulumi up", "up to Ray answering", "floor up", 1.3),
        Row("the same with the proof that Ray refuses strangers", s.text("up, proven"), "", "", "", True),
        below("submit to first log line", "first line", 5.0),
        against("`dhctl down` with receipt / bare teardown + Pulumi destroy", "down", "floor down", 1.3),
    ]
    if rates:
        rows += [
            _rate_row("training loop / without Ray", rates.job, rates.job_without_ray, 0.97),
            _rate_row("training core on one worker / a bare loop", rates.one, rates.bare, 0.97),
            _rate_row("two workers / one worker, bound by computing", rates.two, rates.one, 1.7),
            _rate_row("two bare loops at once / one: what the cores give", rates.bare_twice, rates.bare, 0),
        ]
    names = {"head": "memory of the head (PSS)", "w-": "memory of a worker with one idle Python worker (PSS)"}
    rows += [Row(names[k], format_size(v), "", "", "", True) for k, v in bench.memory.items()]
    return rows


def _data_rows() -> list[Row]:
    """A job's start with its data in a cache beside the first one, which fetches it from S3; shards beside slides."""
    with tempfile.TemporaryDirectory() as folder:
        starts = cached_start(Path(folder))
    ratio = starts.cached_s / starts.first_s
    cells = (f"{starts.cached_s:.2f} s", f"{starts.first_s:.2f} s", f"{ratio:.2f}")
    rows = [Row("start with cached data / first start, S3 on this machine", *cells, "below 1", ratio < 1)]
    for tile_format in ("npy", "jpg"):
        with tempfile.TemporaryDirectory() as folder:
            read = slide_readings(Path(folder), tile_format)
        what = f"an epoch's reading of slides, from shards of {tile_format} tiles / from the slides"
        cells = (f"{read.shards:.0f} slides/s", f"{read.slides:.0f} slides/s", f"{read.shards / read.slides:.1f}")
        rows.append(Row(what, *cells, "above 1", read.shards > read.slides))
    return rows


def _resume_row() -> Row:
    took = median(resume_s() for _ in range(RESUMES))
    return Row(
        "from a worker's kill to the next step of training",
        f"{took:.1f} s",
        "",
        "",
        f"below {GOAL_S:.0f} s",
        took < GOAL_S,
    )


def _markdown(rows: list[Row], rounds: int) -> str:
    lines = ["# Benchmarks", "", "Written by `make bench`: dhctl beside its floors, alternating in one run, medians."]
    cpus, memory = psutil.cpu_count(), format_size(psutil.virtual_memory().total)
    day = datetime.now(UTC).date().isoformat()
    python = platform.python_version()
    lines += [
        "",
        f"{day}, {rounds} rounds, {cpus} cores, {memory}, Python {python}, load {os.getloadavg()[2]:.1f}.",
        "",
    ]
    lines += ["| what | dhctl | floor | ratio | goal | met |", "|---|---|---|---|---|---|"]
    lines += [f"| {r.what} | {r.ours} | {r.floor} | {r.ratio} | {r.goal} | {'yes' if r.met else 'NO'} |" for r in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measures, prints, writes. Exit status 1 when a goal is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip-training", action="store_true")
    parser.add_argument("--write", type=Path, default=ROOT / "docs" / "benchmarks.md")
    args = parser.parse_args()
    bench = Bench(ensure_engine(default_root(), ignore))
    try:
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds}", flush=True)
            bench.round()
        how = training.Bench(bench.dhctl, bench.folder, bench.record, bench.env)
        rates = None if args.skip_training else training.training_rates(how)
    finally:
        bench.close()
    rows = _rows(bench, rates) + _data_rows()
    if not args.skip_training:
        rows.append(_resume_row())
    text = _markdown(rows, args.rounds)
    print(text)
    args.write.write_text(text)
    return 0 if all(r.met for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
