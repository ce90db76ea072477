"""Quota minus usage, live, against what a run makes. Nothing here needs more rights than a plain project member has.

The node provider on the head imports this module too, so at import it takes nothing beyond openstacksdk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openstack import exceptions as sdk_errors
from openstack.connection import Connection

if TYPE_CHECKING:
    from dhctl.infra.openstack.flavors import Flavors
    from dhctl.infra.spec import RunSpec

UNLIMITED = -1
GIB = 2**30

ADDRESSES = "addresses"
"""Not a quota of the cloud: the run's own subnet has so many."""

DHCP_PORTS = 1
"""Neutron makes it in the network's project, so it counts there; ports of gateways and floating IPs do not."""

GROUPS = 2
"""Security groups: the head's and the members'."""

DEFAULT_RULES = 2
"""Egress rules, IPv4 and IPv6, with which neutron makes each security group."""

MEMBER_RULES = 1
"""All among the members."""

DEFAULT_GROUP, DEFAULT_GROUP_RULES = 1, 4
"""Neutron makes the project's group `default` with these rules at the first call that needs it; both count."""

RESERVED_ADDRESSES = 2
"""The subnet's first and last."""

_COMPUTE = {
    "instances": ("maxTotalInstances", "totalInstancesUsed"),
    "cores": ("maxTotalCores", "totalCoresUsed"),
    "ram": ("maxTotalRAMSize", "totalRAMUsed"),
    "server groups": ("maxServerGroups", "totalServerGroupsUsed"),
}
_STORAGE = {
    "volumes": ("maxTotalVolumes", "totalVolumesUsed"),
    "gigabytes": ("maxTotalVolumeGigabytes", "totalGigabytesUsed"),
}
_NETWORK = {
    "ports": ("port", "ports"),
    "networks": ("network", "networks"),
    "subnets": ("subnet", "subnets"),
    "routers": ("router", "routers"),
    "floating IPs": ("floatingip", "ips"),
    "security groups": ("security_group", "security_groups"),
    "security group rules": ("security_group_rule", "security_group_rules"),
}
"""Neutron's name of the quota, and the SDK's listing."""

_REFUSED = (403, 404)


@dataclass(frozen=True)
class Quota:
    """One row: how many the project may have (`UNLIMITED`: any number) and has. RAM in MiB, gigabytes in GiB."""

    kind: str
    limit: int
    used: int

    @property
    def free(self) -> int | None:
        """How many more; None when unlimited. Never below zero, though a project may be above a lowered limit."""
        return None if self.limit < 0 else max(0, self.limit - self.used)

    def takes(self, need: int) -> bool:
        """Whether so many more fit."""
        return self.free is None or need <= self.free

    @property
    def told(self) -> str:
        """For people."""
        return "unlimited" if self.free is None else f"{self.free} free of {self.limit}{unit_of(self.kind)}"


def unit_of(kind: str) -> str:
    """With a space before it, for a number; "" where things are counted."""
    return {"ram": " MiB", "gigabytes": " GiB"}.get(kind, "")


def read_quotas(connection: Connection) -> dict[str, Quota]:
    """By kind, all that this cloud tells: a service's quotas are left out where it is absent or refuses to tell.

    Raises what openstacksdk and keystoneauth raise when the cloud is in trouble.
    """
    readers: list[Callable[[Connection], list[Quota]]] = [_compute, _keypairs, _network]
    if connection.has_service("block-storage"):
        readers.append(_storage)
    with ThreadPoolExecutor(len(readers)) as pool:
        return {quota.kind: quota for read in [pool.submit(r, connection) for r in readers] for quota in read.result()}


def demand(spec: RunSpec, flavors: Flavors, workers: int) -> dict[str, int]:
    """What the run makes with so many workers, by kind of quota."""
    wanted, servers = spec.openstack, 1 + workers
    own_network, group = wanted.network is None, wanted.server_group is not None
    volume_gib = -(-wanted.boot_volume // GIB) if wanted.boot_volume else 0
    return {
        "instances": servers,
        "cores": flavors.head.vcpus + workers * flavors.worker.vcpus,
        "ram": flavors.head.ram_mib + workers * flavors.worker.ram_mib,
        "volumes": servers if volume_gib else 0,
        "gigabytes": servers * volume_gib,
        "ports": servers + (DHCP_PORTS + 1 if own_network else 0),  # one is the router's interface
        "networks": int(own_network),
        "subnets": int(own_network),
        "routers": int(own_network),
        "floating IPs": int(wanted.floating_ip),
        "security groups": GROUPS,
        "security group rules": len(wanted.ssh_from) + MEMBER_RULES + GROUPS * DEFAULT_RULES,
        "keypairs": 1,
        "server groups": int(group),
        "server group members": servers if group else 0,
        ADDRESSES: servers + DHCP_PORTS + 1 if own_network else 0,  # one is the gateway's
    }


@dataclass(frozen=True)
class Fit:
    """How much of a run the project can take now."""

    workers: int
    """The largest number of workers that fits, workers.max at most."""
    least: int
    """The smallest that makes sense: workers.min, or one where that is 0."""
    most: int
    """workers.max."""
    problems: Mapping[str, str]
    """A sentence for each kind of which not even the smallest number of workers fits."""
    limiting: Mapping[str, str]
    """By kind, what stops one more worker, such as `2 free of 20`; empty when workers.max fits."""

    @property
    def shortage(self) -> str:
        """A sentence, still without a next step, when fewer than workers.max fit, but enough; else empty."""
        if self.problems or self.workers >= self.most:
            return ""
        stops = ", ".join(f"{kind} ({told})" for kind, told in self.limiting.items())
        return f"only {self.workers} of {self.most} workers fit now: {stops}"


def fit(spec: RunSpec, flavors: Flavors, quotas: Mapping[str, Quota]) -> Fit:
    """Compares. Kinds without a quota in `quotas` do not limit."""
    least, most = max(1, spec.workers.min), spec.workers.max
    at_least, base, one = (demand(spec, flavors, n) for n in (least, 0, 1))
    rooms = {kind: _room(quota, base[kind], one[kind] - base[kind], most) for kind, quota in quotas.items()}
    workers = min([most, *rooms.values()])
    short = [quota for kind, quota in quotas.items() if not quota.takes(at_least[kind])]
    limiting = {kind: quotas[kind].told for kind, room in rooms.items() if room == workers < most}
    problems = {quota.kind: _too_few(quota, at_least[quota.kind], least) for quota in short}
    return Fit(max(0, workers), least, most, problems, limiting)


def launch_problem(connection: Connection, flavor_vcpus: int, flavor_ram_mib: int, count: int) -> str:
    """Why the compute quota does not take `count` more servers of this size now, as a sentence; empty when it does.

    One call, GET /limits, which also a credential restricted to servers and limits may make.
    Raises what openstacksdk and keystoneauth raise.
    """
    need = {"instances": count, "cores": count * flavor_vcpus, "ram": count * flavor_ram_mib}
    rows = {quota.kind: quota for quota in _compute(connection)}
    short = [
        f"{kind} {amount}{unit_of(kind)} ({rows[kind].told})"
        for kind, amount in need.items()
        if kind in rows and not rows[kind].takes(amount)
    ]
    servers = f"{count} more worker{'s' * (count > 1)}"
    return f"quota does not take {servers}: needs {', '.join(short)}; ask for quota" if short else ""


def _too_few(quota: Quota, need: int, workers: int) -> str:
    with_them = f"with {workers} worker{'s' * (workers > 1)}"
    if quota.kind == ADDRESSES:
        told = f"{with_them} the run needs {need} addresses and openstack.cidr has {quota.free} for it"
        return f"{told}; set openstack.cidr to a larger range, such as 10.77.0.0/24"
    told = f"{with_them} the run needs {need}{unit_of(quota.kind)} of quota {quota.kind}, which has {quota.told}"
    return f"{told}; delete what is not needed, use smaller flavors or fewer workers, or ask for more quota"


def _room(quota: Quota, base: int, each: int, most: int) -> int:
    """How many workers fit into one quota; -1 when not even the rest of the run does."""
    if quota.free is None or base + most * each <= quota.free:
        return most
    return -1 if base > quota.free else (quota.free - base) // each


def _read(service: Any, path: str) -> dict[str, Any] | None:
    """A JSON answer; None where the site's policy, or an older release, does not tell. Raises SDKException."""
    answer = service.get(path)
    if answer.status_code in _REFUSED:
        return None
    sdk_errors.raise_from_response(answer)
    body: dict[str, Any] = answer.json()
    return body


def _compute(connection: Connection) -> list[Quota]:
    limits = ((_read(connection.compute, "/limits") or {}).get("limits") or {}).get("absolute") or {}
    found = _rows(limits, _COMPUTE)
    members = limits.get("maxServerGroupMembers")
    return found if members is None else [*found, Quota("server group members", int(members), 0)]


def _keypairs(connection: Connection) -> list[Quota]:
    """They belong to the user, and nova tells their number nowhere."""
    limits = ((_read(connection.compute, "/limits") or {}).get("limits") or {}).get("absolute") or {}
    limit = limits.get("maxTotalKeypairs")
    return [] if limit is None else [Quota("keypairs", int(limit), len(list(connection.compute.keypairs())))]


def _storage(connection: Connection) -> list[Quota]:
    limits = ((_read(connection.block_storage, "/limits") or {}).get("limits") or {}).get("absolute") or {}
    return _rows(limits, _STORAGE)


def _rows(limits: Mapping[str, Any], names: Mapping[str, tuple[str, str]]) -> list[Quota]:
    return [
        Quota(kind, int(limits[limit]), int(limits[used]))
        for kind, (limit, used) in names.items()
        if limit in limits and used in limits
    ]


def _network(connection: Connection) -> list[Quota]:
    project = connection.current_project_id
    told = _read(connection.network, f"/quotas/{project}/details")
    if told is None:
        return _counted(connection)
    rows = told["quota"]
    found = {
        kind: Quota(kind, int(rows[name]["limit"]), int(rows[name]["used"]) + int(rows[name].get("reserved", 0)))
        for kind, (name, _) in _NETWORK.items()
        if name in rows
    }
    return _with_default_group(found)


def _counted(connection: Connection) -> list[Quota]:
    """Where neutron tells limits but no usage: from the lists themselves."""
    project = connection.current_project_id
    limits = (_read(connection.network, f"/quotas/{project}") or {}).get("quota", {})
    asked = {kind: listing for kind, (name, listing) in _NETWORK.items() if int(limits.get(name, UNLIMITED)) >= 0}

    def count(listing: str) -> int:
        return sum(1 for _ in getattr(connection.network, listing)(project_id=project))

    with ThreadPoolExecutor(max(1, len(asked))) as pool:
        counts = dict(zip(asked, pool.map(count, asked.values()), strict=True))
    rows = {
        kind: Quota(kind, int(limits[name]), counts.get(kind, 0))
        for kind, (name, _) in _NETWORK.items()
        if name in limits
    }
    return _with_default_group(rows)


def _with_default_group(rows: dict[str, Quota]) -> list[Quota]:
    """A project that never had a security group gets one as soon as the run makes its network."""
    groups, rules = rows.get("security groups"), rows.get("security group rules")
    if groups and groups.used == 0:
        rows = {**rows, groups.kind: Quota(groups.kind, groups.limit, DEFAULT_GROUP)}
        if rules:
            rows[rules.kind] = Quota(rules.kind, rules.limit, rules.used + DEFAULT_GROUP_RULES)
    return list(rows.values())
