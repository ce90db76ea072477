"""What the spec's names mean at a site, looked up just before the stack is made."""

from __future__ import annotations

from typing import Any

import pytest
from openstack.connection import Connection

from dhctl.infra.openstack.choices import Choices, look_up
from dhctl.infra.openstack.cloud import CloudError, connect
from dhctl.infra.openstack.flavors import FlavorSize
from dhctl.infra.openstack.section import OpenStackSection
from unit.http_cloud import HttpCloud

SMALL = {"id": "f1", "name": "small", "vcpus": 2, "ram": 4096, "disk": 20}
LARGE = {"id": "f2", "name": "large", "vcpus": 8, "ram": 32768, "disk": 80}


@pytest.fixture
def cloud(http_cloud: HttpCloud) -> Connection:
    http_cloud.answers |= {
        "GET /image/v2/images": {"images": [{"id": "i1", "name": "debian", "status": "active"}]},
        "GET /compute/v2.1/flavors/detail": {"flavors": [SMALL, LARGE]},
    }
    http_cloud.add("networks", "n1", name="public")
    http_cloud.add("networks", "n2", name="lab")
    return connect(OpenStackSection())


def looked_up(cloud: Connection, **section: Any) -> Choices:
    return look_up(OpenStackSection.model_validate({"image": "debian", "flavor": "small", **section}), cloud)


def test_names_become_ids(cloud: Connection) -> None:
    found = looked_up(cloud, head_flavor="large", external_network="public", network="lab")
    assert found == Choices(
        image_id="i1",
        head_flavor_id="f2",
        worker_flavor_id="f1",
        worker_size=FlavorSize("small", 2, 4096, 20),
        external_network_id="n1",
        external_network="public",
        network_id="n2",
        roles=("member",),
    )


def test_what_the_spec_leaves_out_is_empty(cloud: Connection) -> None:
    found = looked_up(cloud)
    assert found.head_flavor_id == found.worker_flavor_id
    assert (found.external_network, found.external_network_id, found.network_id) == ("", "", "")


def test_a_network_may_be_named_by_its_id(cloud: Connection) -> None:
    assert looked_up(cloud, external_network="n1").external_network == "public"


def test_without_the_role_member_the_nodes_get_the_users_roles(http_cloud: HttpCloud, cloud: Connection) -> None:
    http_cloud.roles = ("_member_", "swiftoperator")
    assert looked_up(connect(OpenStackSection())).roles == ("_member_", "swiftoperator")


@pytest.mark.parametrize("key", ["image", "flavor", "head_flavor", "external_network", "network"])
def test_what_is_gone_since_admission_is_told(cloud: Connection, key: str) -> None:
    with pytest.raises(CloudError, match=rf"'gone' is to be seen in this project.*; set openstack\.{key} to one"):
        looked_up(cloud, **{key: "gone"})


def test_an_api_in_trouble_is_told(http_cloud: HttpCloud, cloud: Connection) -> None:
    http_cloud.broken["/compute"] = [500]
    with pytest.raises(CloudError, match="cannot look up what the spec names on OpenStack: out of order"):
        looked_up(cloud)
