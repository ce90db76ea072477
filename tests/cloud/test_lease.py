"""The end of a lease with nobody left at the client: the nodes end their servers, `dhctl reap` ends the rest."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_a_worker_ends_the_run_when_client_and_head_are_gone_and_reap_the_rest(
    dhctl: CloudRuns, cloud: Connection, openstack_cloud: OpenStackCloud, foreign: Foreign, tmp_path: Path
) -> None:
    workers = {"min": 1, "max": 1, "memory": "512MiB"}
    up = dhctl("up", dhctl.spec("pair", lease=f"{LEASE_S}s", workers=workers))
    assert up.returncode == 0, up.stdout + up.stderr
    record = dhctl.record()
    kill_keeper(record)
    head, worker = servers(cloud, record)
    assert (head, worker[: len(record.run_id) + 3]) == (f"{record.run_id}-head", f"{record.run_id}-w-")
    remove_server(cloud, cloud.compute.find_server(head, ignore_missing=False).id)
    assert wait_until(lambda: servers(cloud, record) == [], LEASE_S + MARGIN_S, every_s=2), servers(cloud, record)

    living = MarkedThings(cloud)
    try:
        living.network()
        dhctl.env["DHCTL_HOME"] = str(tmp_path / "empty")
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


def test_the_head_ends_the_run_when_the_client_is_gone(dhctl: CloudRuns, cloud: Connection) -> None:
    up = dhctl("up", dhctl.spec("pair", lease="90s", workers={"min": 0, "max": 1, "memory": "512MiB"}))
    assert up.returncode == 0, up.stdout + up.stderr
    record = dhctl.record()
    kill_keeper(record)
    assert servers(cloud, record) == [f"{record.run_id}-head"]
    assert wait_until(lambda: servers(cloud, record) == [], 90 + MARGIN_S, every_s=2), servers(cloud, record)
    down = dhctl("down", record.run_id)
    assert down.returncode == 0, down.stdout + down.stderr
    assert_nothing_marked(cloud, [record.run_id])
