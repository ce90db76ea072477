"""Folders and S3 prefixes behind one interface."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.storage import open_store, s3_options


def test_a_folder_is_read_and_written_as_a_whole(tmp_path: Path) -> None:
    store = open_store(str(tmp_path)).beneath("a")
    assert store.files() == []
    assert not store.exists("b/c.json")
    store.write_json("b/c.json", {"x": 1})
    store.write("top", b"t")
    assert store.read_json("b/c.json") == {"x": 1}
    assert [file.key for file in store.files()] == ["top"]
    assert [(file.key, file.size_bytes) for file in store.files(deep=True)] == [("b/c.json", 12), ("top", 1)]
    assert [path.name for path in tmp_path.rglob("*.part")] == []
    with pytest.raises(FileNotFoundError):
        store.read("none")


def test_it_is_opened_again_from_another_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_store("here").write("a", b"1")
    place = open_store("here").place
    monkeypatch.chdir("/")
    assert open_store(place).read("a") == b"1"
    assert open_store("s3://lab/models?region=eu").place == "s3://lab/models?region=eu"


def test_s3_urls_map_to_bucket_and_prefix() -> None:
    env = {"AWS_ENDPOINT_URL": "http://10.0.0.5:9000", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    store = open_store("s3://bucket/some/prefix/", env)
    assert store.root == "bucket/some/prefix"
    assert store.beneath("shards").path("x.tar") == "bucket/some/prefix/shards/x.tar"
    assert not store.is_local
    assert pickle.loads(pickle.dumps(store)).root == store.root


def test_s3_options_come_from_the_url_before_the_environment() -> None:
    env = {
        "AWS_ENDPOINT_URL": "https://general.example",
        "AWS_ENDPOINT_URL_S3": "http://s3.example:9000/",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_SESSION_TOKEN": "t",
    }
    assert s3_options("s3://b/p", env) == {
        "endpoint_override": "s3.example:9000",
        "scheme": "http",
        "region": "us-east-1",
        "access_key": "k",
        "secret_key": "s",
        "session_token": "t",
    }
    chosen = s3_options("s3://b/p?endpoint_override=other:1&scheme=https&region=eu", env)
    assert (chosen["endpoint_override"], chosen["scheme"], chosen["region"]) == ("other:1", "https", "eu")
    assert s3_options("s3://b/p", {}) == {}


def test_unusable_s3_urls_are_refused() -> None:
    with pytest.raises(RefusedInputError, match="names no bucket"):
        open_store("s3:///prefix", {})
    with pytest.raises(RefusedInputError, match="has the option acl"):
        open_store("s3://b/p?acl=public", {})
