"""Bringing a cluster up on OpenStack: what the stack is made of, and how its Ray is reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from openstack.connection import Connection as Cloud

from dhctl.infra.node.layout import AGENT_PORTS, CLIENT_PORT, DASHBOARD_PORT, GCS_PORT, RAYLET_PORT, WORKER_PORTS
from dhctl.infra.openstack.choices import Choices, look_up
from dhctl.infra.openstack.mark import HEAD, Mark
from dhctl.infra.openstack.node.layout import ENROLMENT_PORT
from dhctl.infra.openstack.node.settings import NodeSettings
from dhctl.infra.openstack.secrets import HeadSecrets
from dhctl.infra.openstack.userdata import head_user_data, requirements_for
from dhctl.infra.ray_api import Connection
from dhctl.infra.record import RunRecord

if TYPE_CHECKING:
    from dhctl.infra.openstack.components import Blueprint

CLOSED_PORTS = (GCS_PORT, DASHBOARD_PORT, CLIENT_PORT, ENROLMENT_PORT, *AGENT_PORTS.values(), *WORKER_PORTS)
"""What must not answer at the head's outer address: Ray's doors, agents, ends of its workers' range, enrolment."""


def mark_of(record: RunRecord) -> Mark:
    """The run's mark."""
    return Mark(record.run_id, int(record.expires_at.timestamp()))


def blueprint(record: RunRecord, cloud: Cloud) -> Blueprint:
    """What the stack's components need. Raises CloudError when something that the spec names is gone."""
    from dhctl.infra.openstack.components import Blueprint  # brings in Pulumi, which few verbs need

    section = record.spec.openstack
    choices = look_up(section, cloud)
    record.ledger.note("image", id=choices.image_id, digest=choices.image_digest)
    return Blueprint(mark_of(record), section, choices)


def user_data_of(record: RunRecord, choices: Choices) -> Callable[..., str]:
    """Makes the head's user data when the ids of network, members' group, key and server group are known."""

    def made(network_id: str, members_group_id: str, key_name: str, server_group_id: str) -> str:
        place = {"network_id": network_id, "security_group_ids": [members_group_id], "key_name": key_name}
        return head_user_data(settings_of(record, choices, {**place, "server_group_id": server_group_id or None}))

    return made


def settings_of(record: RunRecord, choices: Choices, place: Mapping[str, object]) -> NodeSettings:
    """What head and workers need to know; no secret. `place` is where workers are put."""
    spec, section, mark = record.spec, record.spec.openstack, mark_of(record)
    workers = spec.workers
    return NodeSettings.from_dict(
        {
            **place,
            "run_id": record.run_id,
            "name": spec.name,
            "role": HEAD,
            "node_id": mark.name("head"),
            "expires_at": mark.expires_at,
            "ray_version": ray_version(),
            "python": section.python,
            "requirements": requirements_for(spec),
            "package_index": section.package_index,
            "gpus": 0,
            "login_user": section.user,
            "min_workers": workers.min,
            "max_workers": workers.max,
            "worker_cpus": workers.cpus,
            "worker_gpus": workers.gpus,
            "worker_memory_bytes": workers.memory,
            "idle_timeout_s": workers.idle_timeout.total_seconds(),
            "image_id": choices.image_id,
            "flavor_id": choices.worker_flavor_id,
            "flavor_vcpus": choices.worker_size.vcpus,
            "flavor_ram_mib": choices.worker_size.ram_mib,
            "availability_zone": section.availability_zone,
            "boot_volume_gib": -(-section.boot_volume // 2**30) if section.boot_volume else None,
            "volume_type": section.volume_type,
            "config_drive": section.config_drive,
        }
    )


def ray_version() -> str:
    """The version that nodes must have: the one beside dhctl."""
    from importlib.metadata import version

    return version("ray")


def forwards(address: str) -> dict[str, tuple[str, int]]:
    """What a tunnel to the head carries, by name."""
    return {
        "dashboard": ("127.0.0.1", DASHBOARD_PORT),
        "gcs": (address, GCS_PORT),
        "raylet": (address, RAYLET_PORT),
    }


def connection(record: RunRecord, address: str, ports: Mapping[str, int]) -> Connection:
    """Ray through the local ends of a tunnel. Raises OSError when the token is gone."""
    token_file = HeadSecrets.of(record).token_file
    return Connection(
        dashboard_url=f"http://127.0.0.1:{ports['dashboard']}",
        gcs_address=f"127.0.0.1:{ports['gcs']}",
        raylet_address=f"127.0.0.1:{ports['raylet']}",
        token=token_file.read_text().strip(),
        head_address=address,
        token_file=str(token_file),
    )
