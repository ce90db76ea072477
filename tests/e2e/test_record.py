"""The record of a run from its first act to its second life: run, export, validate, reproduce."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from e2e.driver import JOBS, Dhctl, assert_gone
from testbeds.validator import validate

CANARY = "canary-5d2c81be07"


def _table(folder: Path) -> Path:
    folder.mkdir()
    rows = [f"PAT-{1000 + i},{0.9 if i % 2 else 0.1},{i % 2 if i else 1}" for i in range(20)]
    (folder / "table.csv").write_text("\n".join(["patient,value,label", *rows]) + "\n")
    return folder


def test_a_run_is_recorded_validated_and_reproduced(dhctl: Dhctl, tmp_path: Path) -> None:
    dhctl.env["AWS_SECRET_ACCESS_KEY"] = CANARY
    code = tmp_path / "code"
    code.mkdir()
    (code / "scored.py").write_text((JOBS / "scored.py").read_text())
    data = _table(tmp_path / "data")
    workers = {"min": 0, "max": 1, "memory": "512MiB", "idle_timeout": "4s"}
    spec = dhctl.spec("scored", workers=workers, data=str(data), job={"folder": str(code), "params": {"seed": 1}})
    done = dhctl("run", spec)
    assert done.returncode == 0, done.stdout + done.stderr
    record = dhctl.record()

    exported = dhctl("export", record.run_id, "-o", "record.zip", "--json")
    assert exported.returncode == 0, exported.stdout + exported.stderr
    assert json.loads(exported.stdout)["withheld"] == ["data"]
    (tmp_path / "work").mkdir()
    report = validate(tmp_path / "record.zip", tmp_path / "work")
    assert (report.issues, report.profiles) == ([], ["process-run-crate-0.5", "ro-crate-1.1"])

    with zipfile.ZipFile(tmp_path / "record.zip") as archive:
        names = archive.namelist()
        told = {name: archive.read(name).decode() for name in names if not name.endswith("/")}
    for word in (CANARY, "PAT-1", str(tmp_path)):
        assert [name for name, text in told.items() if word in text] == []
    run = json.loads(told["run.json"])
    assert [use["role"] for use in run["resources"]] == ["head", "worker"]
    assert all(use["start"] < use["end"] and use["seen_by"] == "provider" for use in run["resources"])
    assert run["engine"]["pulumi"].count(".") == 2
    assert run["jobs"][0]["status"] == "SUCCEEDED"
    assert "ray" in json.loads(told["jobs/1/environment.json"])["packages"]
    assert json.loads(told["receipt.json"])["clean"] is True
    assert json.loads(told["jobs/1/metrics.jsonl"])["accuracy"] == 0.95

    again = dhctl("reproduce", "record.zip", "--data", str(data), "--json")
    assert again.returncode == 0, again.stdout + again.stderr
    *_, table, summary = [json.loads(line) for line in again.stdout.splitlines()]
    assert summary["reproduced"] is True
    verdicts = {row["what"]: row["verdict"] for row in table["rows"]}
    assert {verdicts[what] for what in ("code", "data", "python", "packages", "metric", "engine: pulumi")} == {"same"}
    assert table["sentence"].startswith("accuracy 0.95 lies within 0.85 to 1.05")
    assert dhctl.record().run_id != record.run_id
    assert_gone(dhctl.record())
