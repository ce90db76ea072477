"""`dhctl data` between folders and a real S3 server: copies, goes on after the server was away, verifies."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from dhctl.cli.main import run_group
from dhctl.infra.data import datasets
from jobs.door import Door
from testbeds.object_store import ObjectStore, object_store

MIB = 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("s3")) as running:
        running.make_bucket("copies")
        yield running


@pytest.fixture
def door(server: ObjectStore) -> Iterator[Door]:
    host, _, port = server.endpoint_url.partition("://")[2].partition(":")
    way = Door(host, int(port))
    yield way
    way.shut()


@pytest.fixture
def data(
    server: ObjectStore, door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `dhctl data ...` with a store `bucket` behind the door, and a folder `here`."""
    for name, value in {**server.env, "XDG_CONFIG_HOME": str(tmp_path / "config"), "DHCTL_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    (tmp_path / "config" / "dhctl").mkdir(parents=True)
    url = "s3://copies/all?endpoint_override={}:{}&scheme=http".format(*door.address)
    stores = {"bucket": {"url": url}, "here": {"url": str(tmp_path / "here")}}
    (tmp_path / "config" / "dhctl" / "stores.yaml").write_text(json.dumps({"stores": stores}))
    (tmp_path / "here" / "set" / "sub").mkdir(parents=True)
    for index in range(4):
        (tmp_path / "here" / "set" / "sub" / f"{index}.bin").write_bytes(bytes([index]) * 10 * MIB)

    def running(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_group(["data", *words])
        out, err = capsys.readouterr()
        return int(code), out, err

    return running


def summary(out: str) -> dict[str, Any]:
    (found,) = (line for line in map(json.loads, out.splitlines()) if line["event"] == "Summary")
    return dict(found)


def test_there_and_back_again(data: Any, server: ObjectStore, tmp_path: Path) -> None:
    code, _, err = data("stage", "here:set", "--to", "bucket:there")
    assert code == 0, err
    assert server.objects("copies", "all/there/sub/1.bin") == {"all/there/sub/1.bin": 10 * MIB}
    assert data("verify", "bucket:there")[0] == 0
    body = json.loads(data("ls", "bucket:there", "--json")[1])
    assert [(row["name"], row["files"]) for row in body["rows"]] == [("sub/", 4), ("manifest.json", 1)]
    assert data("stage", "bucket:there", "--to", "here:back")[0] == 0
    assert (tmp_path / "here" / "back" / "sub" / "3.bin").read_bytes() == b"\3" * 10 * MIB
    server.client().put_object(Bucket="copies", Key="all/there/sub/1.bin", Body=b"x" * 10 * MIB)
    code, out, _ = data("verify", "bucket:there", "--json")
    assert code == 1
    assert summary(out)["differences"] == [{"file": "sub/1.bin", "what": "another content"}]
    code, _, err = data("stage", "bucket:there", "--to", "here:third")
    assert code == 1
    assert "sub/1.bin is not what the manifest of s3://copies/all/there (endpoint" in err


def test_a_server_that_was_away_for_a_while_is_waited_for(data: Any, door: Door, server: ObjectStore) -> None:
    door.shuts_after = 15 * MIB

    def reopen() -> None:
        while door._listener is not None:
            threading.Event().wait(0.05)
        threading.Event().wait(1.5)
        door.open()

    threading.Thread(target=reopen, daemon=True).start()
    code, _, err = data("stage", "here:set", "--to", "bucket:away")
    assert code == 0, err
    assert len(server.objects("copies", "all/away/sub/")) == 4


def test_a_server_that_stays_away_is_told_and_the_copy_can_go_on(
    data: Any, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "PATIENCE_S", 0.5)
    monkeypatch.setattr("dhctl.ray_jobs.storage.TRIES", 1)
    door.shuts_after = 15 * MIB
    code, _, err = data("stage", "here:set", "--to", "bucket:later")
    assert code == 1
    assert "s3://copies/all/later (endpoint 127.0.0.1:" in err
    door.open()
    code, _, err = data("stage", "here:set", "--to", "bucket:later")
    assert code == 0, err
    assert data("verify", "bucket:later")[0] == 0


def test_headers_on_s3_are_checked(data: Any, server: ObjectStore) -> None:
    content = Path(str(get_testdata_file("MR_small.dcm"))).read_bytes()
    server.client().put_object(Bucket="copies", Key="all/scans/1.dcm", Body=content)
    code, _, err = data("stage", "bucket:scans", "--to", "here:scans")
    assert code == 1
    assert "(0010,0010) PatientName: can be a name; in 1, such as 1.dcm" in err
