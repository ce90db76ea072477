"""Networks, subnets, security groups and their rules."""

from __future__ import annotations

import ipaddress
from typing import ClassVar

from testbeds.openstack.plugin.cloud import ApiError, Cloud, Deadline
from testbeds.openstack.plugin.fields import Fields, flag, several, snake, text, text_set, texts, whole
from testbeds.openstack.plugin.kind import Change, Making, given, saying
from testbeds.openstack.plugin.neutron_kind import COMMON, Found, InsistingKind, NeutronKind
from testbeds.openstack.plugin.wire import Properties


class Network(NeutronKind):
    """A network."""

    token = "openstack:networking/network:Network"
    official = "openstack_networking_network_v2"
    collection, wrapper = "networks", "network"
    fields: ClassVar[Fields] = COMMON | {
        "adminStateUp": flag(),
        "availabilityZoneHints": text_set(fixed=True),
        "dnsDomain": text(),
        "external": flag(),
        "mtu": whole(),
        "portSecurityEnabled": flag(),
        "qosPolicyId": text(),
        "segments": several(
            {"networkType": text(), "physicalNetwork": text(), "segmentationId": whole()}, unordered=True
        ),
        "shared": flag(),
        "transparentVlan": flag(fixed=True),
    }
    computed = ("allTags",)
    plain = (
        "name",
        "description",
        "adminStateUp",
        "dnsDomain",
        "mtu",
        "portSecurityEnabled",
        "qosPolicyId",
        "shared",
        "tenantId",
    )
    updatable = ("name", "description", "adminStateUp", "shared", "portSecurityEnabled", "mtu", "dnsDomain")

    def body(self, inputs: Properties) -> Found:
        body = super().body(inputs)
        if inputs.get("external"):
            body["router:external"] = True
        if inputs.get("transparentVlan"):
            body["vlan_transparent"] = True
        return body | {snake(n): v for n, v in given(inputs, ["availabilityZoneHints"]).items()}

    def outputs(self, found: Found) -> Properties:
        return super().outputs(found) | {
            "availabilityZoneHints": found.get("availability_zone_hints") or [],
            "external": bool(found.get("router:external")),
            "segments": [],
            "transparentVlan": bool(found.get("vlan_transparent")),
        }


class Subnet(InsistingKind):
    """A subnet."""

    token = "openstack:networking/subnet:Subnet"
    official = "openstack_networking_subnet_v2"
    collection, wrapper = "subnets", "subnet"
    fields: ClassVar[Fields] = COMMON | {
        "allocationPools": several({"end": text(required=True), "start": text(required=True)}, unordered=True),
        "cidr": text(fixed=True),
        "dnsNameservers": texts(),
        "dnsPublishFixedIp": flag(),
        "enableDhcp": flag(default=True),
        "gatewayIp": text(),
        "ipVersion": whole(fixed=True, default=4),
        "ipv6AddressMode": text(fixed=True),
        "ipv6RaMode": text(fixed=True),
        "networkId": text(fixed=True, required=True),
        "noGateway": flag(zero=False),
        "prefixLength": whole(fixed=True),
        "segmentId": text(),
        "serviceTypes": texts(),
        "subnetpoolId": text(fixed=True),
    }
    computed = ("allTags",)
    plain = (
        "name",
        "description",
        "cidr",
        "enableDhcp",
        "gatewayIp",
        "ipVersion",
        "networkId",
        "segmentId",
        "subnetpoolId",
        "tenantId",
    )
    updatable = ("name", "description", "gatewayIp", "enableDhcp", "segmentId")

    def make(self, making: Making) -> str:
        cidr = making.inputs.get("cidr")
        if cidr:
            try:
                network = ipaddress.ip_network(cidr, strict=False)
            except ValueError as error:
                raise ApiError(f"Invalid CIDR {cidr}: {error}") from error
            if str(network) != cidr:
                raise ApiError(f"cidr {cidr} doesn't match subnet address {network} for {self.official}")
        return super().make(making)

    def body(self, inputs: Properties) -> Found:
        body = super().body(inputs)
        lists = ("allocationPools", "dnsNameservers", "serviceTypes", "ipv6AddressMode", "ipv6RaMode")
        body |= {snake(name): value for name, value in given(inputs, lists).items()}
        if inputs.get("prefixLength"):
            body["prefixlen"] = inputs["prefixLength"]
        if inputs.get("noGateway"):
            body["gateway_ip"] = None
        return body

    def outputs(self, found: Found) -> Properties:
        return super().outputs(found) | {
            "allocationPools": [{"end": pool["end"], "start": pool["start"]} for pool in found["allocation_pools"]],
            "dnsNameservers": found.get("dns_nameservers") or None,
            "dnsPublishFixedIp": bool(found.get("dns_publish_fixed_ip")),
            "ipv6AddressMode": found.get("ipv6_address_mode") or "",
            "ipv6RaMode": found.get("ipv6_ra_mode") or "",
            "noGateway": not found.get("gateway_ip"),
            "serviceTypes": found.get("service_types") or [],
        }

    def changes(self, change: Change) -> Found:
        lists = ("dnsNameservers", "serviceTypes", "allocationPools")
        changed = {snake(name): change.news.get(name, []) for name in lists if change.changed(name)}
        if change.changed("noGateway") and change.news.get("noGateway"):
            changed["gateway_ip"] = None
        return changed

    def waiting_words(self, id_: str) -> str:
        return f"Error waiting for {self.official} {id_} to become deleted"


class SecGroup(InsistingKind):
    """A security group."""

    token = "openstack:networking/secGroup:SecGroup"
    official = "openstack_networking_secgroup_v2"
    collection, wrapper = "security_groups", "security_group"
    fields: ClassVar[Fields] = {name: f for name, f in COMMON.items() if name != "valueSpecs"} | {
        "deleteDefaultRules": flag(fixed=True),
        "stateful": flag(),
    }
    computed = ("allTags",)
    plain = ("name", "description", "stateful", "tenantId")
    updatable = ("name", "description", "stateful")

    def make(self, making: Making) -> str:
        id_ = super().make(making)
        if making.inputs.get("deleteDefaultRules"):
            with saying(f"Error deleting a default rule for {self.official} {id_}"):
                for rule in self.get(making.cloud, id_)["security_group_rules"]:
                    making.cloud.ask("network", "DELETE", f"/security-group-rules/{rule['id']}")
        return id_

    def wait_ready(self, making: Making, id_: str) -> None:
        """It is there at once."""

    def outputs(self, found: Found) -> Properties:
        return super().outputs(found) | {"stateful": bool(found.get("stateful", True))}

    def waiting_words(self, id_: str) -> str:
        return f"Error deleting {self.official}"


class SecGroupRule(NeutronKind):
    """A rule of a security group."""

    token = "openstack:networking/secGroupRule:SecGroupRule"
    official = "openstack_networking_secgroup_rule_v2"
    collection, wrapper = "security_group_rules", "security_group_rule"
    fields: ClassVar[Fields] = {
        "description": text(fixed=True),
        "direction": text(fixed=True, required=True),
        "ethertype": text(fixed=True, required=True),
        "portRangeMax": whole(fixed=True),
        "portRangeMin": whole(fixed=True),
        "protocol": text(fixed=True),
        "region": text(fixed=True),
        "remoteAddressGroupId": text(fixed=True),
        "remoteGroupId": text(fixed=True),
        "remoteIpPrefix": text(fixed=True),
        "securityGroupId": text(fixed=True, required=True),
        "tenantId": text(fixed=True),
    }
    plain = (
        "description",
        "direction",
        "ethertype",
        "portRangeMax",
        "portRangeMin",
        "protocol",
        "remoteAddressGroupId",
        "remoteGroupId",
        "remoteIpPrefix",
        "securityGroupId",
        "tenantId",
    )

    def create(self, making: Making) -> None:
        with making.cloud.lock(making.inputs["securityGroupId"]):
            making.id = self.make(making)

    def outputs(self, found: Found) -> Properties:
        outputs = super().outputs(found)
        return outputs | {name: found.get(snake(name)) or 0 for name in ("portRangeMax", "portRangeMin")}

    def delete(self, cloud: Cloud, id_: str, state: Properties, deadline: Deadline) -> None:
        with cloud.lock(state["securityGroupId"]):
            super().delete(cloud, id_, state, deadline)
