"""The spec's section: what a cloud would refuse twenty minutes later is a sentence now."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dhctl.infra.openstack.section import OpenStackSection, ServerGroupPolicy


def section(**values: Any) -> OpenStackSection:
    return OpenStackSection.model_validate(values)


def test_defaults_open_nothing() -> None:
    bare = section()
    assert bare.ssh_from == ()
    assert (bare.user, bare.cidr, bare.floating_ip, bare.config_drive) == ("debian", "10.77.0.0/24", True, False)
    assert bare.flavor_of_head is None


def test_the_head_has_the_workers_flavor_unless_told() -> None:
    assert section(flavor="m1.small").flavor_of_head == "m1.small"
    assert section(flavor="gpu", head_flavor="m1.small").flavor_of_head == "m1.small"


def test_one_range_may_be_written_without_a_list() -> None:
    assert section(ssh_from="192.0.2.7").ssh_from == ("192.0.2.7/32",)
    assert section(ssh_from=["192.0.2.0/24", "2001:db8::/32"]).ssh_from == ("192.0.2.0/24", "2001:db8::/32")
    assert section(dns_servers="9.9.9.9").dns_servers == ("9.9.9.9",)


def test_sizes_and_policies_are_read() -> None:
    read = section(boot_volume="40GiB", server_group="soft-anti-affinity")
    assert read.boot_volume == 40 * 2**30
    assert read.server_group is ServerGroupPolicy.SOFT_ANTI_AFFINITY


def test_it_can_be_a_key() -> None:
    assert {section(cloud="a", ssh_from="192.0.2.7"): 1}[section(cloud="a", ssh_from=["192.0.2.7/32"])] == 1


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"ssh_from": ["192.0.2.1/24"]}, "is no address range"),
        ({"ssh_from": ["office"]}, "'office' is no address range"),
        ({"cidr": "10.0.0.0/30"}, "too few addresses"),
        ({"cidr": "10.0.0.5/24"}, "is no address range"),
        ({"dns_servers": ["dns.example.org"]}, "'dns.example.org' is no IP address"),
        ({"bastion": "jump.example.org"}, "write user@host or user@host:port"),
        ({"bastion": "anna@jump -o ProxyCommand=x"}, "write user@host or user@host:port"),
        ({"user": "-oProxyCommand=x"}, "should match pattern"),
        ({"boot_volume": "100MiB"}, "greater than or equal to 1073741824"),
        ({"server_group": "near"}, "'affinity', 'anti-affinity'"),
        ({"package_index": "file:///srv/wheels"}, "should match pattern"),
        ({"zone": "nova"}, "Extra inputs are not permitted"),
    ],
)
def test_what_does_not_fit_is_told(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match="1 validation error") as caught:
        section(**values)
    assert told in str(caught.value)


@pytest.mark.parametrize("bastion", ["anna@jump.example.org", "anna@192.0.2.4:2222", "a.b_c@host"])
def test_a_jump_host_is_user_and_host(bastion: str) -> None:
    assert section(bastion=bastion).bastion == bastion
