"""The OpenStack stack, declared against an engine that only notes: marks, no secret, what the spec wants."""

from __future__ import annotations

import json
from typing import Any

from dhctl.infra.openstack.choices import Choices
from dhctl.infra.openstack.components import CREDENTIAL_MARGIN_S, Blueprint
from dhctl.infra.openstack.flavors import FlavorSize
from dhctl.infra.openstack.mark import Mark
from dhctl.infra.openstack.plan import resources
from dhctl.infra.openstack.section import OpenStackSection
from dhctl.stacks.openstack.program import declare
from unit.fake_openstack import cloud_spec
from unit.noting_engine import Declared, noted

MARK = Mark("dh-aaaabbbbcc", 1_800_000_000)
RULES = ({"service": "compute", "method": "GET", "path": "/v2.1/servers"},)
UNMARKED = ("router-interface", "-rule")
"""Parts of marked things, which go with them."""


def user_data(*ids: str) -> str:
    return f"#cloud-config {json.dumps(ids)}"


def declared(choices: dict[str, Any] | None = None, **section: Any) -> Declared:
    """What the program makes of a section at a site with network `public`."""
    size = FlavorSize("small", 2, 4096, 20)
    found = {"external_network_id": "out-1", "external_network": "public", "network_id": "", **(choices or {})}
    wanted = {"image": "debian", "flavor": "small", "external_network": "public", "ssh_from": ["192.0.2.0/24"]}
    plan = Blueprint(
        MARK,
        OpenStackSection.model_validate({**wanted, **section}),
        Choices(
            image_id="i1", head_flavor_id="f-h", worker_flavor_id="f-w", worker_size=size, roles=("member",), **found
        ),
    )
    return noted(lambda: declare(plan, "ssh-ed25519 AAAA", RULES, user_data))


FULL: dict[str, Any] = {"server_group": "anti-affinity", "boot_volume": "20GiB"}


def test_every_resource_carries_the_mark() -> None:
    engine = declared(**FULL).noted
    for name in engine.names:
        if name.endswith(UNMARKED):
            continue
        inputs = engine.inputs(name)
        named = str(inputs.get("name", "")).startswith(f"{MARK.run_id}-")
        assert named or name == "floating-ip", f"{name} has no name by which its owner is told"
        marked = inputs.get("tags") == MARK.tags or inputs.get("metadata") == MARK.metadata("head")
        assert marked or name in ("keypair", "server-group", "credential"), f"{name} carries no mark"
        if "tags" in inputs:
            assert inputs["description"] == MARK.text, f"{name}: tags are written after it is made"
    assert engine.inputs("credential")["description"] == MARK.text


def test_what_is_unmarked_is_part_of_something_marked() -> None:
    engine = declared(ssh_from=["192.0.2.0/24", "2001:db8::/32"]).noted
    unmarked = {name for name in engine.names if name.endswith(UNMARKED)}
    assert unmarked == {"router-interface", "among-members-rule", "ssh-0-rule", "ssh-1-rule"}


def test_it_is_what_the_plan_says() -> None:
    for section in ({}, FULL, {"floating_ip": False}):
        planned = {r.name for r in resources(cloud_spec(**section)) if r.made_by == "Pulumi"}
        assert {name for name in declared(**section).noted.names if not name.endswith("-rule")} == planned


def test_an_existing_network_is_used_and_none_is_made() -> None:
    stack = declared({"network_id": "lab-1"}, network="lab")
    made = {"network", "subnet", "router", "router-interface"} & stack.noted.names
    assert made == set()
    port = stack.noted.inputs("head-port")
    assert port["networkId"] == "lab-1"
    assert "fixedIps" not in port
    assert json.loads(stack.noted.inputs("head")["userData"].partition(" ")[2])[0] == "lab-1"


def test_without_a_way_out_there_is_no_router() -> None:
    names = declared({"external_network_id": "", "external_network": ""}, floating_ip=False).noted.names
    assert names >= {"network", "subnet"}
    assert not names & {"router", "router-interface", "floating-ip"}


def test_its_own_network_has_the_specs_addresses() -> None:
    engine = declared(cidr="10.9.0.0/24", dns_servers=["9.9.9.9"]).noted
    assert engine.inputs("subnet")["cidr"] == "10.9.0.0/24"
    assert engine.inputs("subnet")["dnsNameservers"] == ["9.9.9.9"]
    assert engine.inputs("router")["externalNetworkId"] == "out-1"
    assert engine.inputs("head-port")["fixedIps"] == [{"subnetId": "id-subnet"}]


def test_without_a_floating_ip_the_heads_own_address_is_all() -> None:
    stack = declared(floating_ip=False)
    assert "floating-ip" not in stack.noted.names
    assert (stack.outputs["address"], stack.outputs["floating_ip"]) == ("10.77.0.5", "")


def test_the_exports_are_what_the_target_reads() -> None:
    stack = declared()
    assert stack.outputs == {
        "address": "10.77.0.5",
        "floating_ip": "198.51.100.9",
        "head_server": "id-head",
        "credential_id": "id-credential",
        "credential_secret": "narrow",
    }
    floating = stack.noted.inputs("floating-ip")
    assert (floating["pool"], floating["portId"]) == ("public", "id-head-port")


def test_the_credentials_secret_is_exported_as_one() -> None:
    assert declared().secret == {"credential_secret"}


def test_no_secret_is_in_any_input() -> None:
    engine = declared(**FULL).noted
    told = json.dumps({name: engine.inputs(name) for name in engine.made}, default=str)
    assert "narrow" not in told
    assert "PRIVATE" not in told
    assert engine.inputs("keypair") == {"name": f"{MARK.run_id}-key", "publicKey": "ssh-ed25519 AAAA"}
    assert engine.inputs("head")["userData"] == user_data("id-network", "id-members-security-group", *IDS)


IDS = (f"{MARK.run_id}-key", "id-server-group")


def test_only_ssh_comes_in_and_only_from_the_given_ranges() -> None:
    engine = declared(ssh_from=["192.0.2.0/24", "2001:db8::/32"]).noted
    rules = {name: engine.inputs(name) for name in engine.names if name.endswith("-rule")}
    head = "id-head-security-group"
    ssh = {"direction": "ingress", "protocol": "tcp", "portRangeMin": 22, "portRangeMax": 22, "securityGroupId": head}
    members = "id-members-security-group"
    assert rules == {
        "ssh-0-rule": {**ssh, "ethertype": "IPv4", "remoteIpPrefix": "192.0.2.0/24"},
        "ssh-1-rule": {**ssh, "ethertype": "IPv6", "remoteIpPrefix": "2001:db8::/32"},
        "among-members-rule": {
            "direction": "ingress",
            "ethertype": "IPv4",
            "securityGroupId": members,
            "remoteGroupId": members,
        },
    }
    assert engine.inputs("head-port")["securityGroupIds"] == [head, members]


def test_the_nodes_credential_is_narrow_and_ends_after_the_lease() -> None:
    credential = declared().noted.inputs("credential")
    assert credential["unrestricted"] is False
    assert credential["roles"] == ["member"]
    assert credential["accessRules"] == list(RULES)
    assert CREDENTIAL_MARGIN_S == 6 * 3600
    assert credential["expiresAt"] == "2027-01-15T14:00:00Z"


def test_a_boot_volume_is_the_runs_own_and_carries_the_mark() -> None:
    engine = declared(boot_volume="20.5GiB", volume_type="ssd", availability_zone="az1").noted
    volume, head = engine.inputs("head-volume"), engine.inputs("head")
    assert (volume["size"], volume["imageId"], volume["volumeType"], volume["availabilityZone"]) == (
        21,
        "i1",
        "ssd",
        "az1",
    )
    assert volume["metadata"] == MARK.metadata("head")
    assert "imageId" not in head
    (device,) = head["blockDevices"]
    assert (device["uuid"], device["sourceType"], device["bootIndex"]) == ("id-head-volume", "volume", 0)
    assert device["deleteOnTermination"] is False, "else the stack has a volume that is gone"


def test_a_server_group_holds_the_head() -> None:
    engine = declared(server_group="soft-affinity").noted
    assert engine.inputs("server-group")["policies"] == "soft-affinity"
    assert engine.inputs("head")["schedulerHints"] == [{"group": "id-server-group"}]
    bare = declared().noted
    assert "server-group" not in bare.names
    assert "schedulerHints" not in bare.inputs("head")


def test_the_head_is_what_the_spec_wants() -> None:
    head = declared(config_drive=True, availability_zone="az1").noted.inputs("head")
    assert (head["flavorId"], head["imageId"], head["keyPair"]) == ("f-h", "i1", f"{MARK.run_id}-key")
    assert (head["configDrive"], head["availabilityZone"]) == (True, "az1")
    assert head["networks"] == [{"port": "id-head-port"}]
    assert "configDrive" not in declared().noted.inputs("head")


def test_a_named_cloud_is_all_that_the_provider_is_told() -> None:
    engine = declared(cloud="hospital").noted
    assert engine.made["openstack"].typ == "pulumi:providers:openstack"
    assert engine.inputs("openstack") == {"cloud": "hospital"}
    used = {str(engine.made[name].provider) for name in engine.names}
    assert len(used) == 1
    assert "pulumi:providers:openstack::openstack" in used.pop()
    assert "openstack" not in declared().noted.made
