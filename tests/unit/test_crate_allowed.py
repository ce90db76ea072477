"""What may go into a crate: lists of what may stay, so that nothing has to be recognised as bad."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dhctl.infra.crate import allowed
from dhctl.infra.crate.allowed_spec import allowed_spec
from unit.fakes import make_spec


def kept_of(**changes: Any) -> tuple[dict[str, Any], list[str]]:
    return allowed_spec(json.loads(make_spec(**changes).model_dump_json()))


@pytest.mark.parametrize("name", ["loss", "validation_qwk", "ci95", "sensitivity_at_90_specificity", "0.125", "MEL"])
def test_names_of_numbers_stay(name: str) -> None:
    assert allowed.is_name(name)


@pytest.mark.parametrize("name", ["P-1001", "p1001", "patient_17", "Rossi", "ISIC_0024306", "1.2.840.10008", "12", ""])
def test_names_of_patients_and_images_do_not(name: str) -> None:
    assert not allowed.is_name(name)


def test_a_result_keeps_its_scores_and_loses_its_rows() -> None:
    body = {
        "job": "prostate",
        "run": "dh-1",
        "data": "/mnt/hospital/rossi",
        "metric": {"name": "kappa", "value": 0.7, "ci95": [0.6, 0.8], "patient": "P-1", "baselines": [{"name": "x"}]},
        "slides": {"train": 5, "P-1001": 1},
        "skipped": [{"slide": "S-1", "reason": "P-1 is unreadable"}],
        "settings": {"epochs": 3, "encoder": "small", "table": "Mario Rossi, born 1950"},
        "digests": {"data": "ab" * 32, "note": "not a digest"},
        "versions": {"torch": "2.13.0+cu130", "python": "3.11.7"},
        "curve": [0.1, 0.2],
        "worst": ["S-1", "S-2"],
        "comment": "P-1001 was hard",
    }
    kept, left_out = allowed.result(body, phantoms=False)
    assert kept == {
        "job": "prostate",
        "metric": {"name": "kappa", "value": 0.7, "ci95": [0.6, 0.8], "baselines": [{"name": "x"}]},
        "slides": {"train": 5},
        "skipped": 1,
        "settings": {"epochs": 3, "encoder": "small"},
        "digests": {"data": "ab" * 32},
        "versions": {"torch": "2.13.0+cu130", "python": "3.11.7"},
        "curve": [0.1, 0.2],
    }
    assert left_out == ["comment", "data", "worst"]


def test_a_result_of_phantoms_says_so() -> None:
    assert allowed.result({"data": "generated phantoms"}, phantoms=True)[0] == {"data": "generated phantoms"}
    assert allowed.result({"data": "generated phantoms"}, phantoms=False)[0] == {}


@pytest.mark.parametrize("body", [None, "text", ["P-1"], {"metric": "P-1", "samples_per_s": "P-1"}])
def test_a_result_of_any_shape_tells_no_text(body: Any) -> None:
    assert "P-1" not in json.dumps(allowed.result(body, phantoms=False)[0])


def test_progress_keeps_numbers_under_plain_names() -> None:
    (row,) = allowed.progress([{"stage": "train", "step": 1, "of": 2, "unit": "epoch", "loss": 0.5, "P-1": 1.0}])
    assert row == {"stage": "train", "step": 1, "of": 2, "unit": "epoch", "loss": 0.5}


def test_places_and_logins_are_withheld_from_a_spec() -> None:
    kept, withheld = kept_of(
        data="/home/rossi/slides",
        output="s3://key:secret@bucket/out",
        job={
            "folder": "/home/rossi/job",
            "entrypoint": "python main.py",
            "params": {"folds": 5, "api_key": "sk-live-1", "notes": "for Rossi"},
            "runtime_env": {"env_vars": {"WANDB_API_KEY": "x"}, "pip": ["numpy==2.2"]},
        },
        target="openstack",
        openstack={"flavor": "m1.small", "bastion": "rossi@jump", "ssh_from": ["192.0.2.0/24"], "cloud": "hospital"},
    )
    assert "rossi" not in json.dumps(kept).lower()
    assert kept["job"]["params"] == {"folds": 5}
    assert kept["job"]["runtime_env"] == {"pip": ["numpy==2.2"]}
    assert kept["openstack"]["flavor"] == "m1.small"
    assert withheld == [
        "data",
        "job.params.api_key",
        "job.params.notes",
        "job.runtime_env.env_vars",
        "openstack.bastion",
        "openstack.cloud",
        "openstack.ssh_from",
        "output",
    ]


def test_a_text_of_the_job_stays_when_it_is_named() -> None:
    body = json.loads(
        make_spec(job={"folder": "/f", "entrypoint": "python m.py", "params": {"net": "unet"}}).model_dump_json()
    )
    assert allowed_spec(body)[0]["job"]["params"] == {}
    assert allowed_spec(body, {"net"})[0]["job"]["params"] == {"net": "unet"}


def test_settings_of_a_job_that_comes_with_dhctl_stay() -> None:
    kept, withheld = kept_of(job={"name": "prostate", "params": {"profile": "tiny", "seed": 7}}, data="phantoms")
    assert (kept["job"]["params"], kept["data"]) == ({"profile": "tiny", "seed": 7}, "phantoms")
    assert withheld == []


@pytest.mark.parametrize(
    ("place", "kept"),
    [
        ("s3://b/p?region=x&access_key=k", "s3://b/p?region=x"),
        ("s3://b/p", "s3://b/p"),
        ("phantoms", "phantoms"),
        ("pathology:2025/cohort", "pathology:2025/cohort"),
    ],
)
def test_places_that_tell_no_login_stay(place: str, kept: str) -> None:
    assert allowed_spec({"data": place})[0]["data"] == kept


@pytest.mark.parametrize(
    "line", ["python main.py --key 0123456789abcdef0123456789abcdef", "TOKEN=$X python m.py", "python 'a;b'"]
)
def test_a_command_line_that_may_hold_a_key_is_withheld(line: str) -> None:
    assert allowed_spec({"job": {"entrypoint": line}})[1] == ["job.entrypoint"]


def test_packages_from_a_url_are_withheld() -> None:
    env = {"pip": ["x @ https://user:pass@host/x.whl"]}
    assert allowed_spec({"job": {"runtime_env": env}}) == ({}, ["job.runtime_env.pip"])


def test_a_key_that_no_list_knows_is_withheld() -> None:
    assert allowed_spec({"name": "a", "invented": "x"}) == ({"name": "a"}, ["invented"])
