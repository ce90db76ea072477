"""Bringing a cluster up on Kubernetes: until its head is ready, and how its Ray is reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dhctl.infra.errors import ClusterError
from dhctl.infra.events import Noted, Report
from dhctl.infra.interrupts import Interrupts
from dhctl.infra.kubernetes import apply
from dhctl.infra.kubernetes.client import Cluster, ClusterApiError
from dhctl.infra.kubernetes.discovery import PODS, RAY_CLUSTERS
from dhctl.infra.kubernetes.heads import by_kuberay, namespace_of
from dhctl.infra.kubernetes.mark import HEAD, ROLE_LABEL, Mark
from dhctl.infra.kubernetes.pod_files import pods_of
from dhctl.infra.kubernetes.readiness import Look, judge
from dhctl.infra.node.layout import DASHBOARD_PORT, GCS_PORT, RAYLET_PORT
from dhctl.infra.ray_api import Connection
from dhctl.infra.record import RunRecord
from dhctl.infra.run_secrets import RunSecrets

HEAD_S = 900.0
"""From the head's pod on a node until Ray answers: a node without the image pulls it in this time."""

FORWARDED = {"dashboard": DASHBOARD_PORT, "gcs": GCS_PORT, "raylet": RAYLET_PORT}
"""Ports of the head's pod that a client reaches, by name."""


def await_head(cluster: Cluster, record: RunRecord, report: Report, interrupts: Interrupts) -> None:
    """Returns when Ray answers in the head's pod; the conditions of a RayCluster are told as they change.

    Raises ClusterError with the cluster's own words when it does not.
    """
    of, name = (RAY_CLUSTERS, record.run_id) if by_kuberay(record) else (PODS, Mark(record.run_id).name(HEAD))
    metadata = {"name": name, "namespace": namespace_of(record)}
    manifest = {"apiVersion": of.api_version, "kind": of.kind, "metadata": metadata}
    judged = _Told(report).judge if by_kuberay(record) else judge
    with record.ledger.act("head.ray", kind=of.kind, name=name):
        found = apply.wait_ready(cluster, manifest, HEAD_S, interrupts.check, judged)
        node = found["spec"].get("nodeName")
        report(Noted(f"head ready on node {node}" if node else f"head ready: pod {found['status']['head']['podName']}"))
    _note_image(cluster, record)


def _note_image(cluster: Cluster, record: RunRecord) -> None:
    """Which image the head's container runs, by digest, as its kubelet tells; nothing where it does not."""
    try:
        pods = pods_of(cluster, namespace_of(record), record.run_id)
    except ClusterApiError:
        return
    for pod in pods:
        if pod["metadata"]["labels"].get(ROLE_LABEL) == HEAD:
            for told in (pod.get("status") or {}).get("containerStatuses") or ():
                digest = str(told.get("imageID") or "").rpartition("@")[2]
                record.ledger.note("image", name=told["name"], digest=digest.rpartition("//")[2])


class _Told:
    """Looks whose words are reported when they are new."""

    def __init__(self, report: Report) -> None:
        self._report, self._before = report, ""

    def judge(self, cluster: Cluster, found: Mapping[str, Any]) -> Look:
        """As `readiness.judge`."""
        look = judge(cluster, found)
        if look.told and look.told != self._before:
            self._report(Noted(look.told))
        self._before = look.told
        return look


def connection(record: RunRecord, address: str, ports: Mapping[str, int]) -> Connection:
    """Ray through the local ends of a port forward. Raises ClusterError when the token is gone."""
    token_file = RunSecrets.of(record).token_file
    try:
        token = token_file.read_text().strip()
    except FileNotFoundError as error:
        raise ClusterError(f"the token of {record.run_id} is gone from {token_file.parent}") from error
    return Connection(
        dashboard_url=f"http://127.0.0.1:{ports['dashboard']}",
        gcs_address=f"127.0.0.1:{ports['gcs']}",
        raylet_address=f"127.0.0.1:{ports['raylet']}",
        token=token,
        head_address=address,
        token_file=str(token_file),
    )
