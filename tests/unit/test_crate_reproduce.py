"""`dhctl reproduce`: opening a crate, holding it to its digests, building the run again, and what differs."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dhctl.cli.main import run_group
from dhctl.infra.bundle import code_digest
from dhctl.infra.crate.differences import Row, after, before, judge, packages
from dhctl.infra.crate.facts import facts_of
from dhctl.infra.crate.read import Crate, CrateError, open_crate
from dhctl.infra.crate.rebuild import Given, installed_digest, rebuild
from dhctl.infra.crate.write import Wanted, write_crate
from dhctl.infra.errors import SpecError, UsageError
from dhctl.infra.home import Home
from dhctl.infra.receipt import Receipt
from dhctl.infra.run import RunEnd
from unit.crate_runs import RESULT, finished_run


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dhctl.infra.crate.secrets.store_environment", dict)


@pytest.fixture
def folder(home: Home, tmp_path: Path) -> Path:
    write_crate(finished_run(home, tmp_path), tmp_path / "crate", Wanted())
    return tmp_path / "crate"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def crate(folder: Path, work: Path) -> Crate:
    return open_crate(folder, work)


def given(tmp_path: Path, **more: Any) -> Given:
    return Given(data=str(tmp_path / "data"), **more)


def verdicts(rows: list[Row]) -> dict[str, str]:
    return {row.what: row.verdict for row in rows}


def test_a_crate_opens_as_folder_and_as_zip(folder: Path, tmp_path: Path, work: Path) -> None:
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, f"inside/{path.relative_to(folder)}")
    (work / "a").mkdir()
    (work / "b").mkdir()
    for path, into in ((folder, "a"), (tmp_path / "c.zip", "b")):
        opened = open_crate(path, work / into)
        assert opened.run["name"] == "trial"
        assert opened.result["metric"]["value"] == 0.91
        assert opened.environment["python"] == "3.11.7"


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    body = json.loads(path.read_text())
    change(body)
    path.write_text(json.dumps(body))


def drop(folder: Path, name: str) -> None:
    rewrite(
        folder / "ro-crate-metadata.json", lambda b: b.update({"@graph": [e for e in b["@graph"] if e["@id"] != name]})
    )


def code_of(folder: Path) -> Path:
    return next((folder / "code").iterdir()) / "main.py"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (shutil.rmtree, "there is no"),
        (lambda f: (f / "ro-crate-metadata.json").unlink(), "is no RO-Crate: it has no ro-crate-metadata.json"),
        (lambda f: (f / "ro-crate-metadata.json").write_text("{"), "ro-crate-metadata.json in .* cannot be read"),
        (lambda f: (f / "ro-crate-metadata.json").write_text("{}"), "has no @graph"),
        (lambda f: drop(f, "#dhctl"), "was not written by dhctl but by pulumi"),
        (lambda f: (f / "run.json").unlink(), "lacks run.json"),
        (lambda f: rewrite(f / "run.json", lambda b: b.update(format=2)), "written by a newer dhctl .*upgrade dhctl"),
        (lambda f: rewrite(f / "run.json", lambda b: b.update(kind="else")), "is no record of dhctl"),
        (lambda f: rewrite(f / "run.json", lambda b: b.update(name="other")), "run.json was changed"),
        (lambda f: (f / "receipt.json").unlink(), "receipt.json is missing"),
        (lambda f: (f / "spec.json").write_text("{}"), "spec.json was changed"),
        (lambda f: code_of(f).write_text("evil()\n"), "main.py was changed"),
        (lambda f: code_of(f).unlink(), "main.py is missing"),
        (lambda f: (code_of(f).parent / "more.py").write_text(""), "more.py was added"),
    ],
)
def test_what_is_no_whole_crate_is_refused(
    spoil: Callable[[Path], object], told: str, folder: Path, work: Path
) -> None:
    spoil(folder)
    with pytest.raises(CrateError, match=told):
        open_crate(folder, work)


def test_a_file_that_is_no_zip(tmp_path: Path, work: Path) -> None:
    (tmp_path / "c.zip").write_text("no")
    with pytest.raises(CrateError, match="neither a folder nor a zip file"):
        open_crate(tmp_path / "c.zip", work)


def test_a_zip_that_leads_out_stays_inside(folder: Path, tmp_path: Path, work: Path) -> None:
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("../../evil.txt", "x")
        archive.write(folder / "run.json", "run.json")
    with pytest.raises(CrateError):
        open_crate(tmp_path / "c.zip", work)
    assert not list(tmp_path.parent.glob("evil.txt"))


def test_an_entity_that_leads_out_is_refused(folder: Path, work: Path) -> None:
    outside = {"@id": "../secret.txt", "@type": "File", "sha256": "0" * 64}
    rewrite(folder / "ro-crate-metadata.json", lambda b: b["@graph"].append(outside))
    with pytest.raises(CrateError, match=r"\.\./secret\.txt leads out of it"):
        open_crate(folder, work)


def test_spec_and_code_are_built_again(crate: Crate, tmp_path: Path, work: Path) -> None:
    rebuilt = rebuild(crate, given(tmp_path), work)
    spec = rebuilt.spec
    assert (spec.name, spec.job.entrypoint, spec.job.params) == ("trial", "python main.py", {"folds": 3})
    assert code_digest(Path(str(spec.job.folder))) == crate.job["code"]["sha256"] == rebuilt.code_sha256
    assert spec.data == str(tmp_path / "data")


def test_it_may_run_elsewhere(crate: Crate, tmp_path: Path, work: Path) -> None:
    place = tmp_path / "place.yaml"
    place.write_text(
        "output: s3://b/out\nopenstack: {flavor: m1, image: i, external_network: p, ssh_from: [192.0.2.0/24]}\n"
    )
    spec = rebuild(crate, Given("openstack", "s3://b/in", place), work).spec
    assert (spec.target.value, spec.data, spec.output) == ("openstack", "s3://b/in", "s3://b/out")
    assert spec.openstack.flavor == "m1"


def test_what_is_withheld_must_be_given(home: Home, tmp_path: Path, work: Path) -> None:
    job = {"params": {"net": "unet"}, "runtime_env": {"env_vars": {"A": "b"}}}
    write_crate(finished_run(home, tmp_path, job=job), tmp_path / "crate", Wanted())
    crate = open_crate(tmp_path / "crate", work)
    told = r"withholds data \(--data PLACE\), job.params.net, job.runtime_env.env_vars; give them"
    with pytest.raises(UsageError, match=told):
        rebuild(crate, Given(), work / "none")
    shutil.rmtree(work / "none")
    partial = tmp_path / "with.yaml"
    partial.write_text("job: {params: {net: unet}, runtime_env: {env_vars: {A: b}}}\n")
    spec = rebuild(crate, given(tmp_path, spec_file=partial), work).spec
    assert (spec.job.params, spec.job.runtime_env) == ({"net": "unet"}, {"env_vars": {"A": "b"}})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("job: {params: {folds: 9}}", "job.params.folds would make another run"),
        ("job: {entrypoint: python other.py}", "job.entrypoint would make another run"),
        ("resume: /x", "resume would make another run"),
        ("lease: never", "lease"),
        ("- no mapping", "is not a mapping"),
    ],
)
def test_a_partial_spec_may_not_change_what_ran(text: str, told: str, crate: Crate, tmp_path: Path, work: Path) -> None:
    partial = tmp_path / "with.yaml"
    partial.write_text(f"{text}\n")
    with pytest.raises(UsageError, match=told):
        rebuild(crate, given(tmp_path, spec_file=partial), work)


def test_a_spec_of_a_newer_dhctl(crate: Crate, tmp_path: Path, work: Path) -> None:
    newer = Crate(crate.path, crate.folder, crate.run, {**crate.spec, "workers": {"max": 1, "spot": True}})
    with pytest.raises(CrateError, match=r"does not know \(workers.spot\).*upgrade dhctl"):
        rebuild(newer, given(tmp_path), work)
    broken = Crate(crate.path, crate.folder, crate.run, {**crate.spec, "lease": "soon"})
    with pytest.raises(SpecError, match="lease"):
        rebuild(broken, given(tmp_path), work / "again")


def test_code_that_the_crate_lacks_is_given_and_checked(home: Home, tmp_path: Path, work: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "table.csv").write_text("a\n1\n")
    write_crate(finished_run(home, tmp_path), tmp_path / "crate", Wanted())
    crate = open_crate(tmp_path / "crate", work)
    with pytest.raises(UsageError, match="does not hold 1 files of the job's code; give the folder with --code"):
        rebuild(crate, given(tmp_path), work / "a")
    assert rebuild(crate, given(tmp_path, code=tmp_path / "job"), work / "b").spec.job.folder
    (tmp_path / "job" / "main.py").write_text("pass\n")
    with pytest.raises(UsageError, match="the code has the digest"):
        rebuild(crate, given(tmp_path, code=tmp_path / "job"), work / "c")


def test_a_job_that_comes_with_dhctl_runs_by_name_or_as_it_was(home: Home, tmp_path: Path, work: Path) -> None:
    job = {"folder": None, "entrypoint": None, "name": "prostate", "params": {"seed": 1}}
    write_crate(finished_run(home, tmp_path, job=job, data="phantoms"), tmp_path / "crate", Wanted())
    crate = open_crate(tmp_path / "crate", work)
    assert crate.job["code"]["sha256"] == installed_digest()
    assert rebuild(crate, Given(), work / "a").spec.job.name == "prostate"

    old = json.loads(json.dumps(crate.run))
    module = crate.folder / old["jobs"][0]["code"]["folder"] / "dhctl" / "ray_jobs" / "report.py"
    module.write_text(module.read_text() + "# as it was\n")
    old["jobs"][0]["code"]["sha256"] = code_digest(module.parents[2])
    spec = rebuild(Crate(crate.path, crate.folder, old, crate.spec), Given(), work / "b").spec
    assert (spec.job.name, spec.job.entrypoint) == (None, "python -m dhctl.ray_jobs.prostate")
    assert (Path(str(spec.job.folder)) / "dhctl" / "ray_jobs" / "report.py").exists()


def test_what_is_known_before(crate: Crate, tmp_path: Path, work: Path) -> None:
    found = verdicts(before(crate, rebuild(crate, given(tmp_path), work)))
    assert (found["code"], found["data"], found["target"]) == ("same", "same", "same")
    assert found["dhctl"] == "differs"
    (tmp_path / "data" / "train.csv").write_text("slide,patient_id,grade\n")
    shutil.rmtree(work / "code")
    assert verdicts(before(crate, rebuild(crate, given(tmp_path), work)))["data"] == "differs"


def test_data_of_another_site_are_told(home: Home, tmp_path: Path, work: Path) -> None:
    stores = {"pathology": {"url": str(tmp_path / "data"), "residency": "site-a"}}
    write_crate(finished_run(home, tmp_path, stores=stores), tmp_path / "crate", Wanted())
    crate = open_crate(tmp_path / "crate", work)
    place = tmp_path / "place.yaml"
    for site, verdict in (("site-a", "same"), ("site-b", "differs")):
        place.write_text(f"local: {{site: {site}}}\n")
        (work / site).mkdir()
        found = before(crate, rebuild(crate, given(tmp_path, spec_file=place), work / site))
        assert verdicts(found)["site of the data"] == verdict


def test_packages_that_differ_are_named() -> None:
    then = {"python": "3.11.7", "packages": {"torch": "2.13.0", "numpy": "2.2", "gone": "1"}}
    rows = list(packages(then, {"python": "3.12.0", "packages": {"torch": "2.14.0", "numpy": "2.2"}}))
    assert [(row.what, row.here) for row in rows] == [
        ("python", "3.12.0"),
        ("package gone", "not there"),
        ("package torch", "2.14.0"),
    ]
    assert list(packages(then, then))[-1].verdict == "same"
    assert list(packages(then, {}))[-1].verdict == "not known"


@pytest.mark.parametrize(
    ("value", "inside"),
    [(0.91, True), (0.88, True), (0.94, True), (0.8799, False), (0.95, False), (float("nan"), False)],
)
def test_the_metric_must_lie_within_the_interval(
    value: float, inside: bool, crate: Crate, home: Home, tmp_path: Path
) -> None:
    metric = {**RESULT["metric"], "value": value}  # type: ignore[dict-item]
    again = finished_run(home, tmp_path / "again", result={"metric": metric})
    judgement = judge(crate, facts_of(again))
    assert judgement.reproduced is inside


def test_nothing_to_judge(home: Home, crate: Crate, tmp_path: Path, work: Path) -> None:
    again = facts_of(finished_run(home, tmp_path / "again", result={"rows": 3}))
    assert judge(crate, again).sentence == "the new run tells no auc, so nothing can be judged"
    write_crate(finished_run(home, tmp_path / "b", result={"rows": 3}), tmp_path / "b" / "crate", Wanted())
    (work / "b").mkdir()
    assert (
        "tells no metric with a 95 % interval"
        in judge(open_crate(tmp_path / "b" / "crate", work / "b"), again).sentence
    )


def test_what_is_known_after(home: Home, crate: Crate, tmp_path: Path) -> None:
    again = facts_of(finished_run(home, tmp_path / "again"))
    found = verdicts(after(crate, again))
    assert {found[what] for what in ("code", "data", "metric", "packages", "target", "engine: pulumi")} == {"same"}
    assert {"job, seconds", "time to model, seconds", "worker seconds"} <= set(found)


@pytest.mark.parametrize(("value", "word"), [(0.9, "within"), (0.5, "outside")])
def test_the_exit_code_is_the_judgement(
    value: float,
    word: str,
    folder: Path,
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    metric = {**RESULT["metric"], "value": value}  # type: ignore[dict-item]
    again = finished_run(home, folder.parent / "again", result={"metric": metric})
    receipt = Receipt.from_dict(json.loads(again.receipt_path.read_text()))
    monkeypatch.setattr("dhctl.infra.admission.admit", lambda spec, *rest, **options: spec)
    monkeypatch.setattr("dhctl.infra.run.run", lambda *asked: RunEnd(again, None, receipt, None))
    assert run_group(["reproduce", str(folder), "--data", str(folder.parent / "data")]) == (word == "outside")
    shown = capsys.readouterr()
    assert f"auc {value} lies {word} 0.88 to 0.94" in shown.out + shown.err
    assert "worker seconds" in shown.out
    assert again.ledger.entries()[-1].act == "reproduces"


def test_dry_run_of_the_command(folder: Path, tmp_path: Path, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    runs = sorted(home.runs.iterdir())
    assert run_group(["reproduce", str(folder), "--dry-run", "--data", str(tmp_path / "data"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["event"] == "Differences"
    assert {row["what"]: row["verdict"] for row in told["rows"]}["data"] == "same"
    assert run_group(["reproduce", str(folder), "--dry-run"]) == 2
    assert "withholds data (--data PLACE)" in capsys.readouterr().err
    assert sorted(home.runs.iterdir()) == runs
