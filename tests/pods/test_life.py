"""The whole life of a run on Kubernetes: up, 0 to 2 workers and back to 0, train with results on S3, down."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from kubernetes import client
from pods.runs import PodRuns, workers
from pods.things import Foreign

from dhctl.infra.processes import wait_until
from dhctl.infra.record import RunRecord
from dhctl.infra.run_secrets import RunSecrets
from testbeds.kubernetes.fixtures import KubernetesCluster
from testbeds.object_store import ObjectStore

CANARY = "canary-9c1f27d0a4"


def pods_of(cluster: KubernetesCluster, record: RunRecord) -> set[str]:
    """Names of the run's pods, asked by the tests themselves."""
    listed = client.CoreV1Api(cluster.admin()).list_pod_for_all_namespaces(label_selector=f"dhctl/run={record.run_id}")
    return {pod.metadata.name for pod in listed.items}


def test_whole_life(
    dhctl: PodRuns, kubernetes_cluster: KubernetesCluster, foreign: Foreign, kubernetes_s3: ObjectStore
) -> None:
    dhctl.env["AWS_DHCTL_TEST"] = CANARY
    up = dhctl("up", dhctl.spec("pair"))
    assert up.returncode == 0, up.stdout + up.stderr
    assert "Ray refuses callers without the token: Jobs API, GCS, raylet" in up.stdout
    assert "this cluster does not enforce NetworkPolicy" in up.stdout
    record = dhctl.record()
    _assert_secrets_are_kept(record)
    assert workers(record) == 0
    assert pods_of(kubernetes_cluster, record) == {f"{record.run_id}-head"}

    trained = dhctl("train", "pair", "--json")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    events = [json.loads(line) for line in trained.stdout.splitlines()]
    summary = events[-1]
    assert summary["status"] == "SUCCEEDED"
    assert len(summary["result"]["nodes"]) == 2, "the tasks ran on two workers"
    assert max(e["alive"] for e in events if e["event"] == "NodeChanged") == 2
    kept = kubernetes_s3.objects("runs", f"{dhctl.folder.name}/{record.run_id}/jobs/1/")
    assert {Path(key).name for key in kept} == {"driver.log", "metrics.jsonl", "result.json"}
    assert wait_until(lambda: workers(record) == 0, 2 * 8 + 60, every_s=2), "workers do not leave when idle"

    shell = dhctl("ssh", "pair")
    assert shell.returncode == 1
    assert f"kubectl exec -it -n {dhctl.namespace} {record.run_id}-head" in shell.stderr
    down = dhctl("down", "pair", "--json")
    assert down.returncode == 0, down.stdout + down.stderr
    receipt = json.loads(down.stdout.splitlines()[-1])
    assert receipt["clean"] is True
    assert receipt["created"]["Pod"] == 1
    assert receipt["created"]["workers"] == 2
    assert not RunSecrets.of(record).folder.exists()
    again = dhctl("down", "pair")
    assert again.returncode == 0, again.stdout + again.stderr


def _assert_secrets_are_kept(record: RunRecord) -> None:
    """Private files are private, and neither state nor ledger holds what they hold."""
    secrets = RunSecrets.of(record)
    assert stat.S_IMODE(secrets.token_file.stat().st_mode) == 0o600
    searched = [p for p in record.folder.rglob("*") if p.is_file() and secrets.folder not in p.parents]
    assert any("state" in str(p) for p in searched), "the state lies where it is searched"
    for path in searched:
        text = path.read_text(errors="replace")
        assert [path.name for secret in (secrets.token_file.read_text(), CANARY) if secret in text] == []
