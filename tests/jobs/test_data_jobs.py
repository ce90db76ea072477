"""The prostate job on slides of a store that is not this machine's: through the cache, and when the store is away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pyarrow import fs

from dhctl.ray_jobs.data import objects, staged
from dhctl.ray_jobs.data.patience import Patience
from dhctl.ray_jobs.environment import JobStoppedError
from dhctl.ray_jobs.pipeline.spread import InThisProcess
from dhctl.ray_jobs.prostate.preparation import prepare
from dhctl.ray_jobs.storage import Store, open_store
from jobs.sample_slides import quick_settings, write_cohort

HERE = InThisProcess()


@dataclass(frozen=True)
class RemoteStore(Store):
    """A folder that counts as remote; notes which slides leave it, and is away after so many."""

    sent: list[str] = field(default_factory=list, compare=False)
    away_after: int = 10**9

    def chunks(self, key: str, start: int = 0) -> Iterator[bytes]:
        self.sent.append(key)
        if len(self.sent) > self.away_after:
            self.patience.ask(self._nobody, self.told)
        yield from super().chunks(key, start)

    def _nobody(self) -> None:
        raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module, name, value in ((staged, "_manifests", {}), (objects, "KEPT_FREE", 0.0)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setenv("DHCTL_CACHE_DIR", str(tmp_path / "cache"))
    write_cohort(tmp_path / "data")
    return tmp_path


def remote(folder: Path, away_after: int = 10**9) -> RemoteStore:
    inside = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
    patience = Patience(0.0, lambda text: None)
    return RemoteStore(inside, "data", "s3://slides", "s3.site-a", patience, away_after=away_after)


def test_slides_come_once_and_are_cut_from_the_cache_the_next_time(folder: Path) -> None:
    first, second = remote(folder), remote(folder)
    there = prepare(first, open_store(str(folder / "shards")), quick_settings(), HERE)
    assert sorted(first.sent) == sorted(f"train_images/slide-{index}.tiff" for index in range(12))
    again = prepare(second, open_store(str(folder / "other-shards")), quick_settings(), HERE)
    assert second.sent == []
    plain = prepare(open_store(str(folder / "data")), open_store(str(folder / "third")), quick_settings(), HERE)
    assert there.digest == again.digest == plain.digest


def test_a_store_that_stays_away_ends_the_job_and_skips_no_slide(folder: Path) -> None:
    data = remote(folder, away_after=5)
    with pytest.raises(JobStoppedError, match=r"s3://slides \(endpoint s3\.site-a\) does not answer"):
        prepare(data, open_store(str(folder / "shards")), quick_settings(), HERE)
    done = prepare(remote(folder), open_store(str(folder / "shards")), quick_settings(), HERE)
    assert len(done.bags) == 12
    assert done.skipped == ()
