"""The workers of a run on Kubernetes for Ray's autoscaler: pods, which go with the run's own object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.autoscaler.node_launch_exception import NodeLaunchException

from dhctl.infra.kubernetes.node.fleet import PodFleet
from dhctl.infra.kubernetes.node.pods import ClusterPods, Pod, PodApiError
from dhctl.infra.kubernetes.node.settings import PodSettings
from dhctl.infra.kubernetes.node.worker_pod import ray_words, worker_pod
from dhctl.infra.node.journal import NodeJournal
from dhctl.infra.node.layout import NodeFolder
from dhctl.infra.node.worker_provider import WorkerProvider


class PodNodeProvider(WorkerProvider[Pod]):
    """0..N pods of one run. Thread-safe."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        self._folder = NodeFolder(Path(provider_config["home"]))
        self._settings = PodSettings.here()
        self._journal = NodeJournal(self._folder)
        self._api = ClusterPods.here(self._settings.namespace)
        self._owners: list[dict[str, Any]] = []
        fleet = PodFleet(self._api, self._settings, self._journal)
        super().__init__(provider_config, cluster_name, self._settings, self._folder, fleet)

    def _living(self) -> list[str]:
        """The list of a moment ago will do: a pod that was made here counts at once, and a thousand are 5 MB."""
        return self._fleet.workers()

    def _create(self, node_id: str, launch: str, options: list[str]) -> None:
        ledger = self._journal.ledger
        try:
            owners = self._owners_of_workers()
        except PodApiError as error:
            raise self._refused("LaunchFailed", f"the run's object is not known: {error}") from error
        words = ray_words(self._settings, self._folder, self._head_address, options)
        ledger.intent("node.start", node=node_id)
        try:
            pod = self._api.create(worker_pod(self._settings, node_id, launch, owners, words))
        except PodApiError as error:
            ledger.note("node.start", "failed", node=node_id, reason=str(error))
            if error.over_quota:
                reason = f"the namespace's quota takes no more worker: {error.without_name}"
                raise self._refused("QuotaExceeded", reason) from error
            if error.status == 403:
                reason = f"the cluster forbids workers, as it does when a run ends or its rights are gone: {error}"
                raise self._refused("Forbidden", reason) from error
            raise self._refused("LaunchFailed", f"the cluster refuses a worker: {error}") from error
        ledger.note("node.start", "done", node=node_id, pod=pod.uid)
        self._fleet.launched(pod)

    def _refused(self, category: str, reason: str) -> NodeLaunchException:
        """Told, and the next one waits."""
        self._fleet.failed(reason)
        return NodeLaunchException(category, reason, None)

    def _owners_of_workers(self) -> list[dict[str, Any]]:
        """What owns the head's pod owns the workers. Raises PodApiError also when nothing does."""
        with self._lock:
            if not self._owners:
                self._owners = self._api.owners(self._settings.node_id)
            if not self._owners:
                raise PodApiError(0, f"pod {self._settings.node_id} has no owner; this is a fault of dhctl")
            return self._owners
