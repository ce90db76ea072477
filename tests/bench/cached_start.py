"""A job's way to its data: the first start, which fetches slides from S3, beside a later one, which has a cache.

Each start is a process of its own, which stages and reads slide after slide, as `prepare` does. The S3 server is a real
one on this machine: a store elsewhere is slower, so the gain shown is the least there is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dhctl.ray_jobs.data.staged import prefetched, staged
from dhctl.ray_jobs.storage import open_store
from testbeds.object_store import object_store

SLIDES, SLIDE_BYTES = 24, 16 * 2**20
BUCKET = "slides"


@dataclass(frozen=True)
class Starts:
    """Seconds until all slides were read."""

    first_s: float
    """With a cache that is empty."""
    cached_s: float
    """With the cache that the first start left, each file compared with its checksum."""
    without_s: float
    """Without a cache."""


def cached_start(folder: Path) -> Starts:
    """Measures in a folder of one's own, which needs about 2 GB, and is emptied by the caller."""
    with object_store(folder / "s3") as store:
        store.make_bucket(BUCKET)
        for index in range(SLIDES):
            content = Random(index).randbytes(SLIDE_BYTES)
            store.client().put_object(Bucket=BUCKET, Key=f"{index:02}.bin", Body=content)
        env = {**os.environ, **store.env}
        cache = {"DHCTL_CACHE_DIR": str(folder / "cache")}
        return Starts(_seconds({**env, **cache}), _seconds({**env, **cache}), _seconds(env))


def _seconds(env: dict[str, str]) -> float:
    done = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def _read_all() -> float:
    store = open_store(f"s3://{BUCKET}")
    keys = [file.key for file in store.files()]
    began = time.monotonic()
    with prefetched(store, keys):
        for key in keys:
            with staged(store, [key]) as (path,):
                assert len(path.read_bytes()) == SLIDE_BYTES
    return time.monotonic() - began


if __name__ == "__main__":
    print(_read_all())
