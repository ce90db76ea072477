"""A disk that is full, or becomes full, costs a sentence and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.driver import Dhctl, assert_cluster_gone, assert_gone

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system to fill")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@needs_root
def test_run_folder_on_a_disk_that_is_too_small(dhctl: Dhctl, small_disk: Path) -> None:
    scratch = Path("/tmp") / f"d{os.getpid()}"  # sockets need a short path
    scratch.symlink_to(small_disk)
    try:
        ended = dhctl("run", dhctl.spec("pair", local={"scratch": str(scratch)}))
    finally:
        scratch.unlink()
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "are free; free some or set local.scratch" in ended.stderr
    assert dhctl.records() == []


@needs_root
def test_no_space_for_the_record(dhctl: Dhctl, small_disk: Path) -> None:
    subprocess.run(["dd", "if=/dev/zero", f"of={small_disk}/full"], stderr=subprocess.DEVNULL, check=False)
    assert shutil.disk_usage(small_disk).free == 0
    dhctl.env["DHCTL_HOME"] = str(small_disk / "home")
    ended = dhctl("run", dhctl.spec("pair"))
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "no space left under" in ended.stderr


@needs_root
def test_the_job_fills_the_disk_on_which_its_record_lies(dhctl: Dhctl, small_disk: Path) -> None:
    dhctl.home = small_disk / "home"
    dhctl.env["DHCTL_HOME"] = str(dhctl.home)
    ended = dhctl("run", dhctl.spec("fill"))
    record = dhctl.record()
    assert_cluster_gone(record)  # the lease keeper may live on: it would try again
    # whether Pulumi can still write that its stack is empty hangs on the last bytes; if not, the user is told
    assert ended.returncode in (1, 4, 5), ended.stdout + ended.stderr
    assert (f"dhctl down {record.run_id}" in ended.stderr) == (ended.returncode == 5)
    (Path(record.output) / "big").unlink()
    again = dhctl("down", record.run_id)
    assert again.returncode == 0, again.stdout + again.stderr
    assert_gone(record)
