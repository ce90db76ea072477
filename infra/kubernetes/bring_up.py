"""Bringing a cluster up on Kubernetes: until its head is ready, and how its Ray is reached."""

from __future__ import annotations

from collections.abc import Mapping

from dhctl.infra.errors import ClusterError
from dhctl.infra.events import Noted, Report
from dhctl.infra.interrupts import Interrupts
from dhctl.infra.kubernetes import apply
from dhctl.infra.kubernetes.client import Cluster
from dhctl.infra.kubernetes.mark import HEAD, Mark
from dhctl.infra.node.layout import DASHBOARD_PORT, GCS_PORT, RAYLET_PORT
from dhctl.infra.ray_api import Connection
from dhctl.infra.record import RunRecord
from dhctl.infra.run_secrets import RunSecrets

HEAD_S = 900.0
"""From the head's pod on a node until Ray answers: a node without the image pulls it in this time."""

FORWARDED = {"dashboard": DASHBOARD_PORT, "gcs": GCS_PORT, "raylet": RAYLET_PORT}
"""Ports of the head's pod that a client reaches, by name."""


def namespace_of(record: RunRecord) -> str:
    """Where the run lives: the spec's namespace, or one of its own."""
    return record.spec.kubernetes.namespace or record.run_id


def head_of(record: RunRecord) -> str:
    """Name of the head's pod."""
    return Mark(record.run_id).name(HEAD)


def await_head(cluster: Cluster, record: RunRecord, report: Report, interrupts: Interrupts) -> None:
    """Returns when Ray answers in the head's pod. Raises ClusterError with the cluster's own words when it does not."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": head_of(record), "namespace": namespace_of(record)},
    }
    with record.ledger.act("head.ray", pod=head_of(record)):
        found = apply.wait_ready(cluster, pod, HEAD_S, interrupts.check)
        report(Noted(f"head ready on node {found['spec'].get('nodeName')}"))


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
