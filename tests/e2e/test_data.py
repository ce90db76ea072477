"""Data by the name of its store: staged, read through a cache that stays on purpose, kept at its site."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.data.places import beneath
from dhctl.ray_jobs.data.staged import staged
from dhctl.ray_jobs.storage import open_store
from e2e.driver import Dhctl, assert_gone
from jobs.door import Door
from testbeds.object_store import object_store

MIB = 2**20


def result(dhctl: Dhctl) -> dict[str, Any]:
    found = json.loads((dhctl.record().job_dir(1) / "result.json").read_text())
    return dict(found["result"])


def test_a_cache_outlives_its_run_whose_receipt_is_clean(
    dhctl: Dhctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scans" / "sub").mkdir(parents=True)
    for index in range(4):
        (tmp_path / "scans" / "sub" / f"{index}.bin").write_bytes(bytes([index]) * 2 * MIB)
    digest = hashlib.sha256(b"".join(bytes([index]) * 2 * MIB for index in range(4))).hexdigest()
    with object_store(tmp_path / "s3") as store:
        store.make_bucket("scans")
        host, _, port = store.endpoint_url.partition("://")[2].partition(":")
        door = Door(host, int(port))
        dhctl.env |= store.env
        url = "s3://scans/all?endpoint_override={}:{}&scheme=http".format(*door.address)
        stores = {"hospital": {"url": url, "residency": "site-a"}, "here": {"url": str(tmp_path / "scans")}}
        asked: dict[str, Any] = {
            "data": "hospital:set",
            "stores": stores,
            "local": {"site": "site-a"},
            "cache": {"folder": "cache"},
        }
        spec = dhctl.spec("cached", **asked)
        (tmp_path / "staging.yaml").write_text(
            json.dumps({**json.loads((tmp_path / spec).read_text()), "data": "here:"})
        )
        copied = dhctl("data", "stage", "staging.yaml", "--to", "hospital:set")
        assert copied.returncode == 0, copied.stdout + copied.stderr
        door.passed_bytes = 0
        ended = dhctl("run", spec)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert result(dhctl) == {"sha256": digest, "folders": [str(tmp_path / "cache")]}
        assert 8 * MIB <= door.passed_bytes <= 10 * MIB
        assert "clean: nothing is left" in ended.stdout
        assert_gone(dhctl.record())
        door.passed_bytes = 0
        monkeypatch.setenv("DHCTL_CACHE_DIR", str(tmp_path / "cache"))  # as the next run's worker finds it
        data = open_store(beneath(url, "set"), store.env)
        with staged(data, [f"sub/{index}.bin" for index in range(4)]) as paths:
            assert hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest() == digest
        assert door.passed_bytes < MIB, "the manifest, no file"
        door.shut()


def test_data_of_another_site_is_refused_before_anything_is_made(dhctl: Dhctl, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "dataset.yaml").write_text("residency: site-a\n")
    ended = dhctl("run", dhctl.spec("cached", data="./scans"))
    assert ended.returncode == 1
    assert f"data {tmp_path}/scans may be used at site-a only ({tmp_path}/scans/dataset.yaml)" in ended.stderr
    assert dhctl.records() == []
