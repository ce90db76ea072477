"""`dhctl export`: what a crate holds, that it passes the profile's own checks, and when it is not written."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dhctl.cli.main import run_group
from dhctl.infra.crate.checkpoints import stored_models
from dhctl.infra.crate.facts import facts_of
from dhctl.infra.crate.read import CrateError, open_crate
from dhctl.infra.crate.resources import node_uses
from dhctl.infra.crate.write import Wanted, write_crate
from dhctl.infra.errors import RefusedError
from dhctl.infra.home import Home
from dhctl.infra.record import RunRecord
from testbeds.validator import validate
from unit.crate_runs import MAIN, finished_run
from unit.fakes import entry_at, make_record
from unit.http_store import HttpStore


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dhctl.infra.crate.secrets.store_environment", dict)


def graph_of(folder: Path) -> dict[str, dict[str, Any]]:
    body = json.loads((folder / "ro-crate-metadata.json").read_text())
    return {entity["@id"]: entity for entity in body["@graph"]}


def text_of(folder: Path) -> str:
    return "\n".join(path.read_text() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def crate(home: Home, tmp_path: Path) -> Path:
    record = finished_run(home, tmp_path)
    write_crate(record, tmp_path / "crate", Wanted())
    return tmp_path / "crate"


def test_it_passes_the_profile_and_ro_crate(crate: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    report = validate(crate, tmp_path / "work")
    assert report.issues == []
    assert report.profiles == ["process-run-crate-0.5", "ro-crate-1.1"]
    assert report.checks > 40


def test_the_validator_sees_an_action_without_its_tool(crate: Path, tmp_path: Path) -> None:
    path = crate / "ro-crate-metadata.json"
    body = json.loads(path.read_text())
    for entity in body["@graph"]:
        entity.pop("instrument", None)
    path.write_text(json.dumps(body))
    (tmp_path / "work").mkdir()
    report = validate(crate, tmp_path / "work")
    assert not report.passed
    assert any("instrument" in issue for issue in report.issues)


def test_actions_tell_what_ran_on_what_and_what_came_out(crate: Path) -> None:
    graph = graph_of(crate)
    job = graph["#job-1"]
    code = graph[job["instrument"]["@id"]]
    assert code["@type"] == ["Dataset", "SoftwareSourceCode"]
    assert (crate / job["instrument"]["@id"] / "main.py").read_text() == MAIN
    assert {"@id": "pkg:pypi/numpy@2.2"} in code["softwareRequirements"]
    assert job["startTime"] <= job["endTime"]
    assert job["actionStatus"] == "http://schema.org/CompletedActionStatus"
    assert "agent" not in job
    results = [graph[result["@id"]] for result in job["result"]]
    assert {"auc", "jobs/1/result.json", "model.pt"} <= {str(result["name"]) for result in results}
    metric = next(result for result in results if result["name"] == "auc")
    assert (metric["value"], metric["minValue"], metric["maxValue"]) == (0.91, 0.88, 0.94)
    assert graph["#run"]["instrument"] == {"@id": "#dhctl"}
    assert graph["#dhctl"]["softwareRequirements"] == {"@id": "#pulumi"}


def test_an_image_is_told_once_with_its_digest(home: Home, tmp_path: Path) -> None:
    record = finished_run(home, tmp_path)
    for digest in ("sha256:" + "ab" * 32, "sha256:" + "ab" * 32, "/not/a/digest"):
        record.ledger.note("image", name="ray", digest=digest)
    write_crate(record, tmp_path / "crate", Wanted())
    graph = graph_of(tmp_path / "crate")
    assert [image["@id"] for image in graph["#job-1"]["containerImage"]] == ["#image-1", "#image-2"]
    assert (graph["#image-1"]["sha256"], "sha256" in graph["#image-2"]) == ("ab" * 32, False)
    (tmp_path / "work").mkdir()
    assert validate(tmp_path / "crate", tmp_path / "work").issues == []


def test_run_json_tells_nodes_lease_versions_and_digests(crate: Path) -> None:
    run = json.loads((crate / "run.json").read_text())
    head, worker = run["resources"]
    assert (head["role"], worker["role"], worker["cpus"], worker["seen_by"]) == ("head", "worker", 1, "provider")
    assert head["start"] <= worker["start"] <= worker["end"] <= head["end"]
    assert run["engine"] == {"pulumi": "3.259.0"}
    assert run["lease"]["seconds"] == 4 * 3600
    assert (run["data"]["kind"], run["data"]["files"]) == ("content", 1)
    assert run["jobs"][0]["time_to_model_s"] == 30.0
    assert [c["name"] for c in run["checkpoints"]] == ["model.pt"]
    assert json.loads((crate / "receipt.json").read_text())["clean"] is True


def test_no_person_and_no_place_is_in_it(crate: Path, tmp_path: Path) -> None:
    text = text_of(crate)
    for word in ("P-1001", "S-0007", "free words", "predictions", str(tmp_path)):
        assert word not in text


def test_what_is_left_out_is_told(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = finished_run(home, tmp_path)
    (record.job_dir(1) / "bundle" / "weights.bin").write_bytes(b"w")  # the digest tells that this is not what was sent
    assert run_group(["export", record.run_id, "-o", str(tmp_path / "c.zip"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["withheld"] == ["data", "local.scratch"]
    assert told["remarks"] == [
        "withheld from the spec: data, local.scratch",
        "left out of the result of job 1: note, per_patient",
        "the code of job 1 is not in the record any more, or not as it was sent",
    ]


def test_files_that_are_no_code_stay_out_unless_named(home: Home, tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "net.yaml").write_text("depth: 3\n")
    record = finished_run(home, tmp_path)
    without = write_crate(record, tmp_path / "a", Wanted())
    assert "1 files of job 1's folder are no code and stay out (--with-code)" in without.remarks
    assert not list((tmp_path / "a").rglob("net.yaml"))
    write_crate(record, tmp_path / "b", Wanted(with_code=("*.yaml",)))
    assert list((tmp_path / "b").rglob("net.yaml"))


def test_checkpoints_are_copied_when_asked_for(home: Home, tmp_path: Path) -> None:
    record = finished_run(home, tmp_path)
    write_crate(record, tmp_path / "crate", Wanted(with_checkpoints=True))
    (model,) = (tmp_path / "crate" / "checkpoints").iterdir()
    assert model.read_bytes() == b"weights"
    assert graph_of(tmp_path / "crate")[f"checkpoints/{model.name}"]["sha256"] == model.name
    (tmp_path / "work").mkdir()
    assert validate(tmp_path / "crate", tmp_path / "work").issues == []


def test_a_checkpoints_own_note_tells_its_digest(tmp_path: Path) -> None:
    folder = tmp_path / "train-1" / "epoch-00001-0a1b2c3d"
    folder.mkdir(parents=True)
    (folder / "state.pt").write_bytes(b"state")
    (folder / "checkpoint.json").write_text(json.dumps({"sha256": "ab" * 32}))
    assert [(m.sha256, m.size_bytes) for m in stored_models(str(tmp_path))] == [("ab" * 32, 5)]
    (folder / "checkpoint.json").write_text("{")
    assert stored_models(str(tmp_path))[0].sha256 == hashlib.sha256(b"state").hexdigest()
    (tmp_path / "into").mkdir()
    assert stored_models(str(tmp_path / "train-1"), tmp_path / "into")[0].sha256 == hashlib.sha256(b"state").hexdigest()


def test_models_in_a_bucket(http_store: HttpStore) -> None:
    http_store.objects["bucket/out/dh-1/model.pt"] = b"weights"
    (model,) = stored_models("s3://bucket/out/dh-1")
    assert (model.key, model.sha256) == ("model.pt", hashlib.sha256(b"weights").hexdigest())
    with pytest.raises(RefusedError, match=r"the run's output cannot be read .*NoSuchBucket"):
        stored_models("s3://gone/out")
    assert stored_models("/nowhere") == []


def test_a_zip_with_the_person_who_says_so(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = finished_run(home, tmp_path)
    words = ["--agent", "Ada Rossi 0000-0002-1825-0097", "--license", "https://spdx.org/licenses/CC-BY-4.0"]
    assert run_group(["export", record.run_id, "-o", str(tmp_path / "c.zip"), *words]) == 0
    with zipfile.ZipFile(tmp_path / "c.zip") as archive:
        archive.extractall(tmp_path / "c")
    graph = graph_of(tmp_path / "c")
    assert graph["https://orcid.org/0000-0002-1825-0097"]["name"] == "Ada Rossi"
    assert graph["#job-1"]["agent"] == {"@id": "https://orcid.org/0000-0002-1825-0097"}
    (tmp_path / "work").mkdir()
    assert validate(tmp_path / "c.zip", tmp_path / "work").issues == []
    assert run_group(["export", record.run_id, "-o", str(tmp_path / "c.zip")]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda code: code.write_text("# for P-1001\n"), "main.py, line 1: an identifier of"),
        (
            lambda code: code.write_text("\nkey = 'hunter2hunter2'\n"),
            "main.py, line 2: the value of AWS_SECRET_ACCESS_KEY",
        ),
    ],
)
def test_a_crate_that_would_tell_too_much_is_not_written(
    home: Home,
    tmp_path: Path,
    spoil: Callable[[Path], object],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    spoiled = tmp_path / "job" / "main.py"
    spoiled.parent.mkdir()
    monkeypatch.setattr("unit.crate_runs.MAIN", "")
    record = finished_run(home, tmp_path)
    bundled = record.job_dir(1) / "bundle" / "main.py"
    spoil(bundled)
    _accept(record, monkeypatch)
    before = sorted(tmp_path.iterdir())
    assert run_group(["export", record.run_id, "-o", str(tmp_path / "crate")]) == 1
    shown = capsys.readouterr().err
    assert told in shown
    assert "P-1001" not in shown
    assert "hunter2" not in shown
    assert sorted(tmp_path.iterdir()) == before


def _accept(record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code is what was sent, as far as its digest goes."""
    from dhctl.infra.bundle import code_digest

    sent = code_digest(record.job_dir(1) / "bundle")
    lines = record.ledger.path.read_text().splitlines()
    changed = [
        json.dumps({**json.loads(line), "sha256": sent}) if '"act":"job","phase":"intent"' in line else line
        for line in lines
    ]
    record.ledger.path.write_text("\n".join(changed) + "\n")


def test_a_run_on_its_way_is_not_exported(
    record: RunRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_group(["export", record.run_id, "-o", str(tmp_path / "crate")]) == 1
    assert "is starting; export it when that has ended" in capsys.readouterr().err


def test_a_run_that_is_up_is_exported_without_a_receipt(home: Home, tmp_path: Path) -> None:
    record = finished_run(home, tmp_path, down=False)
    written = write_crate(record, tmp_path / "crate", Wanted())
    assert "the run has no receipt yet: take it down, and export it again" in written.remarks
    assert "endTime" not in graph_of(tmp_path / "crate")["#run"]


def test_a_run_that_did_not_come_up_has_a_record_too(home: Home, tmp_path: Path) -> None:
    record = make_record(home, local={"scratch": str(tmp_path / "scratch")})
    with pytest.raises(ValueError, match="no head"), record.ledger.act("up"):
        raise ValueError("no head")
    written = write_crate(record, tmp_path / "crate", Wanted())
    assert "the run has no receipt yet: take it down, and export it again" in written.remarks
    (tmp_path / "work").mkdir()
    assert validate(tmp_path / "crate", tmp_path / "work").issues == []
    with pytest.raises(CrateError, match="is of a run without a job"):
        assert open_crate(tmp_path / "crate", tmp_path / "work").job


def test_nodes_of_a_cloud_have_the_heads_own_times() -> None:
    at_head = "2026-01-01T00:00:05+00:00"
    uses = node_uses(
        [
            entry_at(0, "head.boot", "intent", server="s"),
            entry_at(2, "head.ray", "intent"),
            entry_at(60, "node.start", "done", node="w-1", by="head", at_head=at_head),
            entry_at(61, "node.start", "done", node="w-2", by="head", at_head=at_head),
            entry_at(62, "node.leave", "done", node="w-1", by="head", at_head="2026-01-01T00:00:09+00:00"),
            entry_at(70, "resource.delete", "done", kind="server", name="w-2"),
            entry_at(80, "down", "done", clean=True),
        ]
    )
    assert [(use.node, use.seen_by, (use.end - use.start).seconds if use.end else 0) for use in uses] == [
        ("head-1", "down", 80),
        ("w-1", "provider", 4),
        ("w-2", "provider", 65),
    ]


def test_workers_of_an_operator_are_those_that_ray_saw() -> None:
    uses = node_uses(
        [
            entry_at(0, "head.ray", "intent"),
            entry_at(5, "node.seen", "note", node="10.0.0.7", status="joined", alive=1),
            entry_at(6, "node.seen", "note", node="10.0.0.7", status="joined", alive=1),  # another watch begins
            entry_at(9, "node.seen", "note", node="10.0.0.7", status="left", alive=0),
        ]
    )
    assert [(use.node, use.seen_by, use.end is None) for use in uses] == [
        ("head-1", "provider", True),
        ("worker-1", "ray", False),
    ]


def test_a_head_that_was_replaced_has_its_own_end() -> None:
    uses = node_uses(
        [
            entry_at(0, "head.start", "done", node="head-a"),
            entry_at(9, "head.recover", "intent", reason="killed"),
            entry_at(12, "head.start", "done", node="head-b"),
            entry_at(15, "head.recover", "done", how="replaced"),
            entry_at(30, "down", "done", clean=True),
        ]
    )
    assert [(use.node, use.end.second if use.end else None) for use in uses] == [("head-a", 9), ("head-b", 30)]


def test_a_head_that_came_back_by_itself_did_not_end() -> None:
    back = entry_at(15, "head.recover", "done", how="back")
    (use,) = node_uses([entry_at(0, "head.start", "done", node="head-a"), entry_at(9, "head.recover", "intent"), back])
    assert use.end is None


def test_facts_of_a_record_of_an_older_dhctl(home: Home, tmp_path: Path) -> None:
    record = finished_run(home, tmp_path)
    record.given_path.unlink()
    (record.job_dir(1) / "environment.json").unlink()
    kept = [line for line in record.ledger.path.read_text().splitlines() if '"act":"data.digest"' not in line]
    record.ledger.path.write_text("\n".join(kept) + "\n")
    facts = facts_of(record)
    assert (facts.body["data"]["kind"], facts.given, facts.jobs[0].environment) == ("none", {}, {})
