"""dhctl's own folder, and the ownership mark."""

from __future__ import annotations

import errno
import json
import stat
from pathlib import Path

import pytest

from dhctl.infra.errors import RefusedError, StateFolderError
from dhctl.infra.home import FORMAT, Home, default_root, storage_errors
from dhctl.infra.mark import RUN_ID, new_run_id


def test_run_ids_are_marks_and_differ() -> None:
    ids = {new_run_id() for _ in range(200)}
    assert len(ids) == 200
    assert all(RUN_ID.fullmatch(i) for i in ids)


@pytest.mark.parametrize("wrong", ["dh-", "dh-ABCDEFGHIJ", "dh-abcdefghi", "dh-abcdefghijk", "dh-abcdefgh01", "lock"])
def test_other_words_are_no_marks(wrong: str) -> None:
    assert not RUN_ID.fullmatch(wrong)


def test_home_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DHCTL_HOME", str(tmp_path / "mine"))
    assert default_root() == tmp_path / "mine"
    monkeypatch.setenv("DHCTL_HOME", "~/mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == tmp_path / "mine"
    monkeypatch.delenv("DHCTL_HOME")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert default_root() == tmp_path / ".local" / "share" / "dhctl"


def test_prepare_makes_a_private_folder_of_this_format(home: Home) -> None:
    home.prepare()
    assert json.loads((home.root / "format").read_text()) == {"format": FORMAT}
    assert stat.S_IMODE(home.runs.stat().st_mode) == 0o700
    home.prepare()  # twice is silent


def test_looking_writes_nothing(home: Home) -> None:
    home.check_format()
    assert not home.root.exists()


def test_a_newer_format_is_refused_with_the_next_step(home: Home) -> None:
    home.root.mkdir()
    (home.root / "format").write_text('{"format": 99}')
    with pytest.raises(
        StateFolderError, match=r"written by a newer dhctl \(format 99, .* 1\); upgrade dhctl, or set DHCT"
    ):
        home.prepare()
    assert not home.runs.exists()


@pytest.mark.parametrize("broken", ["", "{", "[]", "{}", "\xff"])
def test_a_broken_format_file_is_refused(home: Home, broken: str) -> None:
    home.root.mkdir()
    (home.root / "format").write_bytes(broken.encode("latin-1"))
    with pytest.raises(StateFolderError, match="cannot be read"):
        home.check_format()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(StateFolderError):
        Home(tmp_path / "home").prepare()


def test_a_file_above_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateFolderError):
        Home(tmp_path / "file" / "home").prepare()


def test_a_file_in_the_place_of_the_runs_is_refused(home: Home) -> None:
    home.root.mkdir()
    home.runs.write_text("")
    with pytest.raises(StateFolderError, match="cannot write"):
        home.prepare()


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "no space left under /place; free some"),
        (errno.EDQUOT, "no space left under /place; free some"),
        (errno.EACCES, "cannot write in /place"),
        (errno.EROFS, "cannot write in /place"),
    ],
)
def test_errors_of_the_storage_become_sentences(number: int, told: str) -> None:
    with pytest.raises(RefusedError, match=told), storage_errors(Path("/place")):
        raise OSError(number, "told by the kernel")


def test_other_errors_of_the_system_stay_what_they_are() -> None:
    with pytest.raises(OSError, match="loop"), storage_errors(Path("/place")):
        raise OSError(errno.ELOOP, "loop")
