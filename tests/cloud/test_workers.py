"""Workers come, fail, die and are adopted: the autoscaler on the head, seen from the client."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from openstack.connection import Connection

from cloud.runs import CloudRuns, workers
from cloud.things import remove_server
from dhctl.infra.errors import ClusterError
from dhctl.infra.processes import wait_until
from dhctl.infra.record import RunRecord
from testbeds.openstack.conditions import quota
from testbeds.openstack.fixtures import OpenStackCloud

JOIN_S = 150
KEPT = {"min": 1, "max": 2, "memory": "512MiB", "idle_timeout": "8s"}


def names(cloud: Connection, record: RunRecord) -> set[str]:
    return {s.name for s in cloud.compute.servers() if s.name.startswith(f"{record.run_id}-w-")}


def joined(record: RunRecord, wanted: int) -> bool:
    """Whether Ray has this many workers; a Ray that does not answer now has none."""
    try:
        return workers(record) == wanted
    except ClusterError:  # the head is starting again
        return False


@pytest.mark.thorough
def test_a_lost_worker_is_replaced_and_a_new_head_adopts_the_living(dhctl: CloudRuns, cloud: Connection) -> None:
    up = dhctl("up", dhctl.spec("pair", workers=KEPT))
    assert up.returncode == 0, up.stdout + up.stderr
    record = dhctl.record()
    (first,) = names(cloud, record)
    remove_server(cloud, cloud.compute.find_server(first, ignore_missing=False).id)
    assert wait_until(lambda: len(names(cloud, record) - {first}) == 1, JOIN_S, every_s=2), "no worker took its place"
    assert wait_until(lambda: joined(record, 1), JOIN_S, every_s=2)
    (second,) = names(cloud, record)
    assert second != first, "ids are never used again"

    killed = dhctl("ssh", record.run_id, "--", "sudo", "pkill", "-9", "-x", "gcs_server")
    assert killed.returncode == 0, killed.stderr
    time.sleep(10)  # until it has noticed
    assert wait_until(lambda: joined(record, 1), JOIN_S, every_s=2), "the head did not come back with its worker"
    assert names(cloud, record) == {second}, "the worker was adopted, and none was made beside it"
    down = dhctl("down", record.run_id)
    assert down.returncode == 0, down.stdout + down.stderr


@pytest.mark.thorough
def test_workers_that_cannot_start_are_told_with_the_reason(dhctl: CloudRuns) -> None:
    up = dhctl("up", dhctl.spec("pair", workers=KEPT, openstack={"flavor": "m1.fail", "head_flavor": "m1.small"}))
    assert up.returncode == 1, up.stdout + up.stderr
    assert "a worker did not start:" in up.stdout
    assert "the testbed was told to fail it" in up.stderr
    assert "1 workers are always kept, but only 0 joined in time" in up.stderr


@pytest.mark.thorough
def test_a_quota_that_shrinks_later_is_met_with_patience(
    dhctl: CloudRuns, cloud: Connection, openstack_cloud: OpenStackCloud
) -> None:
    up = dhctl("up", dhctl.spec("pair"))
    assert up.returncode == 0, up.stdout + up.stderr
    record = dhctl.record()
    used = len(list(cloud.compute.servers()))
    with quota(openstack_cloud.admin(), "compute", instances=used):
        train = dhctl.start("train", record.run_id)
        assert wait_until(lambda: "instances" in _events(dhctl, record), 90, every_s=3), "the refusal is told"
        assert names(cloud, record) == set()
    told, _ = train.communicate(timeout=300)
    assert train.returncode == 0, told
    assert len(names(cloud, record)) <= 2
    down = dhctl("down", record.run_id)
    assert down.returncode == 0, down.stdout + down.stderr


def _events(dhctl: CloudRuns, record: RunRecord) -> str:
    """What the head's autoscaler told of refused and failed workers."""
    shown = dhctl("ssh", record.run_id, "--", "sudo", "cat", "/var/lib/dhctl/log/events.jsonl").stdout
    events = [json.loads(line) for line in shown.splitlines()]
    return " ".join(str(e.get("reason", "")) for e in events if e["kind"] in ("refused", "failed"))


@pytest.mark.thorough
def test_the_limit_of_workers_is_held(dhctl: CloudRuns, cloud: Connection) -> None:
    many = Path(__file__).parent / "jobs"
    job = {"folder": str(many), "entrypoint": "python many.py"}
    up = dhctl("up", dhctl.spec("pair", job=job))
    assert up.returncode == 0, up.stdout + up.stderr
    record = dhctl.record()
    train = dhctl.start("train", record.run_id)
    seen: set[int] = set()
    end = time.monotonic() + 240
    while train.poll() is None and time.monotonic() < end:
        seen.add(len(names(cloud, record)))
        time.sleep(1)
    told, _ = train.communicate(timeout=60)
    assert train.returncode == 0, told
    assert max(seen) == 2, "four at a time were wanted, two is the limit"
    down = dhctl("down", record.run_id)
    assert down.returncode == 0, down.stdout + down.stderr
