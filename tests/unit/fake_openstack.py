"""A project on a cloud that exists in memory only: what admission and quota read of it, as the SDK's own resources."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import requests
from openstack.block_storage.v3.type import Type
from openstack.compute.v2.availability_zone import AvailabilityZone
from openstack.compute.v2.flavor import Flavor
from openstack.exceptions import raise_from_response
from openstack.image.v2.image import Image
from openstack.network.v2.network import Network
from openstack.network.v2.port import Port
from openstack.network.v2.router import Router
from openstack.network.v2.subnet import Subnet

from dhctl.infra.home import Home
from dhctl.infra.record import RunRecord
from dhctl.infra.spec import RunSpec
from unit.fakes import make_record, make_spec

PROJECT, OTHER = "project-1", "project-2"


def made(kind: Callable[..., Any], **values: Any) -> Any:
    """One of the SDK's resources. The SDK warns of a method of its own whenever it makes one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The _compute_attributes method is deprecated")
        return kind(**values)


def answer(status: int, body: Any) -> requests.Response:
    """What an API answers."""
    told = requests.Response()
    told.status_code, told.url, told._content = status, "http://cloud/", json.dumps(body).encode()
    told.headers["content-type"] = "application/json"
    return told


@dataclass
class FakeService:
    """One API: raw answers by path, listings by name; `refuses` maps a listing to the status it is answered with."""

    answers: dict[str, requests.Response] = field(default_factory=dict)
    listings: dict[str, list[Any]] = field(default_factory=dict)
    refuses: dict[str, int] = field(default_factory=dict)
    version: tuple[int, int] | None = None
    asked: list[str] = field(default_factory=list)

    def get(self, path: str) -> requests.Response:
        self.asked.append(path)
        return self.answers.get(path, answer(404, {"error": {"message": f"no {path}"}}))

    def get_endpoint_data(self) -> Any:
        return self.version and SimpleNamespace(max_microversion=self.version, api_version=self.version)

    def find_image(self, wanted: str, *, ignore_missing: bool) -> Any:
        return next((item for item in self.listings["hidden"] if item.id == wanted), None)

    def __getattr__(self, name: str) -> Callable[..., Iterator[Any]]:
        def listing(*_: Any, details: bool = True, user: str = "", **filters: Any) -> Iterator[Any]:
            self.asked.append(name)
            if name in self.refuses:
                raise_from_response(answer(self.refuses[name], {"error": {"message": "not by policy"}}))
            for item in self.listings[name]:
                if all(getattr(item, key) == value for key, value in filters.items()):
                    yield item

        return listing


class SlowService(FakeService):
    """Answers after a while, as a far cloud does."""

    pause_s = 0.2

    def get(self, path: str) -> Any:
        time.sleep(self.pause_s)
        return super().get(path)

    def __getattr__(self, name: str) -> Any:
        ask = super().__getattr__(name)

        def slow(*args: Any, **filters: Any) -> Any:
            time.sleep(self.pause_s)
            return ask(*args, **filters)

        return slow


def compute_limits(**changes: int) -> requests.Response:
    limits = {
        "maxTotalInstances": 10,
        "totalInstancesUsed": 1,
        "maxTotalCores": 20,
        "totalCoresUsed": 4,
        "maxTotalRAMSize": 51200,
        "totalRAMUsed": 2048,
        "maxTotalKeypairs": 100,
        "maxServerGroups": 10,
        "totalServerGroupsUsed": 0,
        "maxServerGroupMembers": 6,
    }
    return answer(200, {"limits": {"rate": [], "absolute": {**limits, **changes}}})


def network_details(**changes: dict[str, int]) -> requests.Response:
    names = ("port", "network", "subnet", "router", "floatingip", "security_group", "security_group_rule")
    rows = {name: {"limit": 50, "used": 2, "reserved": 0} for name in names}
    return answer(200, {"quota": {**rows, **changes}})


def flavor(name: str, vcpus: int, ram_mib: int, disk_gib: int, **extra_specs: str) -> Flavor:
    specs = {key.replace("__", ":"): value for key, value in extra_specs.items()}
    return made(Flavor, id=f"id-{name}", name=name, vcpus=vcpus, ram=ram_mib, disk=disk_gib, extra_specs=specs)


def network(name: str, ident: str = "", **changes: Any) -> Network:
    flags = {"is_admin_state_up": True, "is_port_security_enabled": True, "is_router_external": False}
    return made(Network, **{"id": ident or f"id-{name}", "name": name, "project_id": PROJECT, **flags, **changes})


def subnet(of: str, cidr: str, *, dhcp: bool = True, version: int = 4) -> Subnet:
    return made(Subnet, id=f"sub-{cidr}", network_id=of, cidr=cidr, is_dhcp_enabled=dhcp, ip_version=version)


def router(ident: str, outside: str) -> Router:
    return made(Router, id=ident, external_gateway_info={"network_id": outside})


def interface(of: str, router_id: str) -> Port:
    return made(Port, id="port-1", network_id=of, device_id=router_id, device_owner="network:router_interface")


def image(name: str, ident: str = "", **changes: Any) -> Image:
    values = {"status": "active", "min_disk": 0, "min_ram": 0, "size": 2**30}
    return made(Image, id=ident or f"id-{name}", name=name, **{**values, **changes})


@dataclass
class FakeAccess:
    """What a token says."""

    project_id: str | None = PROJECT
    project_name: str | None = "demo"
    role_names: tuple[str, ...] = ("member", "reader")
    application_credential_id: str | None = None


class FakeCloud:
    """Stands where an openstacksdk connection does. Enough for a run of the spec below."""

    current_project_id, current_user_id = PROJECT, "user-1"

    def __init__(self) -> None:
        self.services = {"identity", "compute", "image", "network", "block-storage"}
        self.access = FakeAccess()
        self.session = SimpleNamespace(auth=SimpleNamespace(get_access=lambda session: self.access))
        self.config = SimpleNamespace(get_region_name=lambda: "RegionOne")
        zones = [made(AvailabilityZone, name="nova", state={"available": True})]
        flavors = [flavor("small", 2, 4096, 20), flavor("large", 8, 16384, 40)]
        self.compute = FakeService(
            {"/limits": compute_limits()}, {"flavors": flavors, "availability_zones": zones, "keypairs": ["mine"]}
        )
        self.compute.version = (2, 93)
        nets = [network("public", is_router_external=True, project_id=OTHER), network("private")]
        subnets = [subnet("id-private", "10.1.0.0/24")]
        self.network = FakeService(
            {f"/quotas/{PROJECT}/details": network_details()},
            {
                "networks": nets,
                "subnets": subnets,
                "ports": [interface("id-private", "r1")],
                "routers": [router("r1", "id-public")],
            },
        )
        self.image = FakeService(listings={"images": [image("debian")], "hidden": []})
        self.identity = FakeService(listings={"application_credentials": []}, version=(3, 14))
        storage = {"maxTotalVolumes": 10, "totalVolumesUsed": 0, "maxTotalVolumeGigabytes": 1000}
        storage_answer = answer(200, {"limits": {"absolute": {**storage, "totalGigabytesUsed": 900}}})
        self.block_storage = FakeService({"/limits": storage_answer}, {"types": [made(Type, id="t1", name="ssd")]})

    def has_service(self, service: str) -> bool:
        return service in self.services


def cloud_spec(workers: dict[str, Any] | None = None, job: dict[str, Any] | None = None, **section: Any) -> RunSpec:
    """A spec that fits the cloud above."""
    wanted = {"image": "debian", "flavor": "small", "external_network": "public", "ssh_from": ["192.0.2.0/24"]}
    own_job = {"folder": "/nowhere", "entrypoint": "python main.py", **(job or {})}
    changes = {"target": "openstack", "output": "s3://bucket/out", "job": own_job, "workers": workers or {"max": 2}}
    return make_spec(**changes, openstack={**wanted, **section})


def cloud_record(home: Home, workers: dict[str, Any] | None = None, **section: Any) -> RunRecord:
    """A run of that spec, just opened."""
    return make_record(home, **json.loads(cloud_spec(workers, **section).model_dump_json()))
