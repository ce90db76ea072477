"""Ray's autoscaler on the head makes and ends workers through this class (autoscaler v2 wraps it).

Loaded inside the autoscaler process by its dotted name. What there is comes from nova alone, by the run's mark: an
autoscaler or head that starts again adopts its workers. A node's id is its server's name, drawn anew for each. The
limit on workers lies here, not in Ray (ray_config.NEVER_REACHED).
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ray.autoscaler import tags as ray_tags
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.node_provider import NodeProvider

from dhctl.infra import ray_config
from dhctl.infra.openstack.mark import WORKER
from dhctl.infra.openstack.node import enrolment
from dhctl.infra.openstack.node.compute import NovaCompute
from dhctl.infra.openstack.node.fleet import Fleet
from dhctl.infra.openstack.node.journal import NodeJournal
from dhctl.infra.openstack.node.launching import server_body
from dhctl.infra.openstack.node.layout import NodeFolder, read_json
from dhctl.infra.openstack.node.servers import Compute, ComputeError, Server
from dhctl.infra.openstack.node.settings import NodeSettings


class OpenStackNodeProvider(NodeProvider):
    """0..N servers of one run. Thread-safe."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._folder = NodeFolder(Path(provider_config["home"]))
        self._head_id, self._head_address = provider_config["head_id"], provider_config["head_address"]
        self._settings = NodeSettings.from_dict(read_json(self._folder.settings))
        self._journal = NodeJournal(self._folder)
        self._compute = self._compute_of()
        self._fleet = Fleet(self._compute, self._folder, self._journal)
        self._lock = threading.RLock()
        self._in_flight: set[str] = set()
        self._extra_tags: dict[str, dict[str, str]] = {}

    def _compute_of(self) -> Compute:
        return NovaCompute.here(self._folder, self._settings.run_id)

    def non_terminated_nodes(self, tag_filters: Mapping[str, str]) -> list[str]:
        """Ids of head and living workers that carry all these tags. Raises ComputeError only before the first list."""
        ids = [self._head_id, *self._fleet.workers()]
        return [i for i in ids if all(self.node_tags(i).get(k) == v for k, v in tag_filters.items())]

    def is_running(self, node_id: str) -> bool:
        """Whether the server is active; the head is."""
        worker = self._worker(node_id)
        return node_id == self._head_id or (worker is not None and worker.status == "ACTIVE")

    def is_terminated(self, node_id: str) -> bool:
        """Whether there is no such server any more."""
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
        """Asks nova for `count` servers. Raises NodeLaunchException at the first that cannot be had."""
        options = ray_config.node_options(self._settings, resources, labels)
        for _ in range(count):
            self._launch(tags.get(ray_tags.TAG_RAY_LAUNCH_REQUEST, ""), options)

    def terminate_node(self, node_id: str) -> None:
        """Ends a worker; silent when it is gone, and never ends the head."""
        self.terminate_nodes([node_id])

    def terminate_nodes(self, node_ids: Iterable[str]) -> None:
        """Asks nova to delete workers. One that it does not take now is asked for again at the next look."""
        self._fleet.end([node_id for node_id in set(node_ids) if node_id != self._head_id])

    def _worker(self, node_id: str) -> Server | None:
        return self._fleet.known().get(node_id)

    def _launch(self, launch: str, options: list[str]) -> None:
        node_id = f"{self._settings.run_id}-w-{secrets.token_hex(4)}"
        with self._lock:
            self._require_room()
            self._in_flight.add(node_id)
        try:
            self._require_quota()
            self._create(node_id, launch, options)
        finally:
            with self._lock:
                self._in_flight.discard(node_id)

    def _require_room(self) -> None:
        """Raises NodeLaunchException when nothing may start, when it is too early, or at the limit."""
        settings = self._settings
        if self._folder.stopping.exists() or time.time() >= settings.expires_at:
            raise NodeLaunchException("Stopping", "the run is ending", None)
        pause = self._fleet.pause()
        if pause:
            raise NodeLaunchException("BackOff", pause, None)
        living = self._in_flight | set(self._fleet.workers(fresh=True))
        if len(living) >= settings.max_workers:
            reason = f"workers.max is {settings.max_workers}"
            self._fleet.tell_once("refused", "refused", reason)
            raise NodeLaunchException("Limit", reason, None)

    def _require_quota(self) -> None:
        """A quota that cannot be read is no reason to wait: nova says what it thinks of the server."""
        try:
            problem = self._compute.launch_problem(self._settings.flavor_vcpus, self._settings.flavor_ram_mib)
        except ComputeError as error:
            self._fleet.tell_once("api", "quota", f"the quota cannot be read: {error}")
            return
        if problem:
            self._fleet.failed(problem)
            raise NodeLaunchException("QuotaExceeded", problem, None)

    def _create(self, node_id: str, launch: str, options: list[str]) -> None:
        ledger = self._journal.ledger
        nonce = enrolment.allow(self._folder, node_id)
        worker = self._settings.for_worker(node_id, self._head_address, nonce, options)
        ledger.intent("node.start", node=node_id)
        try:
            server_id = self._compute.create(server_body(worker, launch))
        except ComputeError as error:
            ledger.note("node.start", "failed", node=node_id, reason=str(error))
            self._fleet.failed(f"nova refuses a server: {error}")
            raise NodeLaunchException("LaunchFailed", str(error), None) from error
        ledger.note("node.start", "done", node=node_id, server=server_id)
        self._fleet.launched(Server(server_id, node_id, WORKER, "BUILD", time.time(), launch=launch))
        if self._folder.stopping.exists():  # `down` came while nova was asked
            self._fleet.end([node_id])
