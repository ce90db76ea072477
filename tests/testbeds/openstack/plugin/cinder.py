"""Volumes. Never run against a real cinder: the testbed has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from testbeds.openstack.plugin.cloud import ApiError, Cloud, Deadline, gone_or, wait
from testbeds.openstack.plugin.fields import Fields, flag, mapping, several, snake, text, texts, whole
from testbeds.openstack.plugin.kind import Change, Kind, Making, given, saying
from testbeds.openstack.plugin.wire import Properties


class Volume(Kind):
    """A volume. Its id is set before it is waited for."""

    token = "openstack:blockstorage/volume:Volume"
    official = "openstack_blockstorage_volume_v3"
    fields: ClassVar[Fields] = {
        "availabilityZone": text(fixed=True),
        "backupId": text(fixed=True),
        "consistencyGroupId": text(fixed=True),
        "description": text(),
        "enableOnlineResize": flag(),
        "imageId": text(fixed=True),
        "metadata": mapping(),
        "name": text(),
        "region": text(fixed=True),
        "schedulerHints": several(
            {
                "additionalProperties": mapping(),
                "differentHosts": texts(),
                "localToInstance": text(),
                "query": text(),
                "sameHosts": texts(),
            },
            fixed=True,
        ),
        "size": whole(required=True),
        "snapshotId": text(fixed=True),
        "sourceReplica": text(fixed=True),
        "sourceVolId": text(fixed=True),
        "volumeRetypePolicy": text(default="never"),
        "volumeType": text(),
    }
    computed = ("attachments",)

    def create(self, making: Making) -> None:
        names = ("availabilityZone", "consistencyGroupId", "description", "imageId", "name", "size", "snapshotId")
        asked = given(making.inputs, (*names, "sourceVolId", "volumeType"))
        spelled = {"sourceVolId": "source_volid", "imageId": "imageRef", "consistencyGroupId": "consistencygroup_id"}
        body: dict[str, Any] = {spelled.get(name, snake(name)): value for name, value in asked.items()}
        body["metadata"] = making.inputs.get("metadata") or {}
        unknown = given(making.inputs, ("schedulerHints", "backupId", "sourceReplica"))
        if unknown:
            raise ApiError(f"the stand-in cannot make a volume with {', '.join(unknown)}")
        with saying(f"Error creating {self.official}"):
            made = making.cloud.ask("block_storage", "POST", "/volumes", {"volume": body}, ok=(202,))
        making.id = id_ = str(made["volume"]["id"])
        with saying(f"Error waiting for {self.official} {id_} to become ready"):
            told, pending = gone_or(_state(making.cloud, id_)), ("downloading", "creating")
            wait(told, target=("available",), pending=pending, deadline=making.deadline)

    def read(self, cloud: Cloud, id_: str, state: Properties) -> Properties | None:
        try:
            with saying(f"Error retrieving {self.official} {id_}"):
                found = cloud.ask("block_storage", "GET", f"/volumes/{id_}")["volume"]
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        attachments = [
            {"device": a["device"], "id": a["id"], "instanceId": a["server_id"]} for a in found.get("attachments") or ()
        ]
        return state | {
            "id": id_,
            "attachments": attachments,
            "availabilityZone": found["availability_zone"],
            "backupId": found.get("backup_id") or "",
            "description": found.get("description") or "",
            "metadata": found["metadata"],
            "name": found["name"],
            "region": state.get("region") or cloud.region,
            "size": found["size"],
            "snapshotId": found.get("snapshot_id") or "",
            "sourceVolId": found.get("source_volid") or "",
            "volumeType": found.get("volume_type") or "",
        }

    def update(self, change: Change) -> None:
        if change.changed("size") or change.changed("volumeType"):
            raise ApiError("the stand-in can neither extend nor retype a volume")
        body: dict[str, Any] = {name: change.news.get(name, "") for name in ("name", "description")}
        if change.changed("metadata"):
            body["metadata"] = change.news.get("metadata") or {}
        with saying(f"Error updating {self.official} {change.id}"):
            change.cloud.ask("block_storage", "PUT", f"/volumes/{change.id}", {"volume": body}, ok=(200,))

    def delete(self, cloud: Cloud, id_: str, state: Properties, deadline: Deadline) -> None:
        """The official plugin detaches it from servers first; nothing of dhctl attaches one behind nova's back."""
        try:
            with saying(f"Error deleting {self.official} {id_}"):
                cloud.ask("block_storage", "DELETE", f"/volumes/{id_}", ok=(202,))
        except ApiError as error:
            if error.status == 404:
                return
            raise
        with saying(f"Error waiting for {self.official} {id_} to Delete: "):
            told, pending = gone_or(_state(cloud, id_)), ("deleting", "downloading", "available")
            wait(told, target=("DELETED",), pending=pending, deadline=deadline)


def _state(cloud: Cloud, id_: str) -> Callable[[], str]:
    return lambda: str(cloud.ask("block_storage", "GET", f"/volumes/{id_}")["volume"]["status"])
