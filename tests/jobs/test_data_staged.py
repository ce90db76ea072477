"""Files of a store as local files: whole slides in their folders, shards again and again, what comes next ahead."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from dhctl.ray_jobs.data import cache as cache_module
from dhctl.ray_jobs.data import objects, staged
from dhctl.ray_jobs.data.cache import CorruptFileError
from dhctl.ray_jobs.data.manifest import MANIFEST, ManifestEntry, read_manifest, write_manifest
from dhctl.ray_jobs.data.staged import cached, prefetched
from dhctl.ray_jobs.environment import JobStoppedError, RefusedInputError
from dhctl.ray_jobs.storage import Store, open_store

SLIDE = ("case.mrxs", "case/Slidedat.ini", "case/Data0000.dat")


@pytest.fixture(autouse=True)
def _a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (cache_module, "_checked", set()),
        (cache_module, "_told", set()),
        (staged, "_manifests", {}),
        (staged, "_wanted", {}),
        (objects, "KEPT_FREE", 0.0),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def remote(tmp_path: Path) -> Store:
    """A folder that counts as remote, with a slide of several files."""
    folder = tmp_path / "remote"
    for key in SLIDE:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_text(f"content of {key}")
    return Store(fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem()), "", str(folder))


@pytest.fixture(params=["with a cache", "without a cache"])
def cache_folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    if request.param == "with a cache":
        monkeypatch.setenv("DHCTL_CACHE_DIR", str(tmp_path / "cache"))
    else:
        monkeypatch.delenv("DHCTL_CACHE_DIR", raising=False)
    return tmp_path / "cache"


def test_a_slide_of_several_files_lies_together_under_its_names(remote: Store, cache_folder: Path) -> None:
    with staged.staged(remote, SLIDE) as paths:
        assert [path.read_text() for path in paths] == [f"content of {key}" for key in SLIDE]
        assert paths[1].parent == paths[0].with_suffix(""), "OpenSlide looks for the folder beside the slide"
        folder = paths[0].parent
    assert not folder.exists()


def test_a_folder_is_used_in_place(tmp_path: Path, cache_folder: Path) -> None:
    (tmp_path / "a.tif").write_text("a")
    with staged.staged(open_store(str(tmp_path)), ["a.tif"]) as paths:
        assert paths == [tmp_path / "a.tif"]
    assert not cache_folder.exists()


def test_content_is_compared_with_the_manifest(remote: Store, cache_folder: Path) -> None:
    entries = [ManifestEntry(key, len(remote.read(key)), hashlib.sha256(remote.read(key)).hexdigest()) for key in SLIDE]
    write_manifest(remote, entries, "the scanner")
    (Path(remote.url) / "case/Slidedat.ini").write_text("content of case/SlidedAt.ini")
    with (
        pytest.raises(CorruptFileError, match=r"case/Slidedat\.ini is not what manifest\.json says"),
        staged.staged(remote, SLIDE),
    ):
        pass


def test_a_shard_that_is_not_the_manifests_is_refused(
    remote: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DHCTL_CACHE_DIR", str(tmp_path / "cache"))
    write_manifest(remote, [ManifestEntry("case.mrxs", len("content of case.mrxs"), "0" * 64)], "the scanner")
    with pytest.raises(CorruptFileError):
        cached(remote).read("case.mrxs")
    monkeypatch.setenv("DHCTL_CACHE_SIZE", "1")  # too small for it: the store itself is read
    with pytest.raises(CorruptFileError):
        cached(remote).read("case.mrxs")


def test_a_missing_file_is_told_as_that(remote: Store, cache_folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none is not in"), staged.staged(remote, ["none"]):
        pass


def test_no_disk_for_the_files_ends_the_job(remote: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not be told as a slide that cannot be read: those are left out."""

    def full(self: Store, key: str, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Store, "fetch", full)
    with pytest.raises(JobStoppedError, match=r"no space left for case\.mrxs"), staged.staged(remote, SLIDE):
        pass


def test_a_shard_is_read_from_the_cache_when_its_store_is_gone(
    remote: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DHCTL_CACHE_DIR", str(tmp_path / "cache"))
    shards = cached(remote)
    assert shards.read("case.mrxs") == b"content of case.mrxs"
    (Path(remote.url) / "case.mrxs").unlink()
    assert shards.read("case.mrxs") == b"content of case.mrxs"


def test_without_a_cache_the_store_itself_is_read(remote: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DHCTL_CACHE_DIR", raising=False)
    assert cached(remote) is remote


def test_what_comes_next_is_fetched_while_the_block_runs(
    remote: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DHCTL_CACHE_DIR", str(tmp_path / "cache"))
    with prefetched(remote, [*SLIDE, "none"]):
        end = time.monotonic() + 10
        while len(list((tmp_path / "cache").glob("objects/*/*"))) < len(SLIDE):
            assert time.monotonic() < end
            time.sleep(0.01)


def test_not_more_is_fetched_ahead_than_half_of_the_cache(
    remote: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DHCTL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DHCTL_CACHE_SIZE", "100")  # of files of 20 to 28 bytes
    monkeypatch.setattr(staged, "THREADS", 1)
    with prefetched(remote, SLIDE):
        time.sleep(0.5)
    assert len(list((tmp_path / "cache").glob("objects/*/*"))) == 2


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert read_manifest(store) is None
    entry = ManifestEntry("a", 1, "f" * 64, "12")
    write_manifest(store, [entry], "somewhere")
    assert read_manifest(store) == {"a": entry}


@pytest.mark.parametrize("content", ["{}", "[1]", '{"files": ["a", "b"]}', "no json"])
def test_a_manifest_of_another_program_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    assert read_manifest(open_store(str(tmp_path))) is None


@pytest.mark.parametrize("files", ["[{}]", '[{"key": "a", "size_bytes": 1, "sha256": "short"}]', "3"])
def test_a_damaged_manifest_is_told(tmp_path: Path, files: str) -> None:
    (tmp_path / MANIFEST).write_text(f'{{"maker": "dhctl data stage", "files": {files}}}')
    with pytest.raises(RefusedInputError, match="is damaged"):
        read_manifest(open_store(str(tmp_path)))
