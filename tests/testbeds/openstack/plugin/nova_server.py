"""Servers."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Callable
from typing import ClassVar

from testbeds.openstack.plugin.cloud import RETRIED, ApiError, Cloud, Deadline, gone_or, wait
from testbeds.openstack.plugin.fields import Fields, flag, mapping, several, single, text, text_set, texts, whole
from testbeds.openstack.plugin.kind import Change, Kind, Making, given, saying
from testbeds.openstack.plugin.nova_words import (
    SERVER_TAGS,
    Found,
    block_device,
    flavor_id,
    flavor_name,
    go_time,
    hints,
    image_id,
    microversion,
    needs_image,
    networks_told,
    nic_request,
)
from testbeds.openstack.plugin.wire import Properties

FROM_VOLUME = "Attempt to boot from volume - no image supplied"
_STATES = ("active", "shutoff", "error", "migrating", "shelved_offloaded", "shelved", "build", "paused")


class Instance(Kind):
    """A server. Its id is set before it is waited for, so one in ERROR is in the state."""

    token = "openstack:compute/instance:Instance"
    official = "openstack_compute_instance_v2"
    fields: ClassVar[Fields] = {
        "adminPass": text(),
        "availabilityZone": text(fixed=True),
        "availabilityZoneHints": text(fixed=True),
        "blockDevices": several(
            {
                "bootIndex": whole(),
                "deleteOnTermination": flag(),
                "destinationType": text(),
                "deviceType": text(),
                "diskBus": text(),
                "guestFormat": text(),
                "multiattach": flag(),
                "sourceType": text(required=True),
                "uuid": text(),
                "volumeSize": whole(),
                "volumeType": text(),
            },
            fixed=True,
        ),
        "configDrive": flag(fixed=True),
        "flavorId": text(),
        "flavorName": text(),
        "forceDelete": flag(zero=False),
        "hypervisorHostname": text(fixed=True),
        "imageId": text(),
        "imageName": text(),
        "keyPair": text(fixed=True),
        "metadata": mapping(),
        "name": text(),
        "networkMode": text(fixed=True),
        "networks": several(
            {
                "accessNetwork": flag(),
                "fixedIpV4": text(),
                "fixedIpV6": text(),
                "mac": text(),
                "name": text(),
                "port": text(),
                "uuid": text(),
            },
            fixed=True,
        ),
        "personalities": several({"content": text(required=True), "file": text(required=True)}, fixed=True),
        "powerState": text(default="active"),
        "region": text(fixed=True),
        "schedulerHints": several(
            {
                "additionalProperties": mapping(),
                "buildNearHostIp": text(),
                "differentCells": texts(),
                "differentHosts": texts(),
                "group": text(),
                "queries": texts(),
                "sameHosts": texts(),
                "targetCell": text(),
            },
            fixed=True,
        ),
        "securityGroups": text_set(),
        "stopBeforeDestroy": flag(zero=False),
        "tags": text_set(),
        "userData": text(fixed=True),
        "vendorOptions": single({"detachPortsBeforeDestroy": flag(), "ignoreResizeConfirmation": flag()}),
    }
    computed = ("accessIpV4", "accessIpV6", "allMetadata", "allTags", "created", "updated")
    silent = ("userData", "adminPass")
    create_s = update_s = delete_s = 1800.0

    def blank(self, inputs: Properties) -> Properties:
        blank = super().blank(inputs)
        data = blank["userData"]
        hashed = hashlib.sha1(data.encode(), usedforsecurity=False).hexdigest() if data else None
        return blank | {"userData": hashed}

    def create(self, making: Making) -> None:
        cloud, inputs = making.cloud, making.inputs
        body: Found = {"server": self._body(cloud, inputs)}
        if inputs.get("schedulerHints"):
            body["os:scheduler_hints"] = hints(inputs["schedulerHints"][0])
        with saying("Error creating OpenStack server"):
            made = cloud.ask("compute", "POST", "/servers", body, ok=(200, 202), version=microversion(inputs))
        making.id = id_ = str(made["server"]["id"])
        state = _state(cloud, id_)
        with saying(f"Error waiting for instance ({id_}) to become ready"):
            told = gone_or(state)
            wait(told, target=("ACTIVE",), pending=("BUILD",), deadline=making.deadline, tolerated=RETRIED)
        if inputs.get("powerState") == "shutoff":
            _stop(cloud, id_, making.deadline)

    def _body(self, cloud: Cloud, inputs: Properties) -> Found:
        image, flavor = image_id(cloud, inputs), flavor_id(cloud, inputs)
        body: Found = {
            "name": inputs["name"],
            "flavorRef": flavor,
            "config_drive": bool(inputs.get("configDrive")),
            "metadata": inputs.get("metadata") or {},
        }
        plain = {"availabilityZone": "availability_zone", "availabilityZoneHints": "availability_zone"}
        plain |= {"keyPair": "key_name", "adminPass": "adminPass", "hypervisorHostname": "hypervisor_hostname"}
        body |= {plain[name]: value for name, value in given(inputs, plain).items()}
        if image:
            body["imageRef"] = image
        if inputs.get("userData"):
            body["user_data"] = base64.b64encode(inputs["userData"].encode()).decode()
        if inputs.get("securityGroups"):
            body["security_groups"] = [{"name": name} for name in inputs["securityGroups"]]
        if inputs.get("tags"):
            body["tags"] = inputs["tags"]
        if inputs.get("blockDevices"):
            body["block_device_mapping_v2"] = [block_device(device) for device in inputs["blockDevices"]]
        body["networks"] = inputs.get("networkMode") or [
            nic_request(cloud, nic) for nic in inputs.get("networks") or ()
        ]
        return body

    def read(self, cloud: Cloud, id_: str, state: Properties) -> Properties | None:
        try:
            found: Found = cloud.ask("compute", "GET", f"/servers/{id_}", ok=(200, 203))["server"]
        except ApiError as error:
            if error.status == 404:
                return None
            raise ApiError(f"server {id_}: {error}", error.status) from error
        status = str(found["status"]).lower()
        if status not in _STATES:
            raise ApiError(f"Invalid power_state for instance {id_}: {found['status']}")
        networks = list(networks_told(cloud, found, state))
        tags = self._tags(cloud, id_, state)
        return (
            state
            | self._image_told(cloud, found, state)
            | tags
            | {
                "id": id_,
                "name": found["name"],
                "created": go_time(found["created"]),
                "updated": go_time(found["updated"]),
                "networks": networks,
                "accessIpV4": next((n["fixedIpV4"] for n in networks if n["fixedIpV4"]), "") or found["accessIPv4"],
                "accessIpV6": next((n["fixedIpV6"] for n in networks if n["fixedIpV6"]), "") or found["accessIPv6"],
                "allMetadata": found["metadata"],
                "availabilityZone": found.get("OS-EXT-AZ:availability_zone") or "",
                "flavorId": found["flavor"]["id"],
                "flavorName": flavor_name(cloud, found["flavor"]["id"]),
                "hypervisorHostname": found.get("OS-EXT-SRV-ATTR:hypervisor_hostname") or "",
                "keyPair": found["key_name"] or "",
                "powerState": status,
                "region": state.get("region") or cloud.region,
                "securityGroups": sorted(group["name"] for group in found.get("security_groups") or ()),
            }
        )

    def _tags(self, cloud: Cloud, id_: str, state: Properties) -> Properties:
        try:
            found = cloud.ask("compute", "GET", f"/servers/{id_}/tags", version=SERVER_TAGS)["tags"]
        except ApiError:  # the official plugin goes on without them too
            return {}
        told: Properties = {"allTags": sorted(found)}
        return told | ({"tags": [tag for tag in state["tags"] if tag in found]} if state.get("tags") else {})

    def _image_told(self, cloud: Cloud, found: Found, state: Properties) -> Properties:
        if state.get("blockDevices") and not needs_image(state):
            return {"imageId": FROM_VOLUME}
        image = found["image"]["id"] if found.get("image") else ""
        if not image:
            return {}
        try:
            return {"imageId": image, "imageName": cloud.ask("image", "GET", f"/images/{image}")["name"]}
        except ApiError as error:
            if error.status == 404:
                return {"imageId": image, "imageName": "Image not found"}
            raise

    def update(self, change: Change) -> None:
        cloud, id_, news = change.cloud, change.id, change.news
        if any(map(change.changed, ("flavorId", "flavorName", "imageId", "imageName", "securityGroups"))):
            raise ApiError("the stand-in can neither resize nor rebuild a server, nor change its security groups")
        if change.changed("name"):
            with saying("Error updating OpenStack server"):
                cloud.ask("compute", "PUT", f"/servers/{id_}", {"server": {"name": news["name"]}}, ok=(200,))
        if change.changed("metadata"):
            with saying(f"Error updating OpenStack server ({id_}) metadata"):
                body = {"metadata": news.get("metadata") or {}}
                cloud.ask("compute", "PUT", f"/servers/{id_}/metadata", body, ok=(200,))
        if change.changed("tags"):
            with saying(f"Error setting tags on {self.official} {id_}"):
                body = {"tags": news.get("tags") or []}
                cloud.ask("compute", "PUT", f"/servers/{id_}/tags", body, ok=(200,), version=SERVER_TAGS)
        if change.changed("powerState"):
            self._power(change)

    def _power(self, change: Change) -> None:
        match change.news["powerState"]:
            case "shutoff":
                _stop(change.cloud, change.id, change.deadline)
            case "active":
                with saying("Error starting OpenStack instance"):
                    _act(change.cloud, change.id, "os-start")
                with saying(f"Error waiting for instance ({change.id}) to become active"):
                    wait(_state(change.cloud, change.id), target=("ACTIVE",), deadline=change.deadline)
            case other:
                raise ApiError(f"the stand-in cannot bring a server to {other}")

    def delete(self, cloud: Cloud, id_: str, state: Properties, deadline: Deadline) -> None:
        if state.get("stopBeforeDestroy"):
            with contextlib.suppress(ApiError):  # the official plugin deletes it then all the same
                _stop(cloud, id_, deadline)
        if (state.get("vendorOptions") or {}).get("detachPortsBeforeDestroy"):
            raise ApiError("the stand-in knows no detachPortsBeforeDestroy")
        forced = bool(state.get("forceDelete"))
        try:
            with saying(f"Error {'force ' if forced else ''}deleting {self.official} {id_}"):
                if forced:
                    _act(cloud, id_, "forceDelete")
                else:
                    cloud.ask("compute", "DELETE", f"/servers/{id_}")
        except ApiError as error:
            if error.status == 404:
                return
            raise
        with saying(f"Error waiting for instance ({id_}) to Delete: "):
            gone, told = ("DELETED", "SOFT_DELETED"), gone_or(_state(cloud, id_))
            wait(told, target=gone, pending=("ACTIVE", "SHUTOFF"), deadline=deadline)


def _state(cloud: Cloud, id_: str) -> Callable[[], str]:
    return lambda: str(cloud.ask("compute", "GET", f"/servers/{id_}", ok=(200, 203))["server"]["status"])


def _act(cloud: Cloud, id_: str, action: str) -> None:
    cloud.ask("compute", "POST", f"/servers/{id_}/action", {action: None}, ok=(202,))


def _stop(cloud: Cloud, id_: str, deadline: Deadline) -> None:
    with saying("Error stopping OpenStack instance"):
        _act(cloud, id_, "os-stop")
    with saying(f"Error waiting for instance ({id_}) to become inactive(shutoff)"):
        wait(_state(cloud, id_), target=("SHUTOFF",), deadline=deadline)
