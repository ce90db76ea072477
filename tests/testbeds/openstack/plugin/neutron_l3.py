"""Routers, their interfaces, floating IPs and their associations."""

from __future__ import annotations

from typing import Any, ClassVar

from testbeds.openstack.plugin.cloud import ApiError, Cloud, Deadline
from testbeds.openstack.plugin.fields import Fields, flag, several, single, snake, text, texts
from testbeds.openstack.plugin.kind import Change, Making, given, saying
from testbeds.openstack.plugin.neutron_kind import COMMON, Found, InsistingKind, NeutronKind
from testbeds.openstack.plugin.wire import Properties


class Router(NeutronKind):
    """A router with its gateway."""

    token = "openstack:networking/router:Router"
    official = "openstack_networking_router_v2"
    collection, wrapper = "routers", "router"
    fields: ClassVar[Fields] = COMMON | {
        "adminStateUp": flag(),
        "availabilityZoneHints": texts(fixed=True),
        "distributed": flag(fixed=True),
        "enableSnat": flag(),
        "externalFixedIps": several({"ipAddress": text(), "subnetId": text()}),
        "externalNetworkId": text(),
        "externalQosPolicyId": text(),
        "externalSubnetIds": texts(),
        "flavorId": text(fixed=True),
        "vendorOptions": single({"setRouterGatewayAfterCreate": flag()}),
    }
    computed = ("allTags",)
    plain = ("name", "description", "adminStateUp", "distributed", "flavorId", "tenantId")
    updatable = ("name", "description", "adminStateUp")

    def body(self, inputs: Properties) -> Found:
        body = super().body(inputs)
        body |= {snake(name): value for name, value in given(inputs, ["availabilityZoneHints"]).items()}
        return body | ({"external_gateway_info": _gateway(inputs)} if inputs.get("externalNetworkId") else {})

    def outputs(self, found: Found) -> Properties:
        gateway: Found = found.get("external_gateway_info") or {}
        return super().outputs(found) | {
            "availabilityZoneHints": found.get("availability_zone_hints") or [],
            "distributed": bool(found.get("distributed")),
            "enableSnat": bool(gateway.get("enable_snat")),
            "externalFixedIps": [
                {"ipAddress": fixed["ip_address"], "subnetId": fixed["subnet_id"]}
                for fixed in gateway.get("external_fixed_ips") or ()
            ],
            "externalNetworkId": gateway.get("network_id") or "",
        }

    def changes(self, change: Change) -> Found:
        names = ("externalNetworkId", "externalQosPolicyId", "enableSnat", "externalFixedIps")
        return {"external_gateway_info": _gateway(change.news)} if any(map(change.changed, names)) else {}


def _gateway(inputs: Properties) -> Found:
    names = {"externalNetworkId": "network_id", "externalQosPolicyId": "qos_policy_id", "enableSnat": "enable_snat"}
    gateway: Found = {names[name]: value for name, value in given(inputs, names).items()}
    fixed = inputs.get("externalFixedIps") or [{"subnetId": id_} for id_ in (inputs.get("externalSubnetIds") or ())[:1]]
    if fixed:
        gateway["external_fixed_ips"] = [
            {snake(n): v for n, v in given(ip, ("ipAddress", "subnetId")).items()} for ip in fixed
        ]
    return gateway


class RouterInterface(InsistingKind):
    """A router's port on a subnet; its id is the port's."""

    token = "openstack:networking/routerInterface:RouterInterface"
    official = "openstack_networking_router_interface_v2"
    collection, wrapper = "ports", "port"
    fields: ClassVar[Fields] = {
        "forceDestroy": flag(zero=False),
        "portId": text(fixed=True),
        "region": text(fixed=True),
        "routerId": text(fixed=True, required=True),
        "subnetId": text(fixed=True),
    }
    plain = ()

    def make(self, making: Making) -> str:
        router, body = making.inputs["routerId"], _interface(making.inputs)
        with making.cloud.lock(router), saying(f"Error creating {self.official}"):
            made = making.cloud.ask("network", "PUT", f"/routers/{router}/add_router_interface", body, ok=(200,))
        return str(made["port_id"])

    def outputs(self, found: Found) -> Properties:
        fixed = found["fixed_ips"]
        outputs = {"routerId": found["device_id"], "portId": found["id"]}
        return outputs | ({"subnetId": fixed[0]["subnet_id"]} if len(fixed) == 1 else {})

    def update(self, change: Change) -> None:
        """`forceDestroy` is all that can change, and it lives in the state."""

    def attempt(self, cloud: Cloud, id_: str, state: Properties) -> None:
        if state.get("forceDestroy"):
            raise ApiError("the stand-in knows no forceDestroy")
        path = f"/routers/{state['routerId']}/remove_router_interface"
        cloud.ask("network", "PUT", path, _interface(state), ok=(200,))

    def waiting_words(self, id_: str) -> str:
        return f"Error waiting for {self.official} {id_} to Delete: "


def _interface(values: Properties) -> dict[str, str]:
    """Only the subnet where it is known: a port may carry several interfaces."""
    subnet: str | None = values.get("subnetId")
    return {"subnet_id": subnet} if subnet else {"port_id": values["portId"]}


class FloatingIp(NeutronKind):
    """A floating IP of a pool, which is an external network."""

    token = "openstack:networking/floatingIp:FloatingIp"
    official = "openstack_networking_floatingip_v2"
    collection, wrapper = "floatingips", "floatingip"
    fields: ClassVar[Fields] = {name: f for name, f in COMMON.items() if name != "name"} | {
        "address": text(fixed=True),
        "dnsDomain": text(fixed=True),
        "dnsName": text(fixed=True),
        "fixedIp": text(),
        "pool": text(fixed=True, required=True),
        "portId": text(),
        "subnetId": text(),
        "subnetIds": texts(),
    }
    computed = ("allTags",)
    plain = ("description", "dnsDomain", "dnsName", "portId", "tenantId")
    updatable = ("description",)

    def make(self, making: Making) -> str:
        pool = making.inputs["pool"]
        with saying(f"Error retrieving ID for {self.official} pool name {pool}"):
            found = making.cloud.ask("network", "GET", f"/networks?name={pool}&router:external=True")["networks"]
        if not found:
            raise ApiError(f"No network found with name: {pool}")
        return super().make(Making(making.cloud, making.inputs | {"_poolId": found[0]["id"]}, making.deadline))

    def body(self, inputs: Properties) -> Found:
        body = super().body(inputs) | {"floating_network_id": inputs["_poolId"]}
        subnet = inputs.get("subnetId") or next(iter(inputs.get("subnetIds") or ()), None)
        more = {
            "floating_ip_address": inputs.get("address"),
            "fixed_ip_address": inputs.get("fixedIp"),
            "subnet_id": subnet,
        }
        return body | {name: value for name, value in more.items() if value}

    def read(self, cloud: Cloud, id_: str, state: Properties) -> Properties | None:
        outputs = super().read(cloud, id_, state)
        if outputs is None:
            return None
        network = outputs.pop("_network")
        with saying(f"Error retrieving pool name for {self.official} {id_}"):
            outputs["pool"] = cloud.ask("network", "GET", f"/networks/{network}")["network"]["name"]
        return outputs

    def outputs(self, found: Found) -> Properties:
        return super().outputs(found) | {
            "_network": found["floating_network_id"],
            "address": found["floating_ip_address"],
            "fixedIp": found.get("fixed_ip_address") or "",
        }

    def changes(self, change: Change) -> Found:
        if not change.changed("portId") and not change.changed("fixedIp"):
            return {}
        changed: Found = {"port_id": change.news.get("portId") or None}
        return changed | ({"fixed_ip_address": change.news["fixedIp"]} if change.news.get("fixedIp") else {})


class FloatingIpAssociate(NeutronKind):
    """A floating IP's port. Its id is the floating IP's, and its delete fails when that is gone."""

    token = "openstack:networking/floatingIpAssociate:FloatingIpAssociate"
    official = "openstack_networking_floatingip_associate_v2"
    collection, wrapper = "floatingips", "floatingip"
    fields: ClassVar[Fields] = {
        "fixedIp": text(),
        "floatingIp": text(fixed=True, required=True),
        "portId": text(required=True),
        "region": text(fixed=True),
    }
    plain = ("portId",)
    updatable = ()

    def create(self, making: Making) -> None:
        address, port = making.inputs["floatingIp"], making.inputs["portId"]
        with saying(f"Unable to get ID of {self.official} floating_ip {address}"):
            found = making.cloud.ask("network", "GET", f"/floatingips?floating_ip_address={address}")["floatingips"]
            if len(found) != 1:
                many = "more than one" if found else "no"
                raise ApiError(f"there are {many} openstack_networking_floatingip_v2 with {address} IP")
        id_ = str(found[0]["id"])
        body: dict[str, Any] = {"port_id": port}
        if making.inputs.get("fixedIp"):
            body["fixed_ip_address"] = making.inputs["fixedIp"]
        with saying(f"Error associating {self.official} floating_ip {id_} with port {port}"):
            making.cloud.ask("network", "PUT", self.path(id_), {self.wrapper: body}, ok=(200,))
        making.id = id_

    def outputs(self, found: Found) -> Properties:
        return super().outputs(found) | {
            "fixedIp": found.get("fixed_ip_address") or "",
            "floatingIp": found["floating_ip_address"],
        }

    def changes(self, change: Change) -> Found:
        changed: Found = {"port_id": change.news["portId"]}
        return changed | ({"fixed_ip_address": change.news["fixedIp"]} if change.changed("fixedIp") else {})

    def delete(self, cloud: Cloud, id_: str, state: Properties, deadline: Deadline) -> None:
        with saying(f"Error disassociating {self.official} floating_ip {id_} with port {state['portId']}"):
            cloud.ask("network", "PUT", self.path(id_), {self.wrapper: {"port_id": None}}, ok=(200,))
