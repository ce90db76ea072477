"""A server in the words of its inputs, of nova's requests, and of its outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from testbeds.openstack.plugin.cloud import ApiError, Cloud
from testbeds.openstack.plugin.fields import snake
from testbeds.openstack.plugin.kind import given
from testbeds.openstack.plugin.wire import Properties

Found = dict[str, Any]
NO_MODE, NETWORK_MODE, SERVER_TAGS, CREATE_TAGS, VOLUME_TYPE, HOSTNAME = "", "2.37", "2.26", "2.52", "2.67", "2.74"
"""Microversions from which nova knows what their names say."""


def microversion(inputs: Properties) -> str:
    """The lowest microversion that knows all that is asked for."""
    wanted = {
        NETWORK_MODE: inputs.get("networkMode"),
        CREATE_TAGS: inputs.get("tags"),
        VOLUME_TYPE: any(device.get("volumeType") for device in inputs.get("blockDevices") or ()),
        HOSTNAME: inputs.get("hypervisorHostname"),
    }
    return max((version for version, asked in wanted.items() if asked), default=NO_MODE)


def needs_image(values: Properties) -> bool:
    devices = values.get("blockDevices") or ()
    return not devices or any(d.get("sourceType") == "image" and d.get("destinationType") == "local" for d in devices)


def image_id(cloud: Cloud, inputs: Properties) -> str:
    if not needs_image(inputs):
        return ""
    if inputs.get("imageId"):
        return str(inputs["imageId"])
    name = inputs.get("imageName")
    if not name:
        raise ApiError("Neither a boot device, image ID, or image name were able to be determined")
    return _only(cloud.ask("image", "GET", f"/images?name={name}")["images"], "image", name)


def flavor_id(cloud: Cloud, inputs: Properties) -> str:
    if inputs.get("flavorId"):
        return str(inputs["flavorId"])
    name = inputs.get("flavorName")
    if not name:
        raise ApiError("Neither a flavor_id or flavor_name could be determined")
    found = cloud.ask("compute", "GET", "/flavors/detail")["flavors"]
    return _only([flavor for flavor in found if flavor["name"] == name], "flavor", name)


def _only(found: list[Found], what: str, name: str) -> str:
    """The id of the one that was found, in gophercloud's words where there is not one."""
    if not found:
        raise ApiError(f"Unable to find {what} with name {name}")
    if len(found) > 1:
        raise ApiError(f"Found {len(found)} {what}s matching {name}")
    return str(found[0]["id"])


def flavor_name(cloud: Cloud, id_: str) -> str:
    try:
        return str(cloud.ask("compute", "GET", f"/flavors/{id_}")["flavor"]["name"])
    except ApiError as error:
        if error.status == 404:
            return ""
        raise


def block_device(device: Properties) -> Found:
    """A block device in nova's spelling."""
    asked = {snake(name): value for name, value in device.items() if name not in ("__defaults", "multiattach")}
    source = asked["source_type"]
    if source != "blank" and not asked.get("uuid"):
        raise ApiError(f"You must specify a uuid for {source} block device types")
    if source == "image" and asked.get("destination_type") == "volume" and not asked.get("volume_size"):
        raise ApiError("You must specify a volume_size when creating a volume from an image")
    return {"boot_index": 0, "delete_on_termination": False} | asked


def hints(hints: Properties) -> Found:
    names = {"group": "group", "differentHosts": "different_host", "sameHosts": "same_host", "queries": "query"}
    told = {names[name]: value for name, value in given(hints, names).items()}
    return told | (hints.get("additionalProperties") or {})


def nic_request(cloud: Cloud, nic: Properties) -> Found:
    """A network of a create: by port, by network's id, or by network's name."""
    told: Found = {}
    if nic.get("port"):
        told["port"] = nic["port"]
    elif nic.get("uuid"):
        told["uuid"] = nic["uuid"]
    elif nic.get("name"):
        told["uuid"] = _only(
            cloud.ask("network", "GET", f"/networks?name={nic['name']}")["networks"], "network", nic["name"]
        )
    if nic.get("fixedIpV4"):
        told["fixed_ip"] = nic["fixedIpV4"]
    return told


def networks_told(cloud: Cloud, found: Found, state: Properties) -> Iterator[Properties]:
    """What is known of each of the server's NICs: of those that were asked for, else of all."""
    addresses = {name: list(_nics(told)) for name, told in found["addresses"].items()}
    asked = state.get("networks") or []
    for nic in asked:
        uuid = nic.get("uuid") or _network_of(cloud, nic)
        name = nic.get("name") or (cloud.ask("network", "GET", f"/networks/{uuid}")["network"]["name"] if uuid else "")
        if addresses.get(name):
            told = {"accessNetwork": bool(nic.get("accessNetwork")), "name": name, "uuid": uuid}
            yield told | {"port": nic.get("port") or ""} | addresses[name].pop(0)
    if not asked:
        for name, nics in addresses.items():
            for told in nics:
                yield {"accessNetwork": False, "name": name, "port": "", "uuid": ""} | told


def _network_of(cloud: Cloud, nic: Properties) -> str:
    try:
        return (
            str(cloud.ask("network", "GET", f"/ports/{nic['port']}")["port"]["network_id"]) if nic.get("port") else ""
        )
    except ApiError as error:
        if error.status == 404:
            return ""
        raise


def _nics(told: list[Found]) -> Iterator[Properties]:
    """IPv4 and IPv6 of one MAC belong together; floating addresses do not count."""
    nics: dict[str, Properties] = {}
    for address in told:
        mac = address.get("OS-EXT-IPS-MAC:mac_addr", "")
        nic = nics.setdefault(mac, {"fixedIpV4": "", "fixedIpV6": "", "mac": mac})
        if address.get("OS-EXT-IPS:type") in ("fixed", None):
            nic["fixedIpV6" if address["version"] == 6 else "fixedIpV4"] = address["addr"]
    yield from nics.values()


def go_time(told: str) -> str:
    """2026-11-24T01:04:08Z as Go prints it."""
    return told.replace("T", " ").replace("Z", " +0000 UTC")
