"""What is lost is made good: a worker, a head, a client that is killed. The job goes on from its last checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from dhctl.infra.processes import listeners, wait_until
from dhctl.infra.record import RunRecord, RunState
from e2e.driver import Dhctl, assert_gone
from e2e.losses import EPOCHS, assert_went_on, at_epoch, epochs, kill_node, noted_steps, result, resumed_s
from testbeds.object_store import object_store


def _kill(client: subprocess.Popen[str]) -> None:
    client.send_signal(signal.SIGKILL)
    client.wait(10)


def _noted(record: RunRecord) -> list[str]:
    return [path.name for path in (Path(record.output) / "steps").iterdir()]


def test_a_head_that_is_killed_is_replaced_and_the_job_goes_on(dhctl: Dhctl) -> None:
    client = dhctl.start("run", dhctl.spec("steps"))
    record = dhctl.until(at_epoch(3))
    kill_node(record, "head")
    said, _ = client.communicate(timeout=200)
    assert client.returncode == 0, said
    assert "the head is lost: its processes have ended" in said
    assert "clean: nothing is left" in said
    assert_gone(record)
    assert_went_on(record, _noted(record), after=3)
    assert json.loads(record.receipt_path.read_text())["created"]["heads"] == 2


@pytest.mark.slow
def test_a_head_that_may_not_be_replaced_ends_the_run(dhctl: Dhctl) -> None:
    client = dhctl.start("run", dhctl.spec("steps", job={"head_restarts": 0}))
    record = dhctl.until(at_epoch(1))
    kill_node(record, "head")
    said, _ = client.communicate(timeout=120)
    assert client.returncode == 4, said
    assert "job.head_restarts is 0" in said
    assert_gone(record)


@pytest.mark.thorough
def test_a_client_that_is_killed_is_followed_by_another_one(dhctl: Dhctl) -> None:
    assert dhctl("up", dhctl.spec("steps")).returncode == 0
    first = dhctl.start("train", "steps")
    record = dhctl.until(at_epoch(2))
    busy = dhctl("train", "--attach", "steps")
    assert busy.returncode == 1
    assert "another dhctl follows the job" in busy.stderr
    _kill(first)
    known = epochs(record, 1)
    assert "--attach" in dhctl("train", "steps").stderr, "train names the way to go on"

    attached = dhctl("train", "--attach", "steps", "--json")
    assert attached.returncode == 0, attached.stdout + attached.stderr
    told = [json.loads(line) for line in attached.stdout.splitlines()]
    shown = [event["step"] for event in told if event["event"] == "JobProgressed"]
    assert shown == list(range(len(known) + 1, EPOCHS + 1)), "from where the record ends"
    assert epochs(record, 1) == list(range(1, EPOCHS + 1))
    assert result(record, 1)["status"] == "SUCCEEDED"
    assert result(record, 1)["result"] == {"epochs": EPOCHS, "began_after": 0}
    assert record.state() is RunState.UP

    later = dhctl("train", "--attach", "steps")
    assert later.returncode == 0, later.stdout + later.stderr
    assert "job 1 has ended already" in later.stdout
    down = dhctl("down", "steps")
    assert down.returncode == 0, down.stdout + down.stderr
    assert_gone(record)


@pytest.mark.slow
def test_a_head_that_dies_while_nobody_looks_is_replaced_by_who_attaches(dhctl: Dhctl) -> None:
    """Also after another one who attached was killed at it, with the engine in the middle of its work."""
    client = dhctl.start("run", dhctl.spec("steps"))
    record = dhctl.until(at_epoch(2))
    _kill(client)
    kill_node(record, "head")
    _kill_while_it_makes_a_head(dhctl, dhctl.start("train", "--attach", "steps"))
    assert record.state() is RunState.RECOVERING
    attached = dhctl("train", "--attach", "steps")
    assert attached.returncode == 0, attached.stdout + attached.stderr
    assert_went_on(record, _noted(record), after=2, broken_off=1)
    assert dhctl("down", "steps").returncode == 0
    assert_gone(record)


def _kill_while_it_makes_a_head(dhctl: Dhctl, client: subprocess.Popen[str]) -> None:
    dhctl.until(lambda record: sum(e.act == "head.start" and e.phase == "intent" for e in record.ledger.entries()) == 2)
    _kill(client)


@pytest.mark.slow
def test_a_stop_while_the_job_is_taken_up_stops_it(dhctl: Dhctl) -> None:
    assert dhctl("up", dhctl.spec("hang")).returncode == 0
    first = dhctl.start("train", "hang")
    record = dhctl.until(at_epoch(1))
    _kill(first)
    second = dhctl.start("train", "--attach", "hang")
    assert wait_until(lambda: _is_followed(record), 30, every_s=0.2)
    second.send_signal(signal.SIGINT)
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 130, said
    assert record.state() is RunState.UP
    assert dhctl("down", "hang").returncode == 0


def _is_followed(record: RunRecord) -> bool:
    """Whether some process holds the lock of those who follow the job."""
    tried = ["flock", "--nonblock", "--no-fork", str(record.folder / "job.lock"), "true"]
    return subprocess.run(tried, capture_output=True, check=False).returncode != 0


@pytest.mark.slow
def test_a_store_that_is_away_is_waited_for_and_one_that_stays_away_ends_the_run(dhctl: Dhctl, tmp_path: Path) -> None:
    with object_store(tmp_path / "s3") as store:
        dhctl.env |= {**store.env, "DHCTL_STORE_PATIENCE_S": "8"}
        client = dhctl.start("run", dhctl.spec("steps", output=store.make_bucket("runs")))
        record = dhctl.until(at_epoch(2))
        server = next(found.pid for found in listeners() if store.endpoint_url.endswith(f":{found.port}"))
        assert server
        os.kill(server, signal.SIGSTOP)
        time.sleep(5)
        os.kill(server, signal.SIGCONT)
        dhctl.until(at_epoch(5))
    said, _ = client.communicate(timeout=120)
    assert client.returncode == 4, said
    assert "does not answer" in said
    assert "could not be copied to s3://runs" in said
    assert "clean: nothing is left" in said
    assert result(record, 1)["status"] == "FAILED"
    assert_gone(record)


NOTED_EPOCHS, NOTED_SAMPLES = 8, 40
"""As tests/e2e/jobs/noted.py and noted_task.py have them."""

RESUME_S = 30.0
"""From a worker's end to the next step of training, on a machine that does nothing else."""


def test_a_worker_that_is_killed_costs_no_sample_and_changes_no_metric(
    dhctl: Dhctl, record_property: Callable[[str, object], None]
) -> None:
    client = dhctl.start("run", dhctl.spec("noted"))
    record = dhctl.until(at_epoch(4))  # the first line says that training begins
    killed_at = time.time()
    kill_node(record, "worker")
    said, _ = client.communicate(timeout=240)
    assert client.returncode == 0, said
    found = result(record, 1)["result"]
    assert found["epochs"] == NOTED_EPOCHS
    assert abs(found["ray"] - found["undisturbed"]) < 1e-4, "as if nobody had been killed"
    kept = [json.loads(line)["epoch"] for line in (Path(record.output) / "metrics.jsonl").read_text().splitlines()]
    assert kept == list(range(1, NOTED_EPOCHS + 1)), "each epoch once"

    steps = noted_steps(record)
    draws = Counter(draw for step in steps for draw in step["draws"])
    assert len(draws) == NOTED_EPOCHS * NOTED_SAMPLES, "none was skipped"
    assert sum(draws.values()) - len(draws) <= NOTED_SAMPLES, "and none of more than one epoch was done again"
    took_s = resumed_s(steps, killed_at)
    record_property("resume_after_worker_kill_s", round(took_s, 1))
    assert took_s < 3 * RESUME_S, "three times what it takes on a quiet machine"
