"""The end of a lease with nobody left at the client: the nodes end their servers, `dhctl reap` ends the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openstack.connection import Connection

from cloud.runs import CloudRuns, assert_nothing_marked
from cloud.things import Foreign, MarkedThings, remove_server
from dhctl.infra.lease import keepers
from dhctl.infra.processes import stop_all, wait_until
from dhctl.infra.record import RunRecord
from testbeds.openstack.fixtures import OpenStackCloud
from testbeds.openstack.leftovers import leftovers

LEASE_S = 120
MARGIN_S = 240
"""The head acts 60 s after the lease, a worker 150 s after it (lease_guard.py); deleting takes its time too."""


def kill_keeper(record: RunRecord) -> None:
    """As when the client's machine is gone."""
    living = list(keepers(record.ledger))
    assert living, "there is a keeper to kill"
    assert stop_all(living, grace_s=0) == []


def servers(cloud: Connection, record: RunRecord) -> list[str]:
    return sorted(s.name for s in cloud.compute.servers() if s.name.startswith(record.run_id))


@pytest.mark.thorough
def test_nodes_end_their_servers_when_the_client_is_gone_and_reap_the_rest(
    dhctl: CloudRuns, cloud: Connection, openstack_cloud: OpenStackCloud, foreign: Foreign, tmp_path: Path
) -> None:
    """Two runs side by side, as each takes minutes of waiting: of one only the head is left, of the other a worker."""
    with_worker = _up_without_client(dhctl, "pair", {"min": 1, "max": 1, "memory": "512MiB"})
    of_head = _up_without_client(dhctl, "hang", {"min": 0, "max": 1, "memory": "512MiB"})
    head, worker = servers(cloud, with_worker)
    assert (head, worker[: len(with_worker.run_id) + 3]) == (f"{with_worker.run_id}-head", f"{with_worker.run_id}-w-")
    remove_server(cloud, cloud.compute.find_server(head, ignore_missing=False).id)
    assert servers(cloud, of_head) == [f"{of_head.run_id}-head"]
    for record in (of_head, with_worker):
        assert wait_until(lambda run=record: servers(cloud, run) == [], LEASE_S + MARGIN_S, every_s=2), record.run_id
    down = dhctl("down", of_head.run_id)
    assert down.returncode == 0, down.stdout + down.stderr
    assert_nothing_marked(cloud, [of_head.run_id])
    _reap(dhctl, cloud, with_worker, tmp_path)


def _up_without_client(dhctl: CloudRuns, job: str, workers: dict[str, Any]) -> RunRecord:
    up = dhctl("up", dhctl.spec(job, lease=f"{LEASE_S}s", workers=workers))
    assert up.returncode == 0, up.stdout + up.stderr
    record = dhctl.record()
    kill_keeper(record)
    return record


def _reap(dhctl: CloudRuns, cloud: Connection, record: RunRecord, empty: Path) -> None:
    """By the cloud's lists alone: what is past its lease goes, what is not stays."""
    living = MarkedThings(cloud)
    try:
        living.network()
        dhctl.env["DHCTL_HOME"] = str(empty / "empty")
        before = leftovers(cloud)
        dry = dhctl("reap", "--dry-run", "--json")
        assert dry.returncode == 0, dry.stdout + dry.stderr
        shown = {run["run"] for run in json.loads(dry.stdout)["runs"]}
        assert record.run_id in shown
        assert living.run_id not in shown
        assert leftovers(cloud) == before
        reaped = dhctl("reap")
        assert reaped.returncode == 0, reaped.stdout + reaped.stderr
        assert "nothing is left" in reaped.stdout
        assert_nothing_marked(cloud, [record.run_id])
        assert cloud.network.find_network(living.mark.name("net")), "a run within its lease lives on"
    finally:
        living.remove()
        dhctl.env["DHCTL_HOME"] = str(dhctl.home)
    assert dhctl("down", record.run_id).returncode == 0
