"""Admission on OpenStack, part servers: image, flavors, disks, GPUs, availability zone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from openstack.connection import Connection

from dhctl.infra.openstack.flavors import Flavors, FlavorSize
from dhctl.infra.openstack.lookup import Found, find_flavors, find_image
from dhctl.infra.spec import RunSpec
from dhctl.infra.target import Requirement
from dhctl.infra.units import format_size
from dhctl.infra.yaml_model import nearest

MIB, GIB = 2**20, 2**30

HEAD_RAM_MIB = 1000
"""Ray's head, autoscaler and dashboard take about 0.9 GiB (docs/benchmarks.md), and the system its share."""


@dataclass(frozen=True)
class Choice:
    """What the spec's names stand for on this cloud."""

    image: Found
    worker: Found
    head: Found

    @property
    def flavors(self) -> Flavors | None:
        """Both sizes, when both flavors were found."""
        if self.worker.item is None or self.head.item is None:
            return None
        return Flavors(head=FlavorSize.of(self.head.item), worker=FlavorSize.of(self.worker.item))


def choose(spec: RunSpec, connection: Connection) -> Choice:
    """Looks image and flavors up, side by side. Raises what openstacksdk raises."""
    wanted = spec.openstack
    unset = "openstack.{0} is not set; set it to the name or id of one, `openstack {0} list` shows them"
    image = Found(problem=unset.format("image"))
    worker = head = Found(problem=unset.format("flavor"))
    with ThreadPoolExecutor(2) as pool:
        images = pool.submit(find_image, connection, wanted.image) if wanted.image else None
        if wanted.flavor:
            worker, head = find_flavors(connection, wanted.flavor, wanted.flavor_of_head or wanted.flavor)
        image = images.result() if images else image
    return Choice(image, worker, head)


def server_requirements(spec: RunSpec, choice: Choice) -> Iterator[Requirement]:
    """Rows for image, flavors, memory, disks and GPUs. No call."""
    wanted = spec.openstack
    yield _image(spec, choice.image)
    yield Requirement("worker flavor", wanted.flavor or "one", choice.worker.told, choice.worker.problem)
    if wanted.head_flavor:
        yield Requirement("head flavor", wanted.head_flavor, choice.head.told, choice.head.problem)
    flavors = choice.flavors
    if flavors is None:
        return
    yield from _size_of_worker(spec, flavors.worker)
    told = f"flavor {flavors.head.name} has {flavors.head.ram_mib} MiB memory and a head needs {HEAD_RAM_MIB} MiB"
    problem = f"{told}; set openstack.head_flavor to a larger one" if flavors.head.ram_mib < HEAD_RAM_MIB else ""
    yield Requirement("head memory", f"{HEAD_RAM_MIB} MiB", f"{flavors.head.ram_mib} MiB", problem)
    if choice.image.item is not None:
        yield from _image_on_flavors(spec, choice, flavors)


def _image(spec: RunSpec, found: Found) -> Requirement:
    problem = found.problem
    if found.item is not None and found.item.status != "active":
        problem = (
            f"image {found.told} is {found.item.status}, not active; wait for it or set openstack.image to another"
        )
    return Requirement("image", spec.openstack.image or "one", found.told, problem)


def _size_of_worker(spec: RunSpec, flavor: FlavorSize) -> Iterator[Requirement]:
    size, fix = spec.workers, "set openstack.flavor to a larger one or make the workers smaller"
    told = f"workers.cpus is {size.cpus} and flavor {flavor.name} has {flavor.vcpus} vCPUs; {fix}"
    yield Requirement("worker CPUs", str(size.cpus), str(flavor.vcpus), told if size.cpus > flavor.vcpus else "")
    have = flavor.ram_mib * MIB
    told = f"workers.memory is {format_size(size.memory)} and flavor {flavor.name} has {format_size(have)}; {fix}"
    yield Requirement("worker memory", format_size(size.memory), format_size(have), told if size.memory > have else "")
    if not size.gpus:
        return
    if flavor.gpus is None:
        yield Requirement("worker GPUs", str(size.gpus), "not told by the flavor; checked at boot")
        return
    told = (
        f"workers.gpus is {size.gpus} and flavor {flavor.name} has {flavor.gpus}; set openstack.flavor to one with more"
    )
    yield Requirement("worker GPUs", str(size.gpus), str(flavor.gpus), told if size.gpus > flavor.gpus else "")


def _image_on_flavors(spec: RunSpec, choice: Choice, flavors: Flavors) -> Iterator[Requirement]:
    """The image's wishes, on memory and disk of each flavor; nova refuses a server that is smaller."""
    image = choice.image.item
    smallest = min((flavors.head, flavors.worker), key=lambda flavor: flavor.ram_mib)
    if image.min_ram:
        told = (
            f"image {image.name} needs {image.min_ram} MiB memory and flavor {smallest.name} has {smallest.ram_mib} MiB"
        )
        problem = f"{told}; set openstack.flavor to a larger one" if image.min_ram > smallest.ram_mib else ""
        yield Requirement("memory for the image", f"{image.min_ram} MiB", f"{smallest.ram_mib} MiB", problem)
    need = max(int(image.min_disk or 0) * GIB, int(image.size or 0), int(image.virtual_size or 0))
    volume = spec.openstack.boot_volume
    if volume:
        yield _disk(need, -(-volume // GIB), "openstack.boot_volume", "make it larger")
        return
    for flavor in sorted({flavors.head, flavors.worker}, key=lambda flavor: flavor.name):
        if flavor.disk_gib:
            yield _disk(
                need, flavor.disk_gib, f"flavor {flavor.name}", "take a larger flavor or set openstack.boot_volume"
            )
        else:
            have = "as large as the image, where the site permits that; else set openstack.boot_volume"
            yield Requirement(f"disk of flavor {flavor.name}", format_size(need), have)


def _disk(need_bytes: int, have_gib: int, where: str, fix: str) -> Requirement:
    need, have = format_size(need_bytes), f"{have_gib} GiB"
    told = f"the image needs {need} disk and {where} has {have}; {fix}"
    return Requirement(f"disk of {where}", need, have, told if need_bytes > have_gib * GIB else "")


def zone_requirements(spec: RunSpec, connection: Connection) -> Iterator[Requirement]:
    """The availability zone, when the spec names one."""
    wanted = spec.openstack.availability_zone
    if wanted is None:
        return
    up = {str(zone.name): bool((zone.state or {}).get("available")) for zone in connection.compute.availability_zones()}
    problem = ""
    if wanted not in up:
        fix = "set openstack.availability_zone to one that there is, or leave it out"
        problem = f"no availability zone '{wanted}'{nearest(wanted, sorted(up))}; {fix}"
    elif not up[wanted]:
        problem = f"availability zone '{wanted}' is not available now; take another one or try again later"
    yield Requirement("availability zone", wanted, ", ".join(sorted(up)) or "none", problem)


def volume_requirements(spec: RunSpec, connection: Connection) -> Iterator[Requirement]:
    """Block storage and the volume type, when servers boot from volumes."""
    wanted = spec.openstack
    if wanted.boot_volume is None:
        return
    if not connection.has_service("block-storage"):
        told = "this cloud has no block storage, and openstack.boot_volume is set; leave it out"
        yield Requirement("block storage", "a service of the cloud", "none", told)
        return
    yield Requirement("block storage", "a service of the cloud", "there")
    if wanted.volume_type is not None:
        known = sorted(str(found.name) for found in connection.block_storage.types())
        fix = "set openstack.volume_type to one that there is, or leave it out"
        told = f"no volume type '{wanted.volume_type}'{nearest(wanted.volume_type, known)}; {fix}"
        yield Requirement(
            "volume type",
            wanted.volume_type,
            ", ".join(known) or "none",
            told if wanted.volume_type not in known else "",
        )
