"""What a worker's server is asked for."""

from __future__ import annotations

import base64
from typing import Any

from dhctl.infra.openstack.mark import NODE_KEY, WORKER, Mark
from dhctl.infra.openstack.node.servers import LAUNCH_KEY
from dhctl.infra.openstack.node.settings import NodeSettings
from dhctl.infra.openstack.userdata import worker_user_data


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
