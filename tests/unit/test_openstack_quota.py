"""Quota on OpenStack: read live, asked by what a run makes, and what fits."""

from __future__ import annotations

from typing import Any

import pytest
from openstack import exceptions as sdk_errors

from dhctl.infra.openstack.flavors import Flavors, FlavorSize, gpus_told
from dhctl.infra.openstack.quota import Quota, demand, fit, launch_problem, read_quotas
from unit.fake_openstack import PROJECT, FakeCloud, answer, cloud_spec, compute_limits, network_details

SMALL, LARGE = FlavorSize("small", 2, 4096, 20), FlavorSize("large", 8, 16384, 40)
FLAVORS = Flavors(head=SMALL, worker=LARGE)


@pytest.fixture
def cloud() -> Any:
    return FakeCloud()


def plenty(**limits: int) -> dict[str, Quota]:
    """Every kind without a limit, but these."""
    kinds = {kind: Quota(kind, -1, 7) for kind in demand(cloud_spec(), FLAVORS, 1)}
    return {**kinds, **{kind: Quota(kind, limit, 0) for kind, limit in limits.items()}}


def test_quotas_are_read_from_all_services(cloud: Any) -> None:
    found = read_quotas(cloud)
    assert found["instances"] == Quota("instances", 10, 1)
    assert found["cores"].free == 16
    assert found["ram"].told == "49152 free of 51200 MiB"
    assert found["keypairs"] == Quota("keypairs", 100, 1)
    assert found["server group members"] == Quota("server group members", 6, 0)
    assert found["gigabytes"] == Quota("gigabytes", 1000, 900)
    assert found["routers"] == Quota("routers", 50, 2)
    assert set(demand(cloud_spec(), FLAVORS, 1)) - set(found) == {"addresses"}


def test_what_is_reserved_is_not_free(cloud: Any) -> None:
    cloud.network.answers[f"/quotas/{PROJECT}/details"] = network_details(port={"limit": 10, "used": 3, "reserved": 2})
    assert read_quotas(cloud)["ports"].free == 5


def test_a_cloud_without_block_storage_is_not_asked_for_it(cloud: Any) -> None:
    cloud.services.remove("block-storage")
    assert not {"volumes", "gigabytes"} & set(read_quotas(cloud))
    assert cloud.block_storage.asked == []


def test_the_default_group_that_neutron_will_make_counts(cloud: Any) -> None:
    empty = {"limit": 10, "used": 0, "reserved": 0}
    cloud.network.answers[f"/quotas/{PROJECT}/details"] = network_details(
        security_group=empty, security_group_rule=empty
    )
    found = read_quotas(cloud)
    assert (found["security groups"].free, found["security group rules"].free) == (9, 6)


def test_usage_is_counted_where_neutron_tells_only_limits(cloud: Any) -> None:
    cloud.network.answers = {f"/quotas/{PROJECT}": answer(200, {"quota": {"network": 5, "router": -1}})}
    found = read_quotas(cloud)
    assert found["networks"] == Quota("networks", 5, 1)
    assert found["routers"].free is None
    assert "routers" not in cloud.network.asked
    assert "ports" not in found


def test_a_service_that_refuses_to_tell_leaves_its_rows_out(cloud: Any) -> None:
    cloud.compute.answers["/limits"] = answer(403, {"forbidden": {"message": "no"}})
    assert set(read_quotas(cloud)) & {"instances", "cores", "ram", "keypairs"} == set()


def test_a_service_in_trouble_is_no_empty_quota(cloud: Any) -> None:
    cloud.compute.answers["/limits"] = answer(503, {})
    with pytest.raises(sdk_errors.HttpException):
        read_quotas(cloud)


def test_the_demand_of_a_run_with_a_network_of_its_own() -> None:
    need = demand(cloud_spec(ssh_from=["192.0.2.0/24", "198.51.100.7"]), FLAVORS, 3)
    assert need == {
        "instances": 4,
        "cores": 2 + 3 * 8,
        "ram": 4096 + 3 * 16384,
        "volumes": 0,
        "gigabytes": 0,
        "ports": 4 + 2,
        "networks": 1,
        "subnets": 1,
        "routers": 1,
        "floating IPs": 1,
        "security groups": 2,
        "security group rules": 2 + 1 + 4,
        "keypairs": 1,
        "server groups": 0,
        "server group members": 0,
        "addresses": 6,
    }


def test_the_demand_on_an_existing_network_from_volumes() -> None:
    spec = cloud_spec(network="private", floating_ip=False, boot_volume="10.5GiB", server_group="soft-anti-affinity")
    need = demand(spec, FLAVORS, 1)
    assert [need[kind] for kind in ("networks", "subnets", "routers", "floating IPs", "addresses")] == [0] * 5
    assert (need["ports"], need["volumes"], need["gigabytes"]) == (2, 2, 22)
    assert (need["server groups"], need["server group members"]) == (1, 2)


def test_all_fits_without_limits() -> None:
    found = fit(cloud_spec({"max": 40}), FLAVORS, plenty())
    assert (found.workers, found.problems, found.shortage) == (40, {}, "")


@pytest.mark.parametrize(("cores", "workers"), [(2 + 8, 1), (2 + 15, 1), (2 + 16, 2), (2 + 80, 10), (2 + 81, 10)])
def test_the_largest_number_of_workers_that_fits(cores: int, workers: int) -> None:
    spec = cloud_spec({"max": 10})
    found = fit(spec, FLAVORS, plenty(cores=cores))
    assert found.workers == workers
    assert demand(spec, FLAVORS, workers)["cores"] <= cores
    assert workers == 10 or demand(spec, FLAVORS, workers + 1)["cores"] > cores


def test_the_quota_that_limits_is_named() -> None:
    found = fit(cloud_spec({"min": 1, "max": 8}), FLAVORS, plenty(cores=28, instances=4, ram=10**6))
    assert found.problems == {}
    assert found.shortage == "only 3 of 8 workers fit now: instances (4 free of 4), cores (28 free of 28)"


def test_refused_when_not_even_the_least_fits() -> None:
    found = fit(cloud_spec({"min": 3, "max": 8}), FLAVORS, plenty(cores=20, routers=0))
    assert set(found.problems) == {"cores", "routers"}
    assert found.problems["cores"].startswith(
        "with 3 workers the run needs 26 of quota cores, which has 20 free of 20; delete what is not needed"
    )
    assert found.shortage == ""
    assert found.workers == 0


def test_a_run_that_may_hold_no_worker_at_all_is_refused_though_min_is_zero() -> None:
    found = fit(cloud_spec({"min": 0, "max": 8}), FLAVORS, plenty(instances=1))
    assert list(found.problems) == ["instances"]
    assert "with 1 worker the run needs 2" in found.problems["instances"]


def test_a_project_above_its_quota_has_nothing_free() -> None:
    assert Quota("cores", 4, 9).free == 0


def test_a_launch_is_judged_with_one_call(cloud: Any) -> None:
    assert launch_problem(cloud, 2, 4096, 8) == ""
    assert cloud.compute.asked == ["/limits"]


def test_a_launch_above_the_quota_is_told(cloud: Any) -> None:
    cloud.compute.answers["/limits"] = compute_limits(totalCoresUsed=19, totalRAMUsed=50000)
    told = launch_problem(cloud, 2, 4096, 1)
    assert told == (
        "quota does not take 1 more worker: needs cores 2 (1 free of 20), ram 4096 MiB (1200 free of 51200 MiB); "
        "ask for quota"
    )


@pytest.mark.parametrize(
    ("extra_specs", "gpus"),
    [
        ({}, None),
        ({"hw:cpu_policy": "dedicated"}, None),
        ({"resources:VGPU": "1"}, 1),
        ({"resources:PGPU": "2", "trait:CUSTOM_A100": "required"}, 2),
        ({"resources1:VGPU": "1", "resources2:VGPU": "1"}, 2),
        ({"resources:CUSTOM_GPU_A100_80GB": "4"}, 4),
        ({"resources:CUSTOM_NVIDIA_VGPU": "0"}, 0),
        ({"pci_passthrough:alias": "a100:2"}, 2),
        ({"pci_passthrough:alias": "nvidia-l40s:1, mlx5:2"}, 1),
        ({"pci_passthrough:alias": "mlx5:2"}, None),
        ({"resources:VCPU": "0", "resources:CUSTOM_BAREMETAL": "1"}, None),
    ],
)
def test_gpus_of_a_flavor(extra_specs: dict[str, str], gpus: int | None) -> None:
    assert gpus_told(extra_specs) == gpus
