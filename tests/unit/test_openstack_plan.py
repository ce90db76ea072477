"""`dhctl plan` on OpenStack: what would be made, without a call to the cloud."""

from __future__ import annotations

from typing import Any

import pytest

from dhctl.infra.openstack.plan import resources
from unit.fake_openstack import cloud_spec


def names(**section: Any) -> list[str]:
    return [planned.name for planned in resources(cloud_spec(**section))]


ALWAYS = ["head-security-group", "members-security-group", "keypair", "credential", "head-port", "head"]


def test_a_network_of_its_own_with_a_way_out() -> None:
    assert [name for name in names() if name not in ALWAYS] == [
        "network",
        "subnet",
        "router",
        "router-interface",
        "floating-ip",
        "autoscaler",
        "0 to 2 workers",
    ]


@pytest.mark.parametrize(
    ("section", "absent", "present"),
    [
        ({"network": "lab"}, {"network", "subnet", "router", "router-interface"}, {"floating-ip"}),
        ({"floating_ip": False}, {"floating-ip"}, {"router"}),
        ({"external_network": None, "floating_ip": False}, {"router", "router-interface"}, {"network", "subnet"}),
        ({"server_group": "affinity", "boot_volume": "20GiB"}, set(), {"server-group", "head-volume"}),
    ],
)
def test_the_spec_decides(section: dict[str, Any], absent: set[str], present: set[str]) -> None:
    planned = set(names(**section))
    assert planned & absent == set()
    assert planned >= present | set(ALWAYS)


def test_each_row_tells_who_makes_it_and_what_it_is() -> None:
    spec = cloud_spec({"min": 1, "max": 3, "gpus": 1, "memory": "4GiB"}, server_group="anti-affinity")
    rows = {planned.name: planned for planned in resources(spec)}
    assert {planned.made_by for planned in rows.values()} == {"Pulumi", "dhctl", "autoscaler"}
    assert rows["head-security-group"].detail == "SSH from 192.0.2.0/24"
    assert rows["head"].detail.startswith("small, debian;")
    assert rows["server-group"].detail == "anti-affinity"
    assert "1 GPU, 4 GiB" in rows["1 to 3 workers"].detail
