"""Admission on OpenStack: each thing that would fail later is a sentence now."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from dhctl.infra.openstack.admission import admit
from dhctl.infra.openstack.cloud import CloudError
from dhctl.infra.spec import RunSpec
from dhctl.infra.target import Requirement
from unit.fake_openstack import (
    OTHER,
    FakeAccess,
    FakeCloud,
    SlowService,
    answer,
    cloud_spec,
    flavor,
    image,
    network,
    router,
    subnet,
)


@pytest.fixture
def cloud() -> Any:
    return FakeCloud()


def problems(spec: RunSpec, cloud: Any) -> list[str]:
    return [row.problem for row in admit(spec, cloud) if row.problem]


def row(spec: RunSpec, cloud: Any, what: str) -> Requirement:
    (found,) = [found for found in admit(spec, cloud) if found.what == what]
    return found


def test_what_fits_is_admitted(cloud: Any) -> None:
    found = admit(cloud_spec(), cloud)
    assert [(r.problem, r.warning) for r in found if r.problem or r.warning] == []
    assert all(r.what and r.need and r.have for r in found)
    names = {r.what for r in found}
    assert len(names) == len(found)
    assert {"project", "roles", "application credential", "image", "worker flavor", "external network"} <= names


def breaking(**changes: Any) -> Callable[[Any], None]:
    """Changes attributes of the cloud, or of `access`."""

    def change(cloud: Any) -> None:
        for name, value in changes.items():
            setattr(cloud, name, value)

    return change


def listed(service: str, listing: str, *items: Any) -> Callable[[Any], None]:
    def change(cloud: Any) -> None:
        getattr(cloud, service).listings[listing] = list(items)

    return change


def no_change(cloud: Any) -> None:
    """The cloud is as it was."""


def refusing(service: str, listing: str) -> Callable[[Any], None]:
    def change(cloud: Any) -> None:
        getattr(cloud, service).refuses[listing] = 403

    return change


PUBLIC = network("public", is_router_external=True, project_id=OTHER)

CASES: list[tuple[str, Callable[[Any], None], dict[str, Any], str]] = [
    ("no project", breaking(access=FakeAccess(None, None, ())), {}, "the credentials name no project"),
    (
        "reader",
        breaking(access=FakeAccess(role_names=("reader",))),
        {},
        "your roles in project demo only read (reader)",
    ),
    ("no neutron", lambda c: c.services.remove("network"), {}, "the catalog has no network service in RegionOne"),
    ("old nova", lambda c: setattr(c.compute, "version", (2, 38)), {}, "the compute API is of version 2.38 and 2.52"),
    (
        "no credentials",
        refusing("identity", "application_credentials"),
        {},
        "cannot be listed, nor made: not by policy",
    ),
    (
        "restricted",
        breaking(access=FakeAccess(application_credential_id="x")),
        {},
        "your credential is itself a restricted application credential",
    ),
    ("no image set", no_change, {"image": None}, "openstack.image is not set; set it to the name or id of one"),
    ("unknown image", no_change, {"image": "debain"}, "no image 'debain' is to be seen in this project; did you mean"),
    (
        "two images",
        listed("image", "images", image("debian", "i1"), image("debian", "i2")),
        {},
        "2 images are called 'debian' (i1, i2); set openstack.image to one of these ids",
    ),
    ("queued", listed("image", "images", image("debian", status="queued")), {}, "is queued, not active; wait for it"),
    (
        "large image",
        listed("image", "images", image("debian", min_disk=30)),
        {},
        "the image needs 30 GiB disk and flavor small has 20 GiB; take a larger flavor or set openstack.boot_volume",
    ),
    (
        "virtual size",
        listed("image", "images", image("debian", virtual_size=25 * 2**30)),
        {"boot_volume": "24GiB"},
        "the image needs 25 GiB disk and openstack.boot_volume has 24 GiB; make it larger",
    ),
    ("min_ram", listed("image", "images", image("debian", min_ram=8192)), {}, "needs 8192 MiB memory and flavor small"),
    ("no flavor set", no_change, {"flavor": None, "head_flavor": "large"}, "openstack.flavor is not set"),
    ("unknown flavor", no_change, {"flavor": "smal"}, "no flavor 'smal' is to be seen in this project; did you mean"),
    ("unknown head", no_change, {"head_flavor": "huge"}, "set openstack.head_flavor to one that is"),
    (
        "tiny head",
        listed("compute", "flavors", flavor("small", 2, 4096, 20), flavor("tiny", 1, 512, 20)),
        {"head_flavor": "tiny"},
        "flavor tiny has 512 MiB memory and a head needs 1000 MiB",
    ),
    ("no external", no_change, {"external_network": None}, "openstack.external_network is not set, and the router"),
    ("not external", no_change, {"external_network": "private"}, "network 'private' is not external, and the router"),
    ("inner as outer", no_change, {"network": "private", "external_network": "private"}, "the floating IP needs one"),
    ("unknown network", no_change, {"network": "privat"}, "no network 'privat' is to be seen in this project; did you"),
    (
        "two networks",
        listed("network", "networks", PUBLIC, network("private", "n1"), network("private", "n2")),
        {"network": "private"},
        "2 networks are called 'private' (n1, n2); set openstack.network to one of these ids",
    ),
    ("no subnet", listed("network", "subnets"), {"network": "private"}, "network private has no IPv4 subnet"),
    (
        "no DHCP",
        listed("network", "subnets", subnet("id-private", "10.1.0.0/24", dhcp=False)),
        {"network": "private"},
        "no IPv4 subnet of network private has DHCP",
    ),
    (
        "no port security",
        listed("network", "networks", PUBLIC, network("private", is_port_security_enabled=False)),
        {"network": "private"},
        "network private has no port security",
    ),
    (
        "floating IP on external",
        listed("network", "subnets", subnet("id-public", "172.24.4.0/24")),
        {"network": "public"},
        "network public is external itself and takes no floating IP",
    ),
    ("no router", listed("network", "ports"), {"network": "private"}, "no router joins network private to public"),
    (
        "router elsewhere",
        listed("network", "routers", router("r1", "id-other")),
        {"network": "private"},
        "no router joins network private to public",
    ),
    (
        "overlap",
        listed("network", "subnets", subnet("id-public", "10.77.0.0/16")),
        {},
        "openstack.cidr 10.77.0.0/24 overlaps with 10.77.0.0/16 of network public",
    ),
    ("DNS inside", no_change, {"dns_servers": ["10.77.0.53"]}, "openstack.dns_servers has 10.77.0.53, which lies in"),
    ("IPv6", no_change, {"cidr": "fd00::/64"}, "openstack.cidr fd00::/64 is IPv6"),
    ("no ssh_from", no_change, {"ssh_from": []}, "openstack.ssh_from is empty, so nobody could reach the head; set it"),
    ("unknown zone", no_change, {"availability_zone": "nove"}, "no availability zone 'nove'; did you mean 'nova'?"),
    ("no volumes", lambda c: c.services.remove("block-storage"), {"boot_volume": "20GiB"}, "has no block storage"),
    ("volume type", no_change, {"boot_volume": "20GiB", "volume_type": "nvme"}, "no volume type 'nvme'"),
    ("gigabytes", no_change, {"boot_volume": "60GiB"}, "needs 120 GiB of quota gigabytes, which has 100 free of 1000"),
]


@pytest.mark.parametrize(("change", "section", "told"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_one_problem_is_one_sentence_with_a_next_step(
    cloud: Any, change: Callable[[Any], None], section: dict[str, Any], told: str
) -> None:
    change(cloud)
    (problem,) = set(problems(cloud_spec(**section), cloud))
    assert told in problem
    assert "; " in problem


@pytest.mark.parametrize(
    ("workers", "told"),
    [
        ({"cpus": 4}, "workers.cpus is 4 and flavor small has 2 vCPUs"),
        ({"memory": "5GiB"}, "workers.memory is 5 GiB and flavor small has 4 GiB"),
        ({"min": 10, "max": 10}, "with 10 workers the run needs 11 of quota instances, which has 9 free of 10"),
    ],
)
def test_workers_that_do_not_fit(cloud: Any, workers: dict[str, Any], told: str) -> None:
    assert any(problem.startswith(told) for problem in problems(cloud_spec(workers), cloud))


@pytest.mark.parametrize(
    ("extra", "have", "refused"),
    [
        ({}, "not told by the flavor; checked at boot", False),
        ({"resources__VGPU": "2"}, "2", False),
        ({"resources__VGPU": "1"}, "1", True),
    ],
)
def test_gpus_are_judged_where_the_flavor_tells(cloud: Any, extra: dict[str, str], have: str, refused: bool) -> None:
    cloud.compute.listings["flavors"] = [flavor("small", 2, 4096, 20, **extra)]
    found = row(cloud_spec({"gpus": 2}), cloud, "worker GPUs")
    assert (found.need, found.have, bool(found.problem)) == ("2", have, refused)


def test_things_are_found_by_id_too(cloud: Any) -> None:
    cloud.image.listings["hidden"] = [image("old", "i-hidden")]
    spec = cloud_spec(image="i-hidden", flavor="id-small", network="id-private", external_network="id-public")
    assert problems(spec, cloud) == []
    assert row(spec, cloud, "image").have == "old (i-hidden)"


def test_an_id_wins_over_names(cloud: Any) -> None:
    cloud.compute.listings["flavors"] = [flavor("small", 2, 4096, 20), flavor("id-small", 1, 512, 1)]
    assert row(cloud_spec(flavor="id-small"), cloud, "worker flavor").have == "small (id-small)"


def test_an_unrestricted_application_credential_will_do(cloud: Any) -> None:
    cloud.access.application_credential_id = "x"
    cloud.identity.listings["application_credentials"] = [FakeCredential("x", unrestricted=True)]
    assert problems(cloud_spec(), cloud) == []


class FakeCredential:
    def __init__(self, ident: str, *, unrestricted: bool) -> None:
        self.id, self.unrestricted = ident, unrestricted


def test_a_shared_network_whose_routers_cannot_be_seen_is_not_refused(cloud: Any) -> None:
    cloud.network.listings["networks"] = [PUBLIC, network("private", project_id=OTHER)]
    cloud.network.listings["ports"] = []
    assert problems(cloud_spec(network="private"), cloud) == []


def test_without_floating_ip_and_bastion_the_table_says_how_the_head_is_reached(cloud: Any) -> None:
    spec = cloud_spec(network="private", floating_ip=False, external_network=None)
    assert problems(spec, cloud) == []
    assert row(spec, cloud, "way to the head").have.startswith("directly: this machine must reach addresses of private")
    assert "quota: floating IPs" not in {found.what for found in admit(spec, cloud)}
    assert row(cloud_spec(bastion="me@jump"), cloud, "way to the head").have == "through me@jump"


@pytest.mark.parametrize(
    ("output", "data", "told"),
    [
        (None, None, ["output is not an s3:// URL"]),
        ("/tmp/out", "phantoms", ["output is not an s3:// URL"]),
        ("s3://b/out", "/tmp/data", ["data is not an s3:// URL"]),
        ("s3://b/out", "s3://b/data", []),
        ("s3://b/out", "phantoms", []),
    ],
)
def test_only_s3_outlives_the_nodes(cloud: Any, output: str | None, data: str | None, told: list[str]) -> None:
    spec = cloud_spec().model_copy(update={"output": output, "data": data})
    assert [problem.partition(",")[0] for problem in problems(spec, cloud)] == told


def test_a_cloud_in_trouble_is_an_error_and_no_answer(cloud: Any) -> None:
    cloud.network.answers["/quotas/project-1/details"] = answer(503, {})
    with pytest.raises(CloudError, match="cannot look at the project on OpenStack"):
        admit(cloud_spec(), cloud)


def test_slow_reads_are_made_side_by_side(cloud: Any) -> None:
    for name in ("compute", "network", "image", "identity", "block_storage"):
        service = getattr(cloud, name)
        setattr(cloud, name, SlowService(service.answers, service.listings, version=service.version))
    begun = time.monotonic()
    admit(cloud_spec(), cloud)
    asked = sum(len(getattr(cloud, n).asked) for n in ("compute", "network", "image", "identity", "block_storage"))
    assert time.monotonic() - begun < asked * SlowService.pause_s / 2
