"""Strict about NetworkPolicy on a cluster that enforces it; what happens on one that does not is in test_failures."""

from __future__ import annotations

import json

from pods.runs import PodRuns

from testbeds.kubernetes.fixtures import KubernetesCluster
from testbeds.kubernetes.policies import policies_enforced

ENFORCED = "NetworkPolicy is enforced"


def test_a_strict_run_is_up_and_its_receipt_says_that_policies_are_enforced(
    dhctl: PodRuns, kubernetes_cluster: KubernetesCluster
) -> None:
    spec = dhctl.spec("pair", kubernetes={"strict_network": True})
    with kubernetes_cluster.admin() as admin, policies_enforced(admin):
        up = dhctl("up", spec)
        assert up.returncode == 0, up.stdout + up.stderr
        assert ENFORCED in up.stdout
        down = dhctl("down", "pair", "--json")
        assert down.returncode == 0, down.stdout + down.stderr
        receipt = json.loads(down.stdout.splitlines()[-1])
        assert receipt["clean"] is True
        assert [remark for remark in receipt["remarks"] if remark.startswith(ENFORCED)]
        plan = dhctl("plan", spec, "--json")
        rows = {row["what"]: row for row in json.loads(plan.stdout)["requirements"]}
        assert f"(found by {receipt['run_id']} on " in rows["NetworkPolicy"]["have"]
        doctor = dhctl("doctor", "--json")
        assert any(row["what"] == "NetworkPolicy" and row["ok"] for row in json.loads(doctor.stdout))
