"""Keypairs and server groups."""

from __future__ import annotations

from typing import ClassVar

from testbeds.openstack.plugin.cloud import ApiError, Cloud, Deadline
from testbeds.openstack.plugin.fields import Fields, mapping, single, text, whole
from testbeds.openstack.plugin.kind import Kind, Making, given, saying
from testbeds.openstack.plugin.wire import Properties

GROUP_RULES = "2.64"
"""Since this microversion a server group has one policy, and rules."""


class Keypair(Kind):
    """A keypair; its id is its name."""

    token = "openstack:compute/keypair:Keypair"
    official = "openstack_compute_keypair_v2"
    fields: ClassVar[Fields] = {
        "name": text(fixed=True),
        "publicKey": text(fixed=True),
        "region": text(fixed=True),
        "userId": text(fixed=True),
        "valueSpecs": mapping(fixed=True),
    }
    computed = ("fingerprint", "privateKey")

    def create(self, making: Making) -> None:
        name = making.inputs["name"]
        body = {"name": name}
        if making.inputs.get("publicKey"):
            body["public_key"] = making.inputs["publicKey"]
        with saying(f"Unable to create {self.official} {name}"):
            made = making.cloud.ask("compute", "POST", "/os-keypairs", {"keypair": body}, ok=(200, 201))
        making.id = made["keypair"]["name"]
        making.told_once = {"privateKey": made["keypair"].get("private_key") or ""}

    def read(self, cloud: Cloud, id_: str, state: Properties) -> Properties | None:
        try:
            with saying(f"Error retrieving {self.official} {id_}"):
                found = cloud.ask("compute", "GET", f"/os-keypairs/{id_}")["keypair"]
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return state | {
            "id": id_,
            "name": found["name"],
            "publicKey": found["public_key"],
            "fingerprint": found["fingerprint"],
            "region": state.get("region") or cloud.region,
            "userId": state.get("userId") or "",
        }

    def delete(self, cloud: Cloud, id_: str, state: Properties, deadline: Deadline) -> None:
        try:
            with saying(f"Error deleting {self.official} {id_}"):
                cloud.ask("compute", "DELETE", f"/os-keypairs/{id_}")
        except ApiError as error:
            if error.status != 404:
                raise


class ServerGroup(Kind):
    """A server group with one policy."""

    token = "openstack:compute/serverGroup:ServerGroup"
    official = "openstack_compute_servergroup_v2"
    fields: ClassVar[Fields] = {
        "name": text(fixed=True),
        "policies": text(fixed=True),
        "region": text(fixed=True),
        "rules": single({"maxServerPerHost": whole()}, fixed=True),
        "valueSpecs": mapping(fixed=True),
    }
    computed = ("members",)

    def create(self, making: Making) -> None:
        name = making.inputs["name"]
        body = {"name": name, "policy": making.inputs.get("policies", "")}
        rules = given(making.inputs.get("rules") or {}, ("maxServerPerHost",))
        if rules:
            body["rules"] = {"max_server_per_host": rules["maxServerPerHost"]}
        with saying(f"Error creating {self.official} {name}"):
            request = {"server_group": body}
            made = making.cloud.ask("compute", "POST", "/os-server-groups", request, ok=(200,), version=GROUP_RULES)
        making.id = made["server_group"]["id"]

    def read(self, cloud: Cloud, id_: str, state: Properties) -> Properties | None:
        try:
            with saying(f"Error retrieving {self.official} {id_}"):
                found = cloud.ask("compute", "GET", f"/os-server-groups/{id_}", version=GROUP_RULES)["server_group"]
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return state | {
            "id": id_,
            "name": found["name"],
            "members": found["members"],
            "policies": found["policy"],
            "region": state.get("region") or cloud.region,
            "rules": {"maxServerPerHost": found["rules"].get("max_server_per_host", 0)},
        }

    def delete(self, cloud: Cloud, id_: str, state: Properties, deadline: Deadline) -> None:
        try:
            with saying(f"Error deleting {self.official} {id_}"):
                cloud.ask("compute", "DELETE", f"/os-server-groups/{id_}")
        except ApiError as error:
            if error.status != 404:
                raise
