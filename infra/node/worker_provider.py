"""Ray's autoscaler on the head makes and ends workers through a class like this (autoscaler v2 wraps it).

Loaded inside the autoscaler process by its dotted name. What there is comes from the site's API alone, by the run's
mark: an autoscaler or head that starts again adopts its workers. A node's id is its worker's name, drawn anew for each.
The limit on workers lies here, not in Ray (ray_config.NEVER_REACHED).
"""

from __future__ import annotations

import secrets
import threading
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Generic, Protocol

from ray.autoscaler import tags as ray_tags
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.node_provider import NodeProvider

from dhctl.infra import ray_config
from dhctl.infra.node.fleet import Fleet, W
from dhctl.infra.node.layout import NodeFolder


class ProviderSettings(ray_config.WorkerGroup, Protocol):
    """What of a head's settings a provider needs."""

    @property
    def expires_at(self) -> int:
        """The end of the lease in epoch seconds."""


class WorkerProvider(NodeProvider, Generic[W]):
    """0..N workers of one run. Thread-safe."""

    def __init__(
        self,
        provider_config: dict[str, Any],
        cluster_name: str,
        settings: ProviderSettings,
        folder: NodeFolder,
        fleet: Fleet[W],
    ) -> None:
        super().__init__(provider_config, cluster_name)
        self._head_id, self._head_address = provider_config["head_id"], provider_config["head_address"]
        self._group, self._stopping, self._fleet = settings, folder.stopping, fleet
        self._lock = threading.RLock()
        self._in_flight: set[str] = set()
        self._extra_tags: dict[str, dict[str, str]] = {}

    @abstractmethod
    def _create(self, node_id: str, launch: str, options: list[str]) -> None:
        """Makes one worker for which there is room. Raises NodeLaunchException when it cannot be had."""

    def _living(self) -> list[str]:
        """What counts against the limit beside what is in flight: asked anew, whatever was seen a moment ago."""
        return self._fleet.workers(fresh=True)

    def non_terminated_nodes(self, tag_filters: Mapping[str, str]) -> list[str]:
        """Ids of head and living workers that carry all these tags.

        Raises WorkerApiError only before the first list.
        """
        ids = [self._head_id, *self._fleet.workers()]
        return [i for i in ids if all(self.node_tags(i).get(k) == v for k, v in tag_filters.items())]

    def is_running(self, node_id: str) -> bool:
        """Whether the worker is up; the head is."""
        worker = self._worker(node_id)
        return node_id == self._head_id or (worker is not None and worker.up)

    def is_terminated(self, node_id: str) -> bool:
        """Whether there is no such worker any more."""
        return node_id != self._head_id and self._worker(node_id) is None

    def node_tags(self, node_id: str) -> dict[str, str]:
        """Ray's tags; empty when the node is gone."""
        worker = self._worker(node_id)
        if node_id == self._head_id:
            kind, user_kind, launch = ray_tags.NODE_KIND_HEAD, ray_config.HEAD_KIND, ""
        elif worker:
            kind, user_kind, launch = ray_tags.NODE_KIND_WORKER, ray_config.WORKER_KIND, worker.launch
        else:
            return {}
        return {
            ray_tags.TAG_RAY_NODE_KIND: kind,
            ray_tags.TAG_RAY_USER_NODE_TYPE: user_kind,
            ray_tags.TAG_RAY_NODE_STATUS: ray_tags.STATUS_UP_TO_DATE,
            ray_tags.TAG_RAY_NODE_NAME: node_id,
            ray_tags.TAG_RAY_LAUNCH_REQUEST: launch,
            **self._extra_tags.get(node_id, {}),
        }

    def set_node_tags(self, node_id: str, tags: Mapping[str, str]) -> None:
        """Adds or changes tags for as long as this process lives: Ray asks for none of them later."""
        with self._lock:
            self._extra_tags[node_id] = {**self._extra_tags.get(node_id, {}), **tags}

    def internal_ip(self, node_id: str) -> str:
        """The node's address in the run's network; empty while it has none."""
        worker = self._worker(node_id)
        return self._head_address if node_id == self._head_id else worker.address if worker else ""

    external_ip = internal_ip

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> None:
        """Makes workers of the spec's size."""
        self.create_node_with_resources_and_labels(node_config, tags, count, {}, {})

    def create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],
        tags: dict[str, str],
        count: int,
        resources: dict[str, float],
        labels: dict[str, str] | None,
    ) -> None:
        """Asks for `count` workers. Raises NodeLaunchException at the first that cannot be had."""
        options = ray_config.node_options(self._group, resources, labels)
        for _ in range(count):
            self._launch(tags.get(ray_tags.TAG_RAY_LAUNCH_REQUEST, ""), options)

    def terminate_node(self, node_id: str) -> None:
        """Ends a worker; silent when it is gone, and never ends the head."""
        self.terminate_nodes([node_id])

    def terminate_nodes(self, node_ids: Iterable[str]) -> None:
        """Asks for the deletion of workers. One that is not taken now is asked for again at the next look."""
        self._fleet.end([node_id for node_id in set(node_ids) if node_id != self._head_id])

    def _worker(self, node_id: str) -> W | None:
        return self._fleet.known().get(node_id)

    def _launch(self, launch: str, options: list[str]) -> None:
        node_id = f"{self._group.run_id}-w-{secrets.token_hex(4)}"
        with self._lock:
            self._require_room()
            self._in_flight.add(node_id)
        try:
            self._create(node_id, launch, options)
        finally:
            with self._lock:
                self._in_flight.discard(node_id)
        if self._stopping.exists():  # `down` came while the API was asked
            self._fleet.end([node_id])

    def _require_room(self) -> None:
        """Raises NodeLaunchException when nothing may start, when it is too early, or at the limit."""
        if self._stopping.exists() or time.time() >= self._group.expires_at:
            raise NodeLaunchException("Stopping", "the run is ending", None)
        pause = self._fleet.pause()
        if pause:
            raise NodeLaunchException("BackOff", pause, None)
        living = self._in_flight | set(self._living())
        if len(living) >= self._group.max_workers:
            reason = f"workers.max is {self._group.max_workers}"
            self._fleet.tell_once("refused", "refused", reason)
            raise NodeLaunchException("Limit", reason, None)
