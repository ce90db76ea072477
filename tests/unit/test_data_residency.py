"""Residency: data that may not leave a site is refused on targets elsewhere, however its label is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.admission import admit, requirements
from dhctl.infra.data.admission import caches, residency
from dhctl.infra.data.labels import Label, LabelError, file_labels, labels_of
from dhctl.infra.data.section import DataStore
from dhctl.infra.errors import AdmissionError
from dhctl.infra.events import ignore
from unit.fakes import FakeTarget, make_spec
from unit.http_store import HttpStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ct" / "2025").mkdir(parents=True)
    (tmp_path / "ct" / "2025" / "a.dcm").write_text("a")
    return tmp_path / "ct"


def problems(**spec: Any) -> list[str]:
    return [row.problem for row in residency(make_spec(**spec)) if row.problem]


def store(folder: Path, label: str | None = "site-a") -> dict[str, Any]:
    return {"ct": {"url": str(folder), "residency": label}}


def test_a_label_of_the_store_forbids_other_sites(folder: Path) -> None:
    asked = {"data": f"{folder}/2025", "stores": store(folder)}
    assert problems(**asked, local={"site": "site-a"}) == []
    assert problems(**asked) == [
        f"data {folder}/2025 may be used at site-a only (store ct), and target local is at local; run it on a target "
        "at site-a"
    ]
    assert problems(**asked, target="openstack", openstack={"site": "site-b"}) == [
        f"data {folder}/2025 may be used at site-a only (store ct), and target openstack is at site-b; run it on a "
        "target at site-a"
    ]


def test_a_target_that_says_no_site_gets_no_labelled_data(folder: Path) -> None:
    (told,) = problems(data=str(folder), stores=store(folder), target="kubernetes")
    assert told.endswith("and the spec does not say where target kubernetes is; set kubernetes.site")


@pytest.mark.parametrize("name", ["dataset.yaml", "dataset.json"])
@pytest.mark.parametrize("depth", ["2025", "."])
def test_a_label_beside_the_data_or_above_it_forbids_too(folder: Path, name: str, depth: str) -> None:
    (folder / depth / name).write_text(
        json.dumps({"residency": "site-a", "name": "lung", "images": [{"location": "a"}]})
    )
    (told,) = problems(data=f"{folder}/2025")
    assert f"site-a only ({(folder / depth / name).resolve()})" in told
    assert problems(data=f"{folder}/2025", local={"site": "site-a"}) == []


def test_a_description_without_a_label_says_nothing(folder: Path) -> None:
    """The dataset YAML of EDDL has the same name."""
    (folder / "dataset.yaml").write_text("name: isic\nclasses: [a, b]\nsplit: {training: [0, 1]}\n")
    (folder / "2025" / "dataset.json").write_text("[1, 2]")
    assert file_labels(f"{folder}/2025") == []


def test_labels_that_contradict_each_other_allow_no_site(folder: Path) -> None:
    (folder / "dataset.yaml").write_text("residency: site-b\n")
    for site in ("site-a", "site-b"):
        (told,) = problems(data=str(folder), stores=store(folder), local={"site": site})
        assert "site-a only (store ct) and site-b only (" in told
        assert told.endswith("and no target is at both; ask the data manager which label is right")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("residency: [site-a", "is no YAML or JSON, so whether it forbids this site cannot be known; repair or rename"),
        ("residency: 3", "residency is 3, not a text"),
        ("\t: : :", "is no YAML or JSON"),
    ],
)
def test_a_label_that_cannot_be_read_refuses(folder: Path, content: str, sentence: str) -> None:
    (folder / "dataset.yaml").write_text(content)
    (told,) = problems(data=str(folder))
    assert sentence in told
    with pytest.raises(LabelError):
        labels_of(str(folder), {})


def test_output_of_labelled_data_stays_at_its_site(folder: Path, tmp_path: Path) -> None:
    stores = {**store(folder), "results": {"url": str(tmp_path / "results"), "residency": "site-b"}}
    asked: dict[str, Any] = {"data": str(folder), "stores": stores, "local": {"site": "site-a"}}
    assert problems(**asked, output=str(tmp_path / "results" / "x")) == [
        f"output {tmp_path}/results/x is kept at site-b (store results), but the data may be used at site-a only; "
        "choose an output there"
    ]
    assert problems(**asked, output=str(tmp_path / "elsewhere")) == []


def test_admission_refuses_with_the_sentence(folder: Path) -> None:
    spec = make_spec(
        job={"folder": str(folder), "entrypoint": "true"}, data=str(folder), stores=store(folder), output=str(folder)
    )
    with pytest.raises(AdmissionError) as caught:
        admit(spec, FakeTarget(), ignore)
    (told,) = caught.value.problems
    assert "may be used at site-a only (store ct)" in told
    assert "residency" in {row.what for row in requirements(spec, FakeTarget())}


def test_phantoms_and_unlabelled_data_are_nobodys(folder: Path) -> None:
    assert list(residency(make_spec(data="phantoms"))) == []
    assert list(residency(make_spec(data=str(folder), stores=store(folder, None)))) == []
    assert list(residency(make_spec())) == []
    assert list(residency(make_spec(data="ftp://x/y"))) == []


def test_labels_on_s3_are_read_beside_the_data_and_above(http_store: HttpStore) -> None:
    http_store.objects["bucket/ct/2025/a.dcm"] = b"a"
    assert file_labels("s3://bucket/ct/2025") == []
    http_store.objects["bucket/ct/dataset.json"] = b'{"residency": "site-a"}'
    assert file_labels("s3://bucket/ct/2025?region=lab") == [Label("site-a", "s3://bucket/ct/dataset.json")]
    http_store.objects["bucket/dataset.yaml"] = b"residency: site-b"
    http_store.objects["bucket/dataset.v2/dataset.yaml"] = b"residency: site-c"
    assert {label.residency for label in file_labels("s3://bucket/ct/2025")} == {"site-a", "site-b"}
    assert {call.split()[0] for call in http_store.asked} == {"GET"}


def test_a_label_on_s3_that_is_closed_refuses(http_store: HttpStore) -> None:
    http_store.objects["bucket/ct/dataset.yaml"] = b"residency: site-a"
    http_store.refuses["bucket/ct/dataset.yaml"] = [(403, "AccessDenied")]
    with pytest.raises(LabelError, match=r"ct/dataset\.yaml cannot be read \(.*AccessDenied.*; ask the store's owner"):
        file_labels("s3://bucket/ct")
    http_store.refuses["bucket"] = [(403, "AccessDenied")]
    assert file_labels("s3://bucket/other") == [], "told by the check of the data itself"


def test_a_store_that_is_away_is_told_by_its_own_check(http_store: HttpStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dhctl.infra.object_store.TRIES", 1)
    assert file_labels("s3://bucket/ct?endpoint_override=127.0.0.1:9&scheme=http") == []


def test_data_in_a_volume_of_the_pods_has_its_stores_label(folder: Path) -> None:
    """It cannot be looked into from here, and lies at the cluster's site already."""
    (folder / "dataset.yaml").write_text("residency: site-b\n")
    kubernetes = {"site": "site-a", "volume_mounts": [{"name": "v", "mountPath": str(folder)}]}
    asked: dict[str, Any] = {"target": "kubernetes", "kubernetes": kubernetes, "data": f"{folder}/2025"}
    assert problems(**asked, stores=store(folder)) == []
    assert problems(**asked) == []


def test_a_shared_cache_must_be_in_a_volume_of_the_pods() -> None:
    (row,) = caches(make_spec(target="kubernetes", cache={"shared": "/cache"}))
    assert row.problem.startswith("cache.shared /cache is in no volume of the pods; mount one")
    mounted = {"volume_mounts": [{"name": "v", "mountPath": "/cache"}]}
    (row,) = caches(make_spec(target="kubernetes", kubernetes=mounted, cache={"shared": "/cache/dhctl"}))
    assert row.problem == ""


def test_a_cache_on_this_machine_must_be_writable() -> None:
    (row,) = caches(make_spec(cache={"folder": "/dev/null/cache"}))
    assert row.problem.startswith("no permission to write in cache.folder /dev/null/cache")
    assert list(caches(make_spec())) == []


def test_labels_of_stores_follow_the_place() -> None:
    stores = {"ct": DataStore(url="s3://bucket/ct", residency="site-a")}
    assert [label.by for label in labels_of("s3://bucket/ct/x?scheme=ftp&acl=1", stores)] == ["store ct"]
