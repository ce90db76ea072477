"""What a worker's server is asked for, and when to ask again after the cloud said no."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

from dhctl.infra.openstack.mark import NODE_KEY, WORKER, Mark
from dhctl.infra.openstack.node.servers import LAUNCH_KEY
from dhctl.infra.openstack.node.settings import NodeSettings
from dhctl.infra.openstack.userdata import worker_user_data

FIRST_S, LONGEST_S = 15.0, 600.0


def server_body(worker: NodeSettings, launch: str) -> dict[str, Any]:
    """POST /servers for one worker, marked from its first moment. Nova makes its port, which goes with it."""
    mark = Mark(worker.run_id, worker.expires_at)
    server: dict[str, Any] = {
        "name": worker.node_id,
        "flavorRef": worker.flavor_id,
        "networks": [{"uuid": worker.network_id}],
        "security_groups": [{"name": group} for group in worker.security_group_ids],
        "metadata": {**mark.metadata(WORKER), NODE_KEY: worker.node_id, LAUNCH_KEY: launch},
        "tags": mark.tags,
        "user_data": base64.b64encode(worker_user_data(worker).encode()).decode(),
        **_boot_disk(worker),
    }
    if worker.key_name:
        server["key_name"] = worker.key_name
    if worker.availability_zone:
        server["availability_zone"] = worker.availability_zone
    if worker.config_drive:
        server["config_drive"] = True
    hints = {"os:scheduler_hints": {"group": worker.server_group_id}} if worker.server_group_id else {}
    return {"server": server, **hints}


def _boot_disk(worker: NodeSettings) -> dict[str, Any]:
    """The flavor's disk from the image, or a volume that goes with the server."""
    if not worker.boot_volume_gib:
        return {"imageRef": worker.image_id}
    volume: dict[str, Any] = {
        "boot_index": 0,
        "uuid": worker.image_id,
        "source_type": "image",
        "destination_type": "volume",
        "volume_size": worker.boot_volume_gib,
        "delete_on_termination": True,
    }
    if worker.volume_type:
        volume["volume_type"] = worker.volume_type
    return {"block_device_mapping_v2": [volume]}


class BackOff:
    """After each failure it waits twice as long as before, 15 s to 10 min. Not thread-safe: its owner has a lock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause_s, self._until, self.reason = FIRST_S, 0.0, ""
        self.failed_at = 0.0
        """Epoch seconds of the newest failure."""

    def failed(self, reason: str) -> float:
        """One more failure; the seconds until the next try. Failures of one round count once."""
        now = self._clock()
        self.reason, self.failed_at = reason, time.time()
        if now >= self._until:
            self._until = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_S)
        return self._until - now

    def worked(self) -> None:
        """The next failure is the first again."""
        self._pause_s, self._until, self.reason = FIRST_S, 0.0, ""

    @property
    def left_s(self) -> float:
        """Seconds until the next try is due; 0 when it may be made now."""
        return max(0.0, self._until - self._clock())
