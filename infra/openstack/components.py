"""The pieces of an OpenStack stack as Pulumi components: network, access, head. Every resource carries the run's mark:
tags, and the same in the description, because the plugin writes tags only after it has made a thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pulumi
import pulumi_openstack as openstack
from pulumi import CustomTimeouts, ResourceOptions

from dhctl.infra.openstack.choices import Choices
from dhctl.infra.openstack.mark import HEAD, Mark
from dhctl.infra.openstack.section import OpenStackSection

HELD = CustomTimeouts(create="5m", delete="30s")
"""Things that others may hold: the plugin repeats a refused deletion until then, and the sweep names the holder."""

SERVER = CustomTimeouts(create="15m", delete="5m")
"""A bridged provider cannot be asked to stop: a server that does not come holds `up` this long at most."""


@dataclass(frozen=True)
class Blueprint:
    """What the components need to know: whose it is, what the spec wants, what that means at this site."""

    mark: Mark
    section: OpenStackSection
    choices: Choices


class ClusterNetwork(pulumi.ComponentResource):
    """The network of the cluster: an existing one, or network, subnet, router and interface of the run's own."""

    network_id: pulumi.Input[str]
    subnet_id: pulumi.Input[str] | None

    def __init__(self, plan: Blueprint, opts: ResourceOptions | None = None) -> None:
        super().__init__("dhctl:component:ClusterNetwork", "cluster-network", None, opts)
        self.network_id, self.subnet_id = plan.choices.network_id, None
        self.ready: list[pulumi.Resource] = []
        """What a server or floating IP on the network must wait for, and outlive it not."""
        if not plan.choices.network_id:
            self._make(plan)
        self.register_outputs({})

    def _make(self, plan: Blueprint) -> None:
        mark, section, networking = plan.mark, plan.section, openstack.networking
        held = ResourceOptions(parent=self, custom_timeouts=HELD)
        tags, text = mark.tags, mark.text
        network = networking.Network("network", name=mark.name("net"), tags=tags, description=text, opts=held)
        subnet = networking.Subnet(
            "subnet",
            name=mark.name("subnet"),
            network_id=network.id,
            cidr=section.cidr,
            ip_version=4,
            dns_nameservers=list(section.dns_servers) or None,
            tags=tags,
            description=text,
            opts=held,
        )
        self.network_id, self.subnet_id = network.id, subnet.id
        self.ready = [subnet]
        if plan.choices.external_network_id:
            router = networking.Router(
                "router",
                name=mark.name("router"),
                external_network_id=plan.choices.external_network_id,
                tags=tags,
                description=text,
                opts=held,
            )
            self.ready.append(
                networking.RouterInterface("router-interface", router_id=router.id, subnet_id=subnet.id, opts=held)
            )


class ClusterAccess(pulumi.ComponentResource):
    """Who may reach what: SSH to the head from the given ranges, everything among the members, nothing else."""

    def __init__(self, plan: Blueprint, public_key: str, opts: ResourceOptions | None = None) -> None:
        super().__init__("dhctl:component:ClusterAccess", "cluster-access", None, opts)
        head = self._group(plan, "head")
        rule = openstack.networking.SecGroupRuleArgs
        for number, cidr in enumerate(plan.section.ssh_from):
            kind = "IPv6" if ":" in cidr else "IPv4"
            ssh = rule(
                security_group_id=head.id,
                direction="ingress",
                ethertype=kind,
                protocol="tcp",
                port_range_min=22,
                port_range_max=22,
                remote_ip_prefix=cidr,
            )
            self._rule(f"ssh-{number}", head, ssh)
        members = self._group(plan, "members")
        among = rule(security_group_id=members.id, direction="ingress", ethertype="IPv4", remote_group_id=members.id)
        self._rule("among-members", members, among)
        self.head_group_id, self.members_group_id = head.id, members.id
        self.keypair = openstack.compute.Keypair(
            "keypair", name=plan.mark.name("key"), public_key=public_key, opts=ResourceOptions(parent=self)
        )
        self.server_group: openstack.compute.ServerGroup | None = None
        if plan.section.server_group:
            self.server_group = openstack.compute.ServerGroup(
                "server-group",
                name=plan.mark.name("group"),
                policies=plan.section.server_group.value,
                opts=ResourceOptions(parent=self),
            )
        self.register_outputs({})

    def _group(self, plan: Blueprint, part: str) -> openstack.networking.SecGroup:
        return openstack.networking.SecGroup(
            f"{part}-security-group",
            name=plan.mark.name(f"{part}-sg"),
            tags=plan.mark.tags,
            description=plan.mark.text,
            opts=ResourceOptions(parent=self, custom_timeouts=HELD),
        )

    def _rule(
        self, name: str, group: openstack.networking.SecGroup, rule: openstack.networking.SecGroupRuleArgs
    ) -> None:
        """Goes with its group; a rule carries no mark of its own."""
        opts = ResourceOptions(parent=self, deleted_with=group)
        openstack.networking.SecGroupRule(f"{name}-rule", rule, opts)


class NodesCredential(pulumi.ComponentResource):
    """The application credential with which the head makes and ends workers: restricted, and gone with the lease."""

    def __init__(
        self, plan: Blueprint, rules: Sequence[Mapping[str, str]], opts: ResourceOptions | None = None
    ) -> None:
        super().__init__("dhctl:component:NodesCredential", "nodes-credential", None, opts)
        rule = openstack.identity.ApplicationCredentialAccessRuleArgs
        expires = datetime.fromtimestamp(plan.mark.expires_at + CREDENTIAL_MARGIN_S, UTC)
        made = openstack.identity.ApplicationCredential(
            "credential",
            name=plan.mark.name("credential"),
            description=plan.mark.text,
            roles=list(plan.choices.roles),
            access_rules=[rule(service=r["service"], method=r["method"], path=r["path"]) for r in rules],
            expires_at=expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            unrestricted=False,
            opts=ResourceOptions(parent=self),
        )
        self.credential_id, self.secret = made.id, made.secret
        self.register_outputs({})


CREDENTIAL_MARGIN_S = 6 * 3600
"""The credential outlives the lease by this, so that nodes can still end the run while the API is in trouble."""


class HeadServer(pulumi.ComponentResource):
    """The head: port, server, and a floating IP where the spec wants one."""

    def __init__(
        self,
        plan: Blueprint,
        network: ClusterNetwork,
        access: ClusterAccess,
        user_data: pulumi.Input[str],
        opts: ResourceOptions | None = None,
    ) -> None:
        super().__init__("dhctl:component:HeadServer", "head-server", None, opts)
        self._plan = plan
        mark = plan.mark
        port = openstack.networking.Port(
            "head-port",
            name=mark.name("head"),
            network_id=network.network_id,
            fixed_ips=[openstack.networking.PortFixedIpArgs(subnet_id=network.subnet_id)]
            if network.subnet_id
            else None,
            security_group_ids=[access.head_group_id, access.members_group_id],
            tags=mark.tags,
            description=mark.text,
            opts=ResourceOptions(parent=self, custom_timeouts=HELD),
        )
        server = self._server(port, network, access, user_data)
        self.server_id, self.address = server.id, port.all_fixed_ips[0]
        self.floating_ip: pulumi.Input[str] = ""
        if plan.section.floating_ip:
            self.floating_ip = self._floating_ip(port, network)
        self.register_outputs({})

    def _server(
        self,
        port: openstack.networking.Port,
        network: ClusterNetwork,
        access: ClusterAccess,
        user_data: pulumi.Input[str],
    ) -> openstack.compute.Instance:
        plan, section, compute = self._plan, self._plan.section, openstack.compute
        group = access.server_group
        return compute.Instance(
            "head",
            name=plan.mark.name("head"),
            flavor_id=plan.choices.head_flavor_id,
            image_id=None if section.boot_volume else plan.choices.image_id,
            block_devices=self._boot_volume(),
            networks=[compute.InstanceNetworkArgs(port=port.id)],
            key_pair=access.keypair.name,
            metadata=plan.mark.metadata(HEAD),
            user_data=user_data,
            availability_zone=section.availability_zone,
            config_drive=section.config_drive or None,
            scheduler_hints=[compute.InstanceSchedulerHintArgs(group=group.id)] if group else None,
            opts=ResourceOptions(parent=self, depends_on=network.ready, custom_timeouts=SERVER),
        )

    def _boot_volume(self) -> list[openstack.compute.InstanceBlockDeviceArgs] | None:
        """A volume of its own, so that it carries the mark: one that nova makes along the way would not."""
        plan, section = self._plan, self._plan.section
        if not section.boot_volume:
            return None
        volume = openstack.blockstorage.Volume(
            "head-volume",
            name=plan.mark.name("head-volume"),
            size=-(-section.boot_volume // 2**30),
            image_id=plan.choices.image_id,
            volume_type=section.volume_type,
            availability_zone=section.availability_zone,
            metadata=plan.mark.metadata(HEAD),
            opts=ResourceOptions(parent=self, custom_timeouts=SERVER),
        )
        return [
            openstack.compute.InstanceBlockDeviceArgs(
                uuid=volume.id,
                source_type="volume",
                destination_type="volume",
                boot_index=0,
                delete_on_termination=False,
            )
        ]

    def _floating_ip(self, port: openstack.networking.Port, network: ClusterNetwork) -> pulumi.Output[str]:
        """Made beside the server, not after it: the address answers when the server does. It knows its port itself; a
        resource for that would be two more calls, and could not be deleted once the address is gone.
        """
        plan = self._plan
        made = openstack.networking.FloatingIp(
            "floating-ip",
            pool=plan.choices.external_network,
            port_id=port.id,
            tags=plan.mark.tags,
            description=plan.mark.text,
            opts=ResourceOptions(parent=self, depends_on=network.ready, custom_timeouts=HELD),
        )
        return made.address
