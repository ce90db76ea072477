"""A real S3 server that goes away: for a while it is waited for, for good the job ends with a sentence."""

from __future__ import annotations

import hashlib
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dhctl.ray_jobs import storage
from dhctl.ray_jobs.data import cache as cache_module
from dhctl.ray_jobs.data import staged
from dhctl.ray_jobs.data.patience import Patience, is_passing, patience_from
from dhctl.ray_jobs.environment import JobStoppedError, RefusedInputError
from dhctl.ray_jobs.storage import Store, open_store
from jobs.door import Door
from testbeds.object_store import ObjectStore, object_store

MIB = 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("s3")) as running:
        running.make_bucket("slides")
        running.client().put_object(Bucket="slides", Key="a/large.bin", Body=CONTENT)
        yield running


CONTENT = b"".join(bytes([index]) * MIB for index in range(20))


@pytest.fixture
def door(server: ObjectStore) -> Iterator[Door]:
    host, _, port = server.endpoint_url.partition("://")[2].partition(":")
    way = Door(host, int(port))
    yield way
    way.shut()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(staged, "_manifests", {})
    monkeypatch.setattr(cache_module, "_checked", set())
    monkeypatch.setattr(storage, "TRIES", 1)  # pyarrow's own, which cost seconds each
    return []


def store_behind(door: Door, server: ObjectStore, told: list[str], seconds: float) -> Store:
    env = {**server.env, "AWS_ENDPOINT_URL": "http://{}:{}".format(*door.address)}
    found = open_store("s3://slides/a", env)
    return Store(found.filesystem, found.root, found.url, found.endpoint, Patience(seconds, told.append))


def test_a_store_that_comes_back_is_waited_for(server: ObjectStore, door: Door, told: list[str]) -> None:
    store = store_behind(door, server, told, 60)
    door.shut()
    threading.Timer(2.0, door.open).start()
    began = time.monotonic()
    assert [file.size_bytes for file in store.files()] == [len(CONTENT)]
    assert time.monotonic() - began > 1.5
    (warned,) = told
    assert f"s3://slides/a (endpoint 127.0.0.1:{door.address[1]}) does not answer (network connection)" in warned


def test_a_download_that_is_cut_goes_on_from_there(
    server: ObjectStore, door: Door, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DHCTL_CACHE_DIR", str(tmp_path / "cache"))
    store = store_behind(door, server, told, 60)
    door.shuts_after = 12 * MIB  # in the second piece of 8 MiB

    def reopen() -> None:
        while door._listener is not None:
            time.sleep(0.05)
        time.sleep(1.0)
        door.open()

    threading.Thread(target=reopen, daemon=True).start()
    with staged.staged(store, ["large.bin"]) as (path,):
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(CONTENT).digest()
    assert len(told) == 1
    assert door.passed_bytes < 29 * MIB, "what was there already is not fetched again"


def test_what_is_written_arrives_when_the_store_is_back(server: ObjectStore, door: Door, told: list[str]) -> None:
    store = store_behind(door, server, told, 60)
    door.shut()
    threading.Timer(1.5, door.open).start()
    store.write("late.json", b"{}")
    assert server.objects("slides", "a/late.json") == {"a/late.json": 2}
    store.remove("late.json")
    assert not store.exists("late.json")


def test_a_store_that_stays_away_ends_the_job_with_its_endpoint(
    server: ObjectStore, door: Door, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DHCTL_CACHE_DIR", str(tmp_path / "cache"))
    store = store_behind(door, server, told, 1.0)
    door.shut()
    began = time.monotonic()
    with pytest.raises(JobStoppedError) as caught, staged.staged(store, ["large.bin"]):
        pass
    assert time.monotonic() - began < 10
    assert str(caught.value) == (
        f"s3://slides/a (endpoint 127.0.0.1:{door.address[1]}) does not answer (network connection), although it was "
        "asked again for 1 s; start again when it is back: what is done is kept"
    )


def test_a_refusal_is_not_asked_again(server: ObjectStore, told: list[str]) -> None:
    found = open_store("s3://slides/a", {**server.env, "AWS_SECRET_ACCESS_KEY": "wrong"})
    store = Store(found.filesystem, found.root, found.url, found.endpoint, Patience(60, told.append))
    began = time.monotonic()
    with pytest.raises(OSError, match="AWS Error"):
        store.read("large.bin")
    with pytest.raises(FileNotFoundError):
        open_store("s3://slides/a", server.env).read("none")
    assert time.monotonic() - began < 5
    assert told == []


def test_a_store_with_its_patience_can_be_sent_to_workers(server: ObjectStore) -> None:
    store = open_store("s3://slides/a", {**server.env, "DHCTL_STORE_PATIENCE_S": "7"})
    again = pickle.loads(pickle.dumps(store))
    assert again.patience.seconds == 7
    assert again.head("large.bin", 3) == CONTENT[:3]
    assert again.folders() == []
    assert open_store("s3://slides", server.env).folders() == ["a"]


def test_errors_of_this_machine_are_not_a_stores() -> None:
    assert not is_passing(OSError(28, "No space left on device"))
    assert not is_passing(ValueError("AWS Error NETWORK_CONNECTION"))
    assert is_passing(OSError("AWS Error SLOW_DOWN during GetObject operation"))
    assert not is_passing(OSError("AWS Error NO_SUCH_BUCKET during GetObject operation"))
    assert is_passing(OSError("AWS Error UNKNOWN (HTTP status 503) during HeadObject operation"))
    assert is_passing(OSError("AWS Error UNKNOWN (HTTP status 429) during HeadObject operation"))
    assert not is_passing(OSError("AWS Error UNKNOWN (HTTP status 400) during HeadObject operation"))


@pytest.mark.parametrize("text", ["soon", "-1", "inf"])
def test_a_patience_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RefusedInputError, match="DHCTL_STORE_PATIENCE_S is"):
        patience_from({"DHCTL_STORE_PATIENCE_S": text})
