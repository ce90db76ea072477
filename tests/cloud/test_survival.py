"""Servers that are lost while a job trains: the head is made again and the job goes on, a worker costs a restart."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import pytest
from openstack.connection import Connection

from cloud.runs import CloudRuns
from cloud.test_workers import names
from cloud.things import remove_server
from dhctl.infra.ledger import last
from dhctl.infra.record import RunRecord
from e2e.losses import assert_went_on, at_epoch, result
from testbeds.object_store import ObjectStore

WORKERS = {"min": 0, "max": 2, "memory": "512MiB", "idle_timeout": "30s"}


def noted(store: ObjectStore, dhctl: CloudRuns, record: RunRecord) -> list[str]:
    """Names of what the job wrote below `steps/`."""
    keys = store.objects("runs", f"{dhctl.folder.name}/{record.run_id}/steps/")
    return [PurePosixPath(key).name for key in keys]


def clean(record: RunRecord) -> bool:
    """Whether the receipt says so."""
    return bool(json.loads(record.receipt_path.read_text())["clean"])


@pytest.mark.thorough
def test_a_heads_server_that_is_deleted_is_made_again_and_the_job_goes_on(
    dhctl: CloudRuns, cloud: Connection, s3_server: ObjectStore
) -> None:
    run = dhctl.start("run", dhctl.spec("steps", workers=WORKERS))
    record = dhctl.until(at_epoch(3), timeout_s=400)
    remove_server(cloud, cloud.compute.find_server(f"{record.run_id}-head", ignore_missing=False).id)
    said, _ = run.communicate(timeout=600)
    assert run.returncode == 0, said
    assert "the head is lost: server" in said
    assert_went_on(record, noted(s3_server, dhctl, record), after=3)
    assert clean(record)


@pytest.mark.slow
def test_a_job_goes_on_after_its_heads_server_was_rebooted(
    dhctl: CloudRuns, cloud: Connection, s3_server: ObjectStore
) -> None:
    run = dhctl.start("run", dhctl.spec("steps", workers=WORKERS))
    record = dhctl.until(at_epoch(3), timeout_s=400)
    cloud.compute.reboot_server(cloud.compute.find_server(f"{record.run_id}-head", ignore_missing=False), "HARD")
    said, _ = run.communicate(timeout=600)
    assert run.returncode == 0, said
    ended = last(record.ledger.entries(), "head.recover", "done")
    assert ended
    # "back" where the server has systemd; the testbed's has none, so nothing starts Ray again and patience ends
    assert ended.detail["how"] in ("back", "replaced")
    assert_went_on(record, noted(s3_server, dhctl, record), after=3)
    assert clean(record)


@pytest.mark.slow
def test_a_workers_server_that_is_deleted_costs_one_restart_of_the_training(
    dhctl: CloudRuns, cloud: Connection
) -> None:
    run = dhctl.start("run", dhctl.spec("noted", workers=WORKERS))
    record = dhctl.until(at_epoch(4), timeout_s=400)
    first = min(names(cloud, record))
    remove_server(cloud, cloud.compute.find_server(first, ignore_missing=False).id)
    said, _ = run.communicate(timeout=600)
    assert run.returncode == 0, said
    found = result(record, 1)["result"]
    assert abs(found["ray"] - found["undisturbed"]) < 1e-4, json.dumps(found)
    assert clean(record)
