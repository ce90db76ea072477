"""What a run writes down for its crate while it lives."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import run
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dhctl.infra.bundle import LAUNCHER, code_digest, stage
from dhctl.infra.crate.digests import digest_data
from dhctl.infra.engine_state import engine_versions
from dhctl.infra.events import Event, JobLogged, NodeChanged, Noted
from dhctl.infra.home import Home
from dhctl.infra.job_journal import JobJournal
from dhctl.infra.job_log import lines
from dhctl.infra.kubernetes import bring_up
from dhctl.infra.kubernetes.mark import HEAD, ROLE_LABEL, WORKER
from dhctl.infra.node_watch import noting
from dhctl.infra.openstack.choices import _digest_of
from dhctl.infra.record import RunRecord, open_record
from dhctl.ray_jobs import launch
from unit.crate_runs import finished_run
from unit.fakes import FakeTarget, make_spec, resource, write_checkpoint
from unit.http_store import HttpStore


def test_the_launcher_tells_what_the_driver_finds(tmp_path: Path, told: list[Event]) -> None:
    words = ["--timeout", "20", "--tell-environment", "--", "echo hello"]
    done = run([sys.executable, launch.__file__, *words], capture_output=True, text=True, timeout=30, check=True)
    with JobJournal(tmp_path, told.append) as journal:
        for line in done.stdout.splitlines():
            journal.take(line)
    found = json.loads((tmp_path / "environment.json").read_text())
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"ray", "pydantic"} <= {name.lower() for name in found["packages"]}
    assert told == [JobLogged("hello")]


def test_the_launchers_line_is_not_shown_by_logs(home: Home, tmp_path: Path) -> None:
    record = finished_run(home, tmp_path)
    shown = list(lines(record, FakeTarget(), follow=False))
    assert len(shown) == 2
    assert not any("environment" in line for line in shown)


def test_the_digest_of_the_code_is_that_of_the_folder(home: Home, tmp_path: Path) -> None:
    record = finished_run(home, tmp_path)
    sent = stage(record, 2, {})
    assert (sent.folder / LAUNCHER).exists()
    assert sent.sha256 == code_digest(tmp_path / "job")
    (tmp_path / "job" / "main.py").write_text("pass\n")
    assert stage(record, 3, {}).sha256 != sent.sha256


def test_the_spec_as_given_is_kept_beside_the_admitted_one(home: Home) -> None:
    given = make_spec(workers={"max": 9})
    admitted = given.model_copy(update={"workers": given.workers.model_copy(update={"max": 2})})
    record = open_record(home, admitted, "0.0", {}, given)
    assert json.loads(record.given_path.read_text())["workers"] == {"max": 9}
    assert record.spec.workers.max == 2


def test_versions_of_engine_and_plugins_come_from_the_state(tmp_path: Path) -> None:
    provider = resource("s", "pulumi:providers:openstack", "default")
    write_checkpoint(tmp_path, "s", [{**provider, "inputs": {"version": "5.5.1"}}, resource("s", "x:y:Z", "z")])
    assert engine_versions(tmp_path) == {"pulumi": "3.259.0", "openstack": "5.5.1"}
    assert engine_versions(tmp_path / "none") == {}


def test_workers_that_ray_sees_are_noted_and_told(record: RunRecord, told: list[Event]) -> None:
    report = noting(record.ledger, told.append)
    report(NodeChanged("10.0.0.7", "joined", 1))
    report(Noted("else"))
    assert told == [NodeChanged("10.0.0.7", "joined", 1), Noted("else")]
    assert [(e.act, e.detail.get("status")) for e in record.ledger.entries()] == [
        ("run", None),
        ("node.seen", "joined"),
    ]


def test_an_images_digest_as_glance_has_it() -> None:
    assert _digest_of(SimpleNamespace(hash_algo="sha512", hash_value="ab12", checksum="cd")) == "sha512:ab12"
    assert _digest_of(SimpleNamespace(hash_value=None, checksum="cd34")) == "md5:cd34"
    assert _digest_of(SimpleNamespace()) == ""


def test_an_images_digest_as_the_kubelet_has_it(record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    def pod(role: str, image_id: str) -> dict[str, Any]:
        statuses = [{"name": "ray", "imageID": image_id}]
        return {"metadata": {"labels": {ROLE_LABEL: role}}, "status": {"containerStatuses": statuses}}

    pods = [
        pod(HEAD, f"docker-pullable://site/ray@sha256:{'ab' * 32}"),
        pod(WORKER, "sha256:else"),
        {**pod(HEAD, ""), "status": None},
    ]
    monkeypatch.setattr(bring_up, "pods_of", lambda *asked: pods)
    bring_up._note_image(cast(Any, None), record)
    noted = [e.detail for e in record.ledger.entries() if e.act == "image"]
    assert noted == [{"name": "ray", "digest": f"sha256:{'ab' * 32}"}]


def test_data_in_a_folder_are_known_by_their_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.bin").write_bytes(b"1")
    first = digest_data(str(tmp_path))
    assert (first.kind, first.files, first.size_bytes) == ("content", 1, 1)
    (tmp_path / "a" / "x.bin").write_bytes(b"2")
    assert digest_data(str(tmp_path)).sha256 != first.sha256
    assert digest_data(str(tmp_path / "none")).kind == digest_data(None).kind == "none"


def test_data_in_a_bucket_are_known_by_their_list(http_store: HttpStore) -> None:
    http_store.objects["bucket/in/a"] = b"1"
    first = digest_data("s3://bucket/in")
    assert (first.kind, first.files) == ("listing", 1)
    assert digest_data("s3://elsewhere/in").why == "NoSuchBucket"
