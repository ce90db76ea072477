"""The end of a lease with nobody left at the client: the cluster ends the run by itself."""

from __future__ import annotations

import json

import pytest
from pods.runs import PodRuns
from pods.things import Foreign

from dhctl.infra.ledger import last
from dhctl.infra.processes import ProcessMark, wait_until
from testbeds.kubernetes.fixtures import KubernetesCluster
from testbeds.kubernetes.leftovers import leftovers

END_S = 300
"""The lease's cron job runs in the first whole minute after a whole minute past the end; then its pod needs a while."""


@pytest.mark.thorough
def test_the_cluster_ends_the_run_when_client_and_head_are_gone(
    dhctl: PodRuns, kubernetes_cluster: KubernetesCluster, foreign: Foreign
) -> None:
    up = dhctl("up", dhctl.spec("pair", lease="110s"))
    assert up.returncode == 0, up.stdout + up.stderr
    record = dhctl.record()
    started = last(record.ledger.entries(), "lease.start", "done")
    assert started is not None
    keeper = ProcessMark.from_dict(started.detail["process"])
    assert keeper is not None
    assert keeper.signal(9)
    admin = kubernetes_cluster.admin()

    def left() -> list[str]:
        return [line for line in leftovers(admin) if record.run_id in line]

    assert left()
    dry = dhctl("reap", "--target", "kubernetes", "--namespace", dhctl.namespace, "--dry-run", "--json")
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert wait_until(lambda: not left(), END_S, every_s=2), left()
    down = dhctl("down", record.run_id, "--json")
    assert down.returncode == 0, down.stdout + down.stderr
    assert json.loads(down.stdout.splitlines()[-1])["clean"] is True


def test_reap_ends_what_is_past_its_lease_without_a_record(
    dhctl: PodRuns, kubernetes_cluster: KubernetesCluster, foreign: Foreign
) -> None:
    up = dhctl("up", dhctl.spec("pair"))
    assert up.returncode == 0, up.stdout + up.stderr
    record = dhctl.record()
    place = ("--target", "kubernetes", "--namespace", dhctl.namespace)
    none = dhctl("reap", *place)
    assert none.returncode == 0, none.stdout + none.stderr
    assert "no run of this place is past its lease" in none.stdout
    reaped = dhctl("reap", *place, "--run", record.run_id)
    assert reaped.returncode == 0, reaped.stdout + reaped.stderr
    assert "nothing is left" in reaped.stdout
    assert [line for line in leftovers(kubernetes_cluster.admin()) if record.run_id in line] == []
    down = dhctl("down", record.run_id)
    assert down.returncode == 0, down.stdout + down.stderr
