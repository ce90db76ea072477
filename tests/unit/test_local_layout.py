"""The run folder: made private and marked, and removed only where it proves to be the run's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dhctl.infra.errors import ClusterError
from dhctl.infra.local.layout import LONGEST_SOCKET, RunFolder, scratch_root
from unit.fakes import make_spec

RUN = "dh-aaaabbbbcc"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "scratch", RUN)
    made.create()
    return made


def test_it_is_private_and_marked(folder: RunFolder) -> None:
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700
    assert folder.is_ours()
    with pytest.raises(FileExistsError):
        folder.create()


def test_removing_takes_all_of_it_and_twice_is_silent(folder: RunFolder) -> None:
    (folder.logs / "w-1.log").write_text("x")
    folder.remove()
    assert not folder.path.exists()
    assert folder.root.exists()  # the user's own
    folder.remove()


def test_the_default_root_goes_with_the_last_run(tmp_path: Path) -> None:
    root = tmp_path / f"dhctl-{os.getuid()}"
    one, two = RunFolder(root, RUN), RunFolder(root, "dh-ddddeeeeff")
    one.create()
    two.create()
    one.remove()
    assert two.is_ours()
    two.remove()
    assert not root.exists()


@pytest.mark.parametrize("mark", ['{"run": "dh-ddddeeeeff"}', "[]", '"x"', "{}", '{"run": null}'])
def test_a_folder_with_another_mark_stays(folder: RunFolder, mark: str) -> None:
    (folder.path / "mark.json").write_text(mark)
    folder.remove()
    assert folder.path.exists()


def test_a_folder_without_a_mark_stays_when_something_is_in_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RUN)
    folder.path.mkdir()
    (folder.path / "thesis.pdf").write_text("x")
    folder.remove()
    assert (folder.path / "thesis.pdf").exists()


@pytest.mark.parametrize("half", [None, "", "{"])
def test_a_folder_that_was_not_marked_yet_is_removed(tmp_path: Path, half: str | None) -> None:
    folder = RunFolder(tmp_path, RUN)
    folder.path.mkdir()
    if half is not None:
        (folder.path / "mark.json").write_text(half)
    folder.remove()
    assert not folder.path.exists()


def test_a_link_in_its_place_is_not_followed(folder: RunFolder, tmp_path: Path) -> None:
    folder.path.rename(tmp_path / "elsewhere")
    folder.path.symlink_to(tmp_path / "elsewhere")
    folder.remove()
    assert (tmp_path / "elsewhere" / "mark.json").exists()


def test_a_file_in_its_place_stays(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RUN)
    folder.path.write_text("x")
    folder.remove()
    assert folder.path.read_text() == "x"


def test_links_inside_are_not_followed(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "slide.svs").write_text("x")
    (folder.path / "data").symlink_to(tmp_path / "data")
    folder.remove()
    assert (tmp_path / "data" / "slide.svs").exists()


def test_a_root_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(ClusterError, match=r"belongs to another user; set local\.scratch to a folder of yours"):
        RunFolder(tmp_path, RUN).create()
    assert not RunFolder(tmp_path, RUN).is_ours()


def test_the_scratch_folder_is_the_specs_or_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scratch_root(make_spec(local={"scratch": str(tmp_path)})) == tmp_path
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # another shell's may differ, and then the run would not be found
    assert scratch_root(make_spec()) == Path(f"/tmp/dhctl-{os.getuid()}")


def test_the_longest_socket_is_as_long_as_a_real_one(tmp_path: Path) -> None:
    folder = RunFolder(Path("/r"), RUN)
    session = "session_2026-11-24_02-40-09_123456_4194304"
    for node in ("head-1a2b3c", "w-1a2b3c4d"):
        real = str(folder.ray_temp(node) / session / "sockets" / "plasma_store")
        assert len(real) <= len("/r" + LONGEST_SOCKET)
