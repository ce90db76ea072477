"""The cache of a node and of a site: fetched once, checked, bounded, shared by processes, resumed, never in the way."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pyarrow import fs

from dhctl.ray_jobs.data import cache as cache_module
from dhctl.ray_jobs.data import objects, staged
from dhctl.ray_jobs.data.cache import Cache, CorruptFileError, Wanted, cache_from
from dhctl.ray_jobs.data.holding import CacheRefusedError
from dhctl.ray_jobs.data.objects import ObjectFolder
from dhctl.ray_jobs.data.patience import Patience
from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.storage import Store

MIB = 2**20


@dataclass(frozen=True)
class CountingStore(Store):
    """A folder that counts as remote, and notes what is read from it."""

    asked: list[tuple[str, int]] = field(default_factory=list, compare=False)
    """Key, and from which byte on."""
    breaks_after: list[int] = field(default_factory=list, compare=False)
    """Bytes after which a copy breaks off, one a copy."""

    def chunks(self, key: str, start: int = 0) -> Iterator[bytes]:
        self.asked.append((key, start))
        limit = self.breaks_after.pop(0) if self.breaks_after else None
        content = (Path(self.url) / key).read_bytes()[start:limit]
        for at in range(0, len(content), MIB // 4):
            yield content[at : at + MIB // 4]
        if limit is not None:
            raise ConnectionResetError


@pytest.fixture(autouse=True)
def _a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered from other tests, and the disk of this machine may be as full as it is."""
    monkeypatch.setattr(cache_module, "_checked", set())
    monkeypatch.setattr(cache_module, "_told", set())
    monkeypatch.setattr(staged, "_manifests", {})
    monkeypatch.setattr(staged, "_wanted", {})
    monkeypatch.setattr(objects, "KEPT_FREE", 0.0)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def remote(tmp_path: Path, told: list[str]) -> CountingStore:
    folder = tmp_path / "remote"
    folder.mkdir()
    for index in range(6):
        (folder / f"{index}.bin").write_bytes(bytes([index]) * MIB)
    inside = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
    return CountingStore(inside, "", str(folder), patience=Patience(0, told.append))


@pytest.fixture
def node(tmp_path: Path) -> Cache:
    """It holds three files, and the share that is freed beyond what is needed."""
    return Cache(ObjectFolder(tmp_path / "node", 3 * MIB + MIB // 3))


def wanted(store: Store, key: str, sha256: str | None = None) -> Wanted:
    path = Path(store.url) / key
    return Wanted(store, key, path.stat().st_size, str(path.stat().st_mtime_ns), sha256)


def names(cache: Cache) -> set[str]:
    """Which of the numbered files are in it."""
    contents = {path.read_bytes()[0] for path in cache.objects.folder.glob("objects/*/*")}
    return {f"{index}.bin" for index in contents}


def test_a_file_is_fetched_once_and_kept_under_its_checksum(remote: CountingStore, node: Cache) -> None:
    for _ in range(2):
        with node.hold(wanted(remote, "1.bin")) as held:
            assert held.path.read_bytes() == b"\1" * MIB
            assert held.path.name == hashlib.sha256(b"\1" * MIB).hexdigest()
    assert remote.asked == [("1.bin", 0)]
    assert list(node.objects.folder.glob("partial/*")) == []


def test_equal_content_is_kept_once_and_a_changed_file_is_fetched_anew(remote: CountingStore, node: Cache) -> None:
    (Path(remote.url) / "twin.bin").write_bytes(b"\1" * MIB)
    with node.hold(wanted(remote, "1.bin")) as first, node.hold(wanted(remote, "twin.bin")) as second:
        assert first.path == second.path
    (Path(remote.url) / "1.bin").write_bytes(b"\5" * MIB)
    with node.hold(wanted(remote, "1.bin")) as held:
        assert held.path.read_bytes()[:1] == b"\5"


def test_the_bound_holds_and_what_was_used_longest_ago_goes(remote: CountingStore, node: Cache) -> None:
    for key in ("0.bin", "1.bin", "2.bin", "0.bin", "3.bin"):
        node.hold(wanted(remote, key)).close()
    assert names(node) == {"0.bin", "2.bin", "3.bin"}
    assert len(list(node.objects.folder.glob("names/*/*"))) == 3, "names of what is gone are forgotten"


def test_what_is_in_use_is_never_evicted(remote: CountingStore, node: Cache) -> None:
    with node.hold(wanted(remote, "0.bin")) as oldest:
        for key in ("1.bin", "2.bin", "3.bin"):
            node.hold(wanted(remote, key)).close()
        assert oldest.path.exists()
        with (
            node.hold(wanted(remote, "1.bin")),
            node.hold(wanted(remote, "2.bin")),
            pytest.raises(CacheRefusedError, match="all of it is in use"),
        ):
            node.hold(wanted(remote, "4.bin"))
    assert "0.bin" in names(node)


def test_a_file_larger_than_the_cache_is_refused(remote: CountingStore, node: Cache) -> None:
    (Path(remote.url) / "large.bin").write_bytes(b"x" * 4 * MIB)
    node.hold(wanted(remote, "0.bin")).close()
    with pytest.raises(CacheRefusedError, match="larger than the cache"):
        node.hold(wanted(remote, "large.bin"))
    assert names(node) == {"0.bin"}, "nothing is evicted for what cannot come"


def test_a_broken_download_goes_on_where_it_stopped(remote: CountingStore, node: Cache) -> None:
    remote.breaks_after.append(MIB // 2)
    with pytest.raises(ConnectionResetError):
        node.hold(wanted(remote, "1.bin"))
    with node.hold(wanted(remote, "1.bin")) as held:
        assert held.path.read_bytes() == b"\1" * MIB
    assert remote.asked == [("1.bin", 0), ("1.bin", MIB // 2)]


def test_a_damaged_object_is_noticed_and_fetched_again(
    remote: CountingStore, node: Cache, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with node.hold(wanted(remote, "1.bin")) as held:
        path = held.path
    with path.open("r+b") as stream:
        stream.write(b"damaged")
    monkeypatch.setattr(cache_module, "_checked", set())  # as another process finds it
    with node.hold(wanted(remote, "1.bin")) as held:
        assert held.path.read_bytes() == b"\1" * MIB
    assert told == [f"1.bin was damaged in the cache {node.objects.folder}; it is fetched again"]
    assert len(remote.asked) == 2


def test_a_garbled_partial_download_is_begun_anew_when_the_checksum_is_known(
    remote: CountingStore, node: Cache
) -> None:
    right = wanted(remote, "1.bin", hashlib.sha256(b"\1" * MIB).hexdigest())
    part = node.objects.folder / "partial" / f"{right.reference}.{MIB}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\0" * (MIB // 2))
    with node.hold(right) as held:
        assert held.path.read_bytes() == b"\1" * MIB
    assert remote.asked == [("1.bin", MIB // 2), ("1.bin", 0)]


def test_content_that_is_not_the_manifests_is_refused(remote: CountingStore, node: Cache) -> None:
    with pytest.raises(CorruptFileError, match=r"1\.bin is not what manifest\.json says"):
        node.hold(wanted(remote, "1.bin", "0" * 64))
    assert names(node) == set()


def test_a_file_that_changes_while_it_is_copied_is_refused(remote: CountingStore, node: Cache) -> None:
    before = wanted(remote, "1.bin")
    (Path(remote.url) / "1.bin").write_bytes(b"\1" * 10)
    with pytest.raises(CorruptFileError, match=f"has 10 bytes, not {MIB}: it changed meanwhile"):
        node.hold(before)


def test_a_site_asks_the_store_once_for_all_its_nodes(remote: CountingStore, tmp_path: Path) -> None:
    site = Cache(ObjectFolder(tmp_path / "site", 10 * MIB))
    for node in ("a", "b"):
        Cache(ObjectFolder(tmp_path / node, 3 * MIB), beyond=site).hold(wanted(remote, "1.bin")).close()
    assert remote.asked == [("1.bin", 0)]
    assert names(site) == {"1.bin"}


def test_a_site_cache_that_cannot_be_used_is_passed_by(remote: CountingStore, tmp_path: Path, told: list[str]) -> None:
    (tmp_path / "site").write_text("no folder")
    cache = Cache(ObjectFolder(tmp_path / "node", 3 * MIB), Cache(ObjectFolder(tmp_path / "site", 3 * MIB)))
    for key in ("1.bin", "2.bin"):
        cache.hold(wanted(remote, key)).close()
    (warned,) = told
    assert "cannot be used" in warned
    assert names(cache) == {"1.bin", "2.bin"}


def hold_all(remote: str, cache: str) -> None:
    """What each of two processes does: holds all files, and prints how many it had to fetch."""
    inside = fs.SubTreeFileSystem(remote, fs.LocalFileSystem())
    store, mine = CountingStore(inside, "", remote), Cache(ObjectFolder(Path(cache), 10 * MIB))
    for index in range(6):
        with mine.hold(wanted(store, f"{index}.bin")) as held:
            assert held.path.read_bytes() == bytes([index]) * MIB
    print(len(store.asked))  # noqa: T201 - to the test


def test_two_processes_at_once_fetch_each_file_once(remote: CountingStore, tmp_path: Path) -> None:
    program = "import sys; from jobs.test_data_cache import hold_all; hold_all(*sys.argv[1:])"
    command = [sys.executable, "-c", program, remote.url, str(tmp_path / "node")]
    tests = Path(__file__).parents[1]
    both = [subprocess.Popen(command, cwd=tests, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    fetched = [int(process.communicate(timeout=60)[0]) for process in both]
    assert sum(fetched) == 6


def test_a_process_that_is_killed_lets_go_of_what_it_held(remote: CountingStore, node: Cache) -> None:
    with node.hold(wanted(remote, "0.bin")) as held:
        program = f"import fcntl, os; d = os.open({str(held.path)!r}, os.O_RDONLY); fcntl.flock(d, fcntl.LOCK_SH); "
        holder = subprocess.Popen(
            ["python3", "-c", program + "print('held', flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for key in ("1.bin", "2.bin", "3.bin"):
            node.hold(wanted(remote, key)).close()
        assert "0.bin" in names(node)
        holder.kill()
    node.hold(wanted(remote, "4.bin")).close()
    assert "0.bin" not in names(node)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system to fill")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_costs_what_was_used_longest_ago_then_the_cache(
    remote: CountingStore, small_disk: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(ObjectFolder(small_disk / "cache", 100 * MIB))
    for index in range(5):
        cache.hold(wanted(remote, f"{index}.bin")).close()
    assert "0.bin" not in names(cache)
    assert "4.bin" in names(cache)
    monkeypatch.setenv("DHCTL_CACHE_DIR", str(small_disk / "cache"))
    for path in small_disk.glob("cache/objects/*/*"):
        path.unlink()
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "others").write_bytes(b"x" * 8 * MIB)
    with staged.staged(remote, ["5.bin"]) as (path,):
        assert path.read_bytes() == b"\5" * MIB
    (warned,) = told
    assert "the job goes on without it" in warned


def test_a_disk_that_others_fill_meanwhile_makes_room_by_evicting(
    remote: CountingStore, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is told to be empty, so that the lack of room is met while writing."""
    monkeypatch.setattr(objects.shutil, "disk_usage", lambda folder: _Disk())
    cache = Cache(ObjectFolder(small_disk / "cache", 100 * MIB))
    for index in range(5):
        cache.hold(wanted(remote, f"{index}.bin")).close()
    assert "4.bin" in names(cache)
    assert len(names(cache)) < 4


@dataclass(frozen=True)
class _Disk:
    total: int = 10**9
    free: int = 10**9


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    assert cache_from({}) is None
    assert cache_from({"DHCTL_CACHE_DIR": "", "DHCTL_SITE_CACHE_DIR": ""}) is None
    found = cache_from({"DHCTL_CACHE_DIR": "/n", "DHCTL_CACHE_SIZE": "5", "DHCTL_SITE_CACHE_DIR": "/s"})
    assert found is not None
    assert found.objects == ObjectFolder(Path("/n"), 5)
    assert found.beyond is not None
    assert found.beyond.objects.folder == Path("/s")
    only_site = cache_from({"DHCTL_SITE_CACHE_DIR": "/s"})
    assert only_site is not None
    assert only_site.objects.folder == Path("/s")
    with pytest.raises(RefusedInputError, match="DHCTL_CACHE_SIZE is '20GiB'; set it to a number of bytes"):
        cache_from({"DHCTL_CACHE_DIR": "/n", "DHCTL_CACHE_SIZE": "20GiB"})


def test_small_files_come_without_looking_through_the_cache_each_time(
    remote: CountingStore, node: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    entries = ObjectFolder._entries
    monkeypatch.setattr(ObjectFolder, "_entries", lambda self: looked.append(1) or entries(self))
    for index in range(400):
        (Path(remote.url) / f"{index}.txt").write_bytes(index.to_bytes(2, "big") * (MIB // 100))
        node.hold(wanted(remote, f"{index}.txt")).close()
    assert sum(path.stat().st_size for path in node.objects.folder.glob("objects/*/*")) <= node.objects.size_bytes
    assert len(looked) < 50


def test_a_volume_may_be_mounted_elsewhere_on_another_node(remote: CountingStore, node: Cache, tmp_path: Path) -> None:
    for key in ("1.bin", "2.bin"):
        node.hold(wanted(remote, key)).close()
    node.objects.folder.rename(tmp_path / "moved")
    elsewhere = Cache(ObjectFolder(tmp_path / "moved", 2 * MIB + MIB // 5))
    elsewhere.hold(wanted(remote, "3.bin")).close()
    assert names(elsewhere) == {"2.bin", "3.bin"}
    elsewhere.hold(wanted(remote, "2.bin")).close()
    assert [key for key, _ in remote.asked] == ["1.bin", "2.bin", "3.bin"], "the name of what stayed is known here too"


def test_a_volume_without_locks_is_passed_by(
    remote: CountingStore, node: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(self: object, **_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr("filelock.FileLock.acquire", no_locks)
    with pytest.raises(CacheRefusedError, match="carries no locks"):
        node.hold(wanted(remote, "1.bin"))
