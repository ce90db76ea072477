"""Ray's autoscaler adds and removes local workers through this class (autoscaler v2 wraps it, v1 would use it as is).

Loaded inside the autoscaler process by its dotted name. Every node is recorded on disk before Ray hears of it, so that
an autoscaler that was restarted adopts what it finds. The limit on workers lies here, not in Ray
(ray_config.NEVER_REACHED).
"""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ray.autoscaler import tags as ray_tags
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.node_provider import NodeProvider

from dhctl.infra.ledger import Ledger
from dhctl.infra.local import machine, nodes
from dhctl.infra.local.head import subnet_of
from dhctl.infra.local.nodes import ClusterSettings, NodeRecord
from dhctl.infra.processes import ProcessMark, stop_all
from dhctl.infra.ray_config import node_options

REFUSAL_S = 15.0
"""After a refused start the provider refuses at once for this long: Ray asks again at every interval."""


class LocalNodeProvider(NodeProvider):
    """Workers as supervised process trees on this machine, each on a loopback address of its own. Thread-safe."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._settings = ClusterSettings.from_dict(json.loads(Path(provider_config["settings"]).read_text()))
        self._folder, self._ledger = self._settings.folder, Ledger(self._settings.ledger_path)
        self._gcs_address, self._session = provider_config["gcs_address"], provider_config["session"]
        self._lock = threading.RLock()
        self._refuse_until = 0.0
        self._end_strays()

    def _end_strays(self) -> None:
        """Ends workers that were started but not recorded, because an autoscaler died in between."""
        known = set(nodes.load_nodes(self._folder)) | {"autoscaler"}
        for pid, node_id in nodes.supervisors(self._settings.run_id):
            mark = ProcessMark.of(pid)
            if node_id not in known and mark:
                self._ledger.note("node.stray", "note", node=node_id)
                stop_all([mark], grace_s=nodes.GRACE_S + 2)

    def non_terminated_nodes(self, tag_filters: Mapping[str, str]) -> list[str]:
        """Ids of living nodes that carry all these tags; forgets workers that died."""
        found = []
        with self._lock:
            for node_id, record in nodes.load_nodes(self._folder).items():
                if not self._is_head(record) and not record.process.alive():
                    self._forget([record], "died")
                elif all(record.tags.get(k) == v for k, v in tag_filters.items()):
                    found.append(node_id)
        return found

    def is_running(self, node_id: str) -> bool:
        """Whether the node's supervisor lives."""
        record = self._record(node_id)
        return record is not None and record.process.alive()

    def is_terminated(self, node_id: str) -> bool:
        """The opposite."""
        return not self.is_running(node_id)

    def node_tags(self, node_id: str) -> dict[str, str]:
        """The node's tags."""
        record = self._record(node_id)
        return dict(record.tags) if record else {}

    def set_node_tags(self, node_id: str, tags: Mapping[str, str]) -> None:
        """Adds or changes tags."""
        with self._lock:
            record = self._record(node_id)
            if record:
                changed = {**record.tags, **tags}
                NodeRecord(node_id, record.process, record.address, record.ports, changed, record.gpus).save(
                    self._folder
                )

    def internal_ip(self, node_id: str) -> str:
        """The node's loopback address; empty when the node is gone."""
        record = self._record(node_id)
        return record.address if record else ""

    external_ip = internal_ip

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> None:
        """Starts workers of the spec's size."""
        self.create_node_with_resources_and_labels(node_config, tags, count, {}, {})

    def create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],
        tags: dict[str, str],
        count: int,
        resources: dict[str, float],
        labels: dict[str, str] | None,
    ) -> None:
        """Starts `count` workers, none beyond the limit. Raises NodeLaunchException when the limit is reached."""
        for _ in range(count):
            with self._lock:
                self._start(tags, resources, labels or {})

    def terminate_node(self, node_id: str) -> None:
        """Stops a worker; silent when it is gone, and never stops the head."""
        self.terminate_nodes([node_id])

    def terminate_nodes(self, node_ids: Iterable[str]) -> None:
        """Stops workers side by side."""
        with self._lock:
            records = [r for r in map(self._record, set(node_ids)) if r and not self._is_head(r)]
            self._forget(records, "released")

    def _record(self, node_id: str) -> NodeRecord | None:
        try:
            return NodeRecord.load(self._folder.nodes / f"{node_id}.json")
        except FileNotFoundError:
            return None

    @staticmethod
    def _is_head(record: NodeRecord) -> bool:
        return record.tags[ray_tags.TAG_RAY_NODE_KIND] == ray_tags.NODE_KIND_HEAD

    def _refusal(self, why: str) -> NodeLaunchException:
        self._refuse_until = time.monotonic() + REFUSAL_S
        return NodeLaunchException("QuotaExceeded", why, None)

    def _start(self, tags: Mapping[str, str], resources: Mapping[str, float], labels: Mapping[str, str]) -> None:
        if time.monotonic() < self._refuse_until:
            raise NodeLaunchException("QuotaExceeded", "refused a moment ago", None)
        living = [r for r in nodes.load_nodes(self._folder).values() if not self._is_head(r)]
        if len(living) >= self._settings.max_workers:
            raise self._refusal(f"workers.max is {self._settings.max_workers}")
        try:
            gpus = machine.choose_gpus(machine.gpu_indices(), [r.gpus for r in living], self._settings.worker_gpus)
        except ValueError as error:
            raise self._refusal(str(error)) from error
        node_id, address = f"w-{secrets.token_hex(4)}", self._free_address(living)
        ports = nodes.free_ports(list(nodes.AGENT_PORTS))
        self._ledger.intent("node.start", node=node_id, address=address, ports=ports)
        env = nodes.node_environment(self._settings, node_id, tags[ray_tags.TAG_RAY_USER_NODE_TYPE])
        env |= {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}
        env |= nodes.announce_ports(self._folder.ray_temp(node_id) / self._session, ports)
        command = nodes.ray_command(self._settings, node_id, address, ports)
        command += ["--address", self._gcs_address, *node_options(self._settings, resources, labels)]
        process = nodes.spawn(self._settings, node_id, command, env)
        node_tags = {
            **tags,
            ray_tags.TAG_RAY_NODE_KIND: ray_tags.NODE_KIND_WORKER,
            ray_tags.TAG_RAY_NODE_STATUS: ray_tags.STATUS_UP_TO_DATE,
            ray_tags.TAG_RAY_NODE_NAME: node_id,
        }
        NodeRecord(node_id, process, address, ports, node_tags, gpus).save(self._folder)
        self._ledger.done("node.start", node=node_id, process=process.to_dict())

    def _free_address(self, living: list[NodeRecord]) -> str:
        """A loopback address that no living worker has; .2 is the head's."""
        used = {r.address for r in living}
        subnet = subnet_of(self._settings.run_id)
        for last in range(3, 255):
            if subnet + str(last) not in used:
                return subnet + str(last)
        raise NodeLaunchException("QuotaExceeded", "the run's 252 loopback addresses are used up", None)

    def _forget(self, records: list[NodeRecord], why: str) -> None:
        if not records:
            return
        self._ledger.note("node.leave", "note", nodes=[r.node_id for r in records], why=why)
        nodes.stop_nodes(records, self._ledger)
        for record in records:
            (self._folder.nodes / f"{record.node_id}.json").unlink(missing_ok=True)
            shutil.rmtree(self._folder.ray_temp(record.node_id), ignore_errors=True)
