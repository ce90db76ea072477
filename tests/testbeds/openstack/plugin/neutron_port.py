"""Ports."""

from __future__ import annotations

import json
from typing import ClassVar

from testbeds.openstack.plugin.fields import Fields, flag, several, single, snake, text, text_set, whole
from testbeds.openstack.plugin.kind import Change, given
from testbeds.openstack.plugin.neutron_kind import COMMON, Found, NeutronKind
from testbeds.openstack.plugin.wire import Properties


class Port(NeutronKind):
    """A port. Its delete is not repeated at 409."""

    token = "openstack:networking/port:Port"
    official = "openstack_networking_port_v2"
    collection, wrapper = "ports", "port"
    fields: ClassVar[Fields] = COMMON | {
        "adminStateUp": flag(),
        "allowedAddressPairs": several({"ipAddress": text(required=True), "macAddress": text()}, unordered=True),
        "binding": single({"hostId": text(), "profile": text(), "vnicType": text(default="normal")}),
        "deviceId": text(fixed=True),
        "deviceOwner": text(fixed=True),
        "dnsName": text(),
        "extraDhcpOptions": several(
            {"ipVersion": whole(default=4), "name": text(required=True), "value": text(required=True)}, unordered=True
        ),
        "fixedIps": several({"ipAddress": text(), "subnetId": text()}),
        "macAddress": text(fixed=True),
        "networkId": text(fixed=True, required=True),
        "noFixedIp": flag(),
        "noSecurityGroups": flag(),
        "portSecurityEnabled": flag(),
        "qosPolicyId": text(),
        "securityGroupIds": text_set(),
    }
    computed = ("allFixedIps", "allSecurityGroupIds", "allTags", "dnsAssignments")
    plain = (
        "name",
        "description",
        "adminStateUp",
        "deviceId",
        "deviceOwner",
        "dnsName",
        "macAddress",
        "networkId",
        "portSecurityEnabled",
        "qosPolicyId",
        "tenantId",
    )
    updatable = ("name", "description", "adminStateUp", "dnsName", "portSecurityEnabled")

    def body(self, inputs: Properties) -> Found:
        body = super().body(inputs) | self._relations(inputs)
        if inputs.get("noFixedIp"):
            body["fixed_ips"] = []
        if inputs.get("noSecurityGroups"):
            body["security_groups"] = []
        return body

    def _relations(self, inputs: Properties) -> Found:
        body: Found = {}
        if inputs.get("securityGroupIds"):
            body["security_groups"] = inputs["securityGroupIds"]
        for name, key in (("fixedIps", "fixed_ips"), ("allowedAddressPairs", "allowed_address_pairs")):
            if inputs.get(name):
                body[key] = [{snake(n): v for n, v in given(item, item).items()} for item in _items(inputs, name)]
        if inputs.get("extraDhcpOptions"):
            body["extra_dhcp_opts"] = [
                {"opt_name": o["name"], "opt_value": o["value"], "ip_version": o["ipVersion"]}
                for o in _items(inputs, "extraDhcpOptions")
            ]
        if inputs.get("binding"):
            told = given(inputs["binding"], ("hostId", "vnicType"))
            body |= {f"binding:{snake(name)}": value for name, value in told.items()}
            if inputs["binding"].get("profile"):
                body["binding:profile"] = json.loads(inputs["binding"]["profile"])
        return body

    def outputs(self, found: Found) -> Properties:
        outputs = super().outputs(found)
        pairs = [
            {
                "ipAddress": p["ip_address"],
                "macAddress": "" if p["mac_address"] == found["mac_address"] else p["mac_address"],
            }
            for p in found.get("allowed_address_pairs") or ()
        ]
        options = found.get("extra_dhcp_opts") or ()
        profile = found.get("binding:profile")
        details = found.get("binding:vif_details") or {}
        return outputs | {
            "allFixedIps": [fixed["ip_address"] for fixed in found["fixed_ips"]],
            "allSecurityGroupIds": found["security_groups"],
            "allowedAddressPairs": pairs,
            "binding": {
                "hostId": found.get("binding:host_id") or "",
                "profile": json.dumps(profile, separators=(",", ":")) if profile else "",
                "vifDetails": {n: v if isinstance(v, str) else json.dumps(v) for n, v in details.items()},
                "vifType": found.get("binding:vif_type") or "",
                "vnicType": found.get("binding:vnic_type") or "normal",
            },
            "dnsAssignments": found.get("dns_assignment") or [],
            "extraDhcpOptions": [
                {"ipVersion": o["ip_version"], "name": o["opt_name"], "value": o["opt_value"]} for o in options
            ],
        }

    def changes(self, change: Change) -> Found:
        changed: Properties = {
            n: change.news[n] for n in ("fixedIps", "allowedAddressPairs") if n in change.news and change.changed(n)
        }
        body = self._relations(changed)
        if "allowedAddressPairs" in change.olds and "allowedAddressPairs" not in change.news:
            body["allowed_address_pairs"] = []
        if change.changed("securityGroupIds") or change.changed("noSecurityGroups"):
            body["security_groups"] = change.news.get("securityGroupIds") or []
        return body


def _items(inputs: Properties, name: str) -> list[Properties]:
    return [{n: v for n, v in item.items() if n != "__defaults"} for item in inputs[name]]
