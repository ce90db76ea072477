"""The lease: a keeper of its own ends the run at its time, also when the client is dead. With real processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dhctl.infra import lease, lease_keeper
from dhctl.infra.home import Home
from dhctl.infra.processes import ProcessMark, children
from dhctl.infra.record import RunRecord
from unit.conftest import Start
from unit.fakes import make_record, script

QUICK = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("keeper", sys.argv.pop(1))
keeper = importlib.util.module_from_spec(spec)
spec.loader.exec_module(keeper)
keeper.LOOK_EVERY_S, keeper.TRY_AGAIN_S, keeper.TRIES = 0.02, 0.02, 4
sys.exit(keeper.main())
"""
"""The keeper with shorter pauses."""

CLEAN = '{"clean": true}'


@pytest.fixture
def keep(start: Start, tmp_path: Path) -> Callable[..., int]:
    """Runs a keeper to its end; its exit status."""

    def keeping(record: Path, *command: str, until: float = 0.0) -> int:
        words = [sys.executable, "-IS", "-c", QUICK, lease_keeper.__file__, "--until", str(until)]
        words += ["--record", str(record), "--log", str(tmp_path / "lease.log"), "--", *command]
        with (tmp_path / "lease.log").open("ab") as log:
            return start(*words, stderr=log).wait(10)

    return keeping


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def tries(folder: Path) -> int:
    return len((folder / "tries").read_text().splitlines()) if (folder / "tries").exists() else 0


def down_that_is_clean_after(folder: Path, count: int) -> list[str]:
    code = f"echo x >> tries; echo trying; [ $(wc -l < tries) -ge {count} ] && echo '{CLEAN}' > receipt.json"
    return ["/bin/sh", "-c", f"cd {folder}; {code}"]


def test_the_run_is_ended_at_its_lease(run_folder: Path, keep: Callable[..., int], tmp_path: Path) -> None:
    end = time.time() + 0.15
    assert keep(run_folder, *down_that_is_clean_after(run_folder, 1), until=end) == 0
    assert time.time() >= end
    assert tries(run_folder) == 1
    assert (tmp_path / "lease.log").read_text() == "trying\n"


def test_it_is_tried_again_until_the_receipt_is_clean(run_folder: Path, keep: Callable[..., int]) -> None:
    (run_folder / "receipt.json").write_text('{"clean": false}')
    assert keep(run_folder, *down_that_is_clean_after(run_folder, 3)) == 0
    assert tries(run_folder) == 3


def test_it_gives_up_in_the_end(run_folder: Path, keep: Callable[..., int]) -> None:
    assert keep(run_folder, *down_that_is_clean_after(run_folder, 99)) == 1
    assert tries(run_folder) == 4


@pytest.mark.parametrize("gone", [True, False])
def test_it_leaves_early_when_the_run_is_over(run_folder: Path, keep: Callable[..., int], gone: bool) -> None:
    if gone:
        run_folder.rmdir()
    else:
        (run_folder / "receipt.json").write_text(CLEAN)
    assert keep(run_folder, *down_that_is_clean_after(run_folder, 1), until=4e9) == 0
    assert not run_folder.exists() or tries(run_folder) == 0


@pytest.mark.parametrize(
    "receipt",
    [
        '{"clean": false}',
        "{",
        "{}",
        "",
        pytest.param("[]"),
    ],
)
def test_a_receipt_that_is_not_clean_closes_nothing(run_folder: Path, receipt: str) -> None:
    (run_folder / "receipt.json").write_text(receipt)
    assert not lease_keeper.closed(run_folder)


def test_a_command_that_cannot_be_started_is_tried_again(run_folder: Path, keep: Callable[..., int]) -> None:
    assert keep(run_folder, str(run_folder / "absent")) == 1
    log = (run_folder.parent / "lease.log").read_text()
    assert "Traceback" not in log


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # that is what a keeper is for
def test_the_runs_keeper_lives_without_its_client_and_is_ended(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = script(tmp_path / "down", "print('asked to take it down')")
    monkeypatch.setattr(lease, "down_command", lambda run: [str(stand_in), run.run_id])
    record = make_record(home, lease="1h")
    lease.start_keeper(record)
    (keeper,) = lease.keepers(record.ledger)
    command = Path(f"/proc/{keeper.pid}/cmdline").read_bytes().split(b"\0")
    assert str(record.expires_at.timestamp()).encode() in command
    assert [x.remove_with for x in lease.look(record).found] == [f"kill {keeper.pid}"]
    lease.stop_keeper(record)
    assert not keeper.alive()
    assert lease.look(record).state == "none"
    lease.stop_keeper(record)  # twice is silent


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_down_that_waits_for_another_one_goes_with_its_keeper(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    stand_in = script(tmp_path / "down", "import time; time.sleep(60)")
    monkeypatch.setattr(lease, "down_command", lambda run: [str(stand_in), run.run_id])
    record = make_record(home)
    monkeypatch.setattr(RunRecord, "expires_at", datetime.now(UTC))
    lease.start_keeper(record)
    (keeper,) = lease.keepers(record.ledger)
    eventually(lambda: children(keeper.pid))
    (down,) = children(keeper.pid)
    lease.stop_keeper(record)
    assert not keeper.alive()
    assert not down.alive()


def test_the_command_ends_the_run_in_this_home(record: RunRecord) -> None:
    command = lease.down_command(record)
    assert command == [sys.executable, "-m", "dhctl.cli.main", "down", record.run_id, "--because", "lease ended"]


def test_a_keeper_of_an_earlier_boot_is_gone(record: RunRecord) -> None:
    mark = {**ProcessMark.me().to_dict(), "boot": "earlier"}
    record.ledger.done("lease.start", process=mark)
    assert list(lease.keepers(record.ledger)) == []
