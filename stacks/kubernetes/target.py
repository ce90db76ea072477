"""The Kubernetes target: a namespace of a cluster as a place for runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Protocol

from dhctl.infra.errors import ClusterError, NotUpError, RefusedError
from dhctl.infra.events import Report
from dhctl.infra.home import Home, default_root
from dhctl.infra.interrupts import Interrupts
from dhctl.infra.kubernetes import (
    admission,
    bring_up,
    head_loss,
    inventory,
    kuberay,
    network,
    plan,
    probe,
    release,
)
from dhctl.infra.kubernetes.client import Cluster, ClusterApiError, connect
from dhctl.infra.kubernetes.heads import Head, by_kuberay, find_head, head_name, namespace_of
from dhctl.infra.kubernetes.objects import RunObjects
from dhctl.infra.kubernetes.port_forward import open_forward
from dhctl.infra.kubernetes.section import KubernetesSection
from dhctl.infra.kubernetes.sweep import Sweep
from dhctl.infra.node.layout import GCS_PORT
from dhctl.infra.ray_api import Connection
from dhctl.infra.receipt import Check
from dhctl.infra.record import RunRecord
from dhctl.infra.run_secrets import RunSecrets
from dhctl.infra.spec import RunSpec, TargetName
from dhctl.infra.ssh import SshEndpoint
from dhctl.infra.target import PlannedResource, Program, Requirement, StackOutputs


@cache
def _cluster_of(context: str | None, namespace: str | None) -> Cluster:
    return connect(KubernetesSection(context=context, namespace=namespace))


def cluster_of(section: KubernetesSection) -> Cluster:
    """One reading of the kubeconfig a verb, context and namespace. Raises ClusterApiError."""
    return _cluster_of(section.context, section.namespace)


class _PodMaker(Protocol):
    """What differs by who makes Ray's pods: the modules `release` and `kuberay`."""

    def troubles(self, cluster: Cluster, record: RunRecord) -> list[str]:
        """Why pods do not come. Never raises."""
        ...

    def release_nodes(self, cluster: Cluster, record: RunRecord, report: Report) -> None:
        """See Target."""
        ...

    def collect(self, cluster: Cluster, record: RunRecord) -> None:
        """See Target."""
        ...


def _maker(record: RunRecord) -> _PodMaker:
    return kuberay if by_kuberay(record) else release


class KubernetesTarget:
    """Implements `dhctl.infra.target.Target`."""

    name = TargetName.KUBERNETES

    def admit(self, spec: RunSpec) -> list[Requirement]:
        """Version, rights, quota, nodes, image, storage class, Pod Security."""
        try:
            cluster = cluster_of(spec.kubernetes)
        except ClusterApiError as error:
            return [Requirement("credentials", "a kubeconfig", "none", str(error))]
        known = network.network_requirement(Home(default_root()), cluster.host, strict=spec.kubernetes.strict_network)
        return [*admission.admit(spec, cluster), known]

    def plan(self, spec: RunSpec) -> list[PlannedResource]:
        """Objects in the namespace, and the namespace where the run makes it."""
        return plan.resources(spec)

    def program(self, record: RunRecord) -> Program:
        """stacks/kubernetes/program.py with this run's settings."""
        return lambda: self._declare(record)

    def _declare(self, record: RunRecord) -> Mapping[str, object]:
        from dhctl.stacks.kubernetes.program import declare  # brings in Pulumi, which few verbs need

        with record.ledger.act("secrets.create"):
            RunSecrets.of(record).make()
        return declare(self._objects(record), record)

    def settle(self, spec: RunSpec) -> RunSpec:
        """Who makes Ray's pods. Where the cluster does not answer, admission tells that."""
        try:
            section = kuberay.settled(spec.kubernetes, cluster_of(spec.kubernetes))
        except ClusterApiError:
            return spec
        return spec.model_copy(update={"kubernetes": section})

    def shrink(self, spec: RunSpec) -> tuple[RunSpec, str]:
        """As the ResourceQuota says now."""
        return admission.shrink(spec, cluster_of(spec.kubernetes))

    def start(self, record: RunRecord, outputs: StackOutputs, report: Report, interrupts: Interrupts) -> None:
        """The head's pod gets ready."""
        bring_up.await_head(self._cluster(record), record, report, interrupts)

    def lost_head(self, record: RunRecord) -> str:
        """Whether the head's pod is there."""
        return head_loss.lost_head(self._cluster(record), record)

    def clear_head(self, record: RunRecord, report: Report) -> None:
        """The pods of head and workers."""
        head_loss.clear_head(self._cluster(record), record, report)

    def troubles(self, record: RunRecord) -> list[str]:
        """The scheduler's and the kubelet's reasons, and what the head's autoscaler met."""
        return _maker(record).troubles(self._cluster(record), record)

    def probe_outside(self, record: RunRecord) -> str:
        """Ray's doors from a pod outside the run: it must refuse, whether or not they can be reached."""
        found = probe.run_probe(self._cluster(record), self._objects(record), self._head(record).address)
        record.ledger.note(probe.NOTE, "note", host=self._cluster(record).host, **found.to_dict())
        if record.spec.kubernetes.strict_network and not found.enforced:
            raise ClusterError(found.words, "kubernetes.strict_network wants a cluster that does")
        return found.words

    def endpoint(self, record: RunRecord) -> SshEndpoint:
        """There is none."""
        raise RefusedError(
            f"{record.run_id} lives in pods, which have no SSH",
            f"try `kubectl exec -it -n {namespace_of(record)} {head_name(self._cluster(record), record)} -- bash`",
        )

    @contextmanager
    def connect(self, record: RunRecord) -> Iterator[Connection]:
        """Through the API server, by a port forward that ends with the block."""
        head = self._head(record)
        if not RunSecrets.of(record).token_file.exists():
            raise NotUpError(f"{record.run_id} is not up", f"`dhctl status {record.run_id}` shows what became of it")
        with open_forward(self._cluster(record), namespace_of(record), head.name, bring_up.FORWARDED) as ports:
            yield bring_up.connection(record, head.address, ports)

    def job_environment(self, record: RunRecord) -> Mapping[str, str]:
        """The GCS at the head's own address."""
        return {"RAY_ADDRESS": f"{self._head(record).address}:{GCS_PORT}"}

    def release_nodes(self, record: RunRecord, report: Report) -> None:
        """The autoscaler is stopped, its rights deleted, then all pods are asked to go. A RayCluster goes whole."""
        _maker(record).release_nodes(self._cluster(record), record, report)

    def collect(self, record: RunRecord) -> None:
        """Logs of head and workers, and of Ray's session on the head."""
        _maker(record).collect(self._cluster(record), record)

    def sweep(self, record: RunRecord, report: Report) -> None:
        """The run object with all that hangs on it, then what is left; the run's secrets when nothing is."""
        left = Sweep(self._cluster(record), namespace_of(record), record.run_id, record.ledger, report).run()
        if not left:
            RunSecrets.of(record).remove()

    def inventory(self, record: RunRecord) -> list[Check]:
        """The namespace's own lists, kind by kind, and the run's secrets."""
        rows = inventory.look(self._cluster(record), namespace_of(record), record.run_id, record.ledger.entries())
        return [*rows, RunSecrets.of(record).look()]

    def _objects(self, record: RunRecord) -> RunObjects:
        bounds = admission.bounds_of(record.spec.kubernetes, self._cluster(record))
        return RunObjects.of(record, cpu_limits=bounds.cpu_limits)

    @staticmethod
    def _cluster(record: RunRecord) -> Cluster:
        return cluster_of(record.spec.kubernetes)

    def _head(self, record: RunRecord) -> Head:
        return find_head(self._cluster(record), record)
