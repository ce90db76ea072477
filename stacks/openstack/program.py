"""The Pulumi program of the OpenStack target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pulumi
import pulumi_openstack as openstack
from pulumi import ResourceOptions

from dhctl.infra.openstack.components import Blueprint, ClusterAccess, ClusterNetwork, HeadServer, NodesCredential


def declare(
    plan: Blueprint,
    public_key: str,
    rules: Sequence[Mapping[str, str]],
    user_data_of: Callable[[str, str, str, str], str],
) -> dict[str, Any]:
    """Network, access, credential, head; outputs its address, floating IP and server id, and the credential.

    `user_data_of` makes the head's user data from the ids of network, members' security group, keypair, server group.
    """
    opts = _provider(plan)
    network = ClusterNetwork(plan, opts)
    access = ClusterAccess(plan, public_key, opts)
    credential = NodesCredential(plan, rules, opts)
    group_id = access.server_group.id if access.server_group else ""
    place = pulumi.Output.all(network.network_id, access.members_group_id, access.keypair.name, group_id)
    head = HeadServer(plan, network, access, place.apply(lambda ids: user_data_of(*ids)), opts)
    return {
        "address": head.address,
        "floating_ip": head.floating_ip,
        "head_server": head.server_id,
        "credential_id": credential.credential_id,
        "credential_secret": pulumi.Output.secret(credential.secret),
    }


def _provider(plan: Blueprint) -> ResourceOptions | None:
    """The ambient credentials. Of a named cloud the name gets into the state, by which `destroy` finds it again."""
    if plan.section.cloud is None:
        return None
    return ResourceOptions(providers=[openstack.Provider("openstack", cloud=plan.section.cloud)])
