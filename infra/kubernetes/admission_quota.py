"""Admission on Kubernetes, part quota: what ResourceQuotas and LimitRanges of the namespace leave to a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from dhctl.infra.kubernetes.client import Cluster
from dhctl.infra.kubernetes.discovery import RAY_CLUSTERS
from dhctl.infra.kubernetes.looking import NOT_TOLD, look
from dhctl.infra.kubernetes.pod_objects import LEASE_CPUS, LEASE_MEMORY_BYTES
from dhctl.infra.kubernetes.quantity import parse, told
from dhctl.infra.kubernetes.ray_cluster import AUTOSCALER_CPUS, AUTOSCALER_MEMORY_BYTES
from dhctl.infra.kubernetes.section import KubernetesSection
from dhctl.infra.spec import RunSpec
from dhctl.infra.target import Requirement

Item = Mapping[str, Any]
Amounts = dict[str, Decimal]

UNSET = ("requests.ephemeral-storage", "limits.ephemeral-storage")
"""What pods of a run do not state: where a quota limits it, a LimitRange must give a default."""

COUNTED = {
    "configmaps": 2,
    "secrets": 1,
    "services": 1,
    "networkpolicies.networking.k8s.io": 1,
    "cronjobs.batch": 1,
    "jobs.batch": 1,
}
ACCOUNTS = {
    "serviceaccounts": 2,
    "roles.rbac.authorization.k8s.io": 2,
    "rolebindings.rbac.authorization.k8s.io": 2,
}


@dataclass(frozen=True)
class Bounds:
    """What the namespace says of amounts; None where the caller may not read it."""

    quotas: Sequence[Item] | None = ()
    ranges: Sequence[Item] | None = ()

    @property
    def cpu_limits(self) -> bool:
        """Whether pods must state a limit of CPU: a quota counts it, or a default smaller than the request comes in."""
        if any("limits.cpu" in _hard(quota) for quota in self.quotas or ()):
            return True
        return any("cpu" in (item.get(key) or {}) for item in self._items("Container") for key in ("default", "max"))

    def _items(self, kind: str) -> Iterator[Item]:
        for limit_range in self.ranges or ():
            for item in limit_range.get("spec", {}).get("limits") or ():
                if item.get("type") == kind:
                    yield item

    def has_default(self, resource: str) -> bool:
        """Whether a LimitRange says what a container has that does not state it, such as limits.ephemeral-storage."""
        part, _, name = resource.partition(".")
        keys = ("default", "max") if part == "limits" else ("defaultRequest", "default", "max")
        return any(name in (item.get(key) or {}) for item in self._items("Container") for key in keys)


def read_bounds(cluster: Cluster, namespace: str) -> Bounds:
    """Both lists, side by side. Raises ClusterApiError."""
    base = f"/api/v1/namespaces/{namespace}"
    with ThreadPoolExecutor(2) as pool:
        quotas = pool.submit(look, cluster, f"{base}/resourcequotas")
        ranges = pool.submit(look, cluster, f"{base}/limitranges")
        return Bounds(quotas.result().items, ranges.result().items)


@dataclass(frozen=True)
class Limit:
    """One line of one quota, with what a run takes of it: `base` without workers, `each` a worker."""

    quota: str
    kind: str
    hard: Decimal
    used: Decimal
    base: Decimal
    each: Decimal

    @property
    def free(self) -> Decimal:
        """What is left."""
        return self.hard - self.used

    @property
    def told(self) -> str:
        """For people."""
        return f"{told(self.kind, max(Decimal(0), self.free))} free of {told(self.kind, self.hard)}"

    def need(self, workers: int) -> Decimal:
        """Of a run with so many workers."""
        return self.base + workers * self.each

    def room(self, most: int) -> int:
        """How many workers fit, at most `most`; -1 when not even the rest of the run does."""
        if self.need(most) <= self.free:
            return most
        return -1 if self.base > self.free else int((self.free - self.base) // self.each)


@dataclass(frozen=True)
class Fit:
    """How many workers fit now."""

    limits: Sequence[Limit]
    least: int
    most: int

    @property
    def workers(self) -> int:
        """So many."""
        return max(0, min([self.most, *(limit.room(self.most) for limit in self.limits)]))

    @property
    def problems(self) -> dict[tuple[str, str], str]:
        """By quota and kind, a sentence for what does not take even the smallest number of workers."""
        return {(row.quota, row.kind): self._too_few(row) for row in self.limits if row.need(self.least) > row.free}

    @property
    def limiting(self) -> list[Limit]:
        """What stops one more worker; empty when workers.max fits."""
        return [row for row in self.limits if row.room(self.most) == self.workers < self.most]

    @property
    def shortage(self) -> str:
        """A sentence, still without a next step, when fewer than workers.max fit, but enough; else empty."""
        if self.problems or self.workers >= self.most:
            return ""
        stops = ", ".join(f"{row.kind} ({row.told})" for row in self.limiting)
        return f"only {self.workers} of {self.most} workers fit now: {stops}"

    def _too_few(self, row: Limit) -> str:
        with_them = f"with {self.least} worker{'s' * (self.least > 1)}"
        need = f"{with_them} the run needs {told(row.kind, row.need(self.least))} of {row.kind}"
        has = f"and quota {row.quota} has {row.told}"
        return f"{need} {has}; delete what is not needed, use fewer or smaller workers, or ask for more quota"


def fit(spec: RunSpec, bounds: Bounds) -> Fit:
    """Compares. No call."""
    limits = [limit for quota in bounds.quotas or () for limit in _limits(spec, quota)]
    return Fit(limits, max(1, spec.workers.min), spec.workers.max)


def quota_requirements(spec: RunSpec, bounds: Bounds) -> Iterator[Requirement]:
    """A row for each line of a quota that the run takes from; the warning stands at the first that limits. No call."""
    if bounds.quotas is None:
        yield Requirement("quota", "room for the run", NOT_TOLD)
        return
    fits = fit(spec, bounds)
    warning = f"{fits.shortage}; without --strict workers.max is lowered to {fits.workers}" if fits.shortage else ""
    problems, limiting = fits.problems, fits.limiting
    for row in fits.limits:
        least, most = row.need(fits.least), row.need(fits.most)
        need = (
            f"{told(row.kind, least)} (min) to " * (least != most) + told(row.kind, most) + " (max)" * (least != most)
        )
        limits = bool(warning) and row in limiting
        problem = problems.get((row.quota, row.kind), "")
        yield Requirement(f"quota {row.quota}: {row.kind}", need, row.told, problem, warning if limits else "")
        warning = "" if limits else warning
    yield from _unset(bounds)


def range_requirements(spec: RunSpec, bounds: Bounds) -> Iterator[Requirement]:
    """What LimitRanges say of one container or pod. No call."""
    section, size = spec.kubernetes, spec.workers
    sizes = {
        "worker": {"cpu": Decimal(size.cpus), "memory": Decimal(size.memory), section.gpu_resource: Decimal(size.gpus)},
        "head": {"cpu": parse(section.head_cpus), "memory": Decimal(section.head_memory)},
        "lease": {"cpu": parse(LEASE_CPUS), "memory": Decimal(LEASE_MEMORY_BYTES)},
        **({"autoscaler": _autoscaler(section)} if section.by_kuberay else {}),
    }
    change = {
        "worker": "change workers.cpus, workers.memory or workers.gpus",
        "head": "change kubernetes.head_cpus or kubernetes.head_memory",
        "lease": "ask the namespace's owner to change it",
        "autoscaler": "ask the namespace's owner to change it, or set kubernetes.ray to pods",
    }
    for limit_range in bounds.ranges or ():
        name = limit_range["metadata"]["name"]
        problems = [
            f"limit range {name} wants {wanted} in a {item['type'].lower()}, and the {part}'s has "
            f"{told(resource, amount)}; {change[part]}"
            for item in limit_range.get("spec", {}).get("limits") or ()
            if item.get("type") in ("Container", "Pod")
            for part, amounts in sizes.items()
            for resource, amount in amounts.items()
            if (wanted := _outside(item, resource, amount))
        ]
        yield from (Requirement(f"limit range {name}", "fits", "does not fit", problem) for problem in problems)
        if not problems:
            yield Requirement(f"limit range {name}", "fits", "fits")


def _outside(item: Item, resource: str, amount: Decimal) -> str:
    """The bound that an amount breaks, or ""."""
    most, least = (item.get("max") or {}).get(resource), (item.get("min") or {}).get(resource)
    if most is not None and amount > parse(most):
        return f"at most {most} {resource}"
    if least is not None and 0 < amount < parse(least):
        return f"at least {least} {resource}"
    return ""


def _unset(bounds: Bounds) -> Iterator[Requirement]:
    for quota in bounds.quotas or ():
        for resource in UNSET:
            if resource in _hard(quota) and not bounds.has_default(resource):
                name = quota["metadata"]["name"]
                problem = f"quota {name} wants each pod to state {resource}, which a run's pods do not"
                fix = "ask the namespace's owner for a LimitRange with a default of it"
                yield Requirement(f"quota {name}: {resource}", "a default", "none", f"{problem}; {fix}")


def _hard(quota: Item) -> Item:
    hard: Item = (quota.get("status") or {}).get("hard") or quota.get("spec", {}).get("hard") or {}
    return hard


def _limits(spec: RunSpec, quota: Item) -> Iterator[Limit]:
    used = (quota.get("status") or {}).get("used") or {}
    head, worker = (_counts(spec, quota, part) for part in ("head", "worker"))
    rest = _objects(spec) if not _scopes(quota) else {}
    ours, mine = _head(spec) if head else {}, _worker(spec) if worker else {}
    for name, hard in _hard(quota).items():
        kind = _kind(name)
        base, each = ours.get(kind, Decimal(0)) + rest.get(kind, Decimal(0)), mine.get(kind, Decimal(0))
        if base or each:
            yield Limit(quota["metadata"]["name"], name, parse(hard), parse(used.get(name, "0")), base, each)


def _kind(name: str) -> str:
    """One name for what quotas call by two."""
    plain = name.removeprefix("count/")
    return f"requests.{plain}" if plain in ("cpu", "memory", "ephemeral-storage") else plain


def _pod(cpus: Decimal, memory: Decimal, gpus: int, gpu_resource: str) -> Amounts:
    return {
        "pods": Decimal(1),
        "requests.cpu": cpus,
        "limits.cpu": cpus,
        "requests.memory": memory,
        "limits.memory": memory,
        f"requests.{gpu_resource}": Decimal(gpus),
    }


def _worker(spec: RunSpec) -> Amounts:
    size = spec.workers
    return _pod(Decimal(size.cpus), Decimal(size.memory), size.gpus, spec.kubernetes.gpu_resource)


def _head(spec: RunSpec) -> Amounts:
    """With the pod that ends the lease: where there is no room for it, nothing ends it."""
    section = spec.kubernetes
    beside = _autoscaler(section)
    cpus, memory = parse(section.head_cpus) + beside["cpu"], Decimal(section.head_memory) + beside["memory"]
    head = _pod(cpus, memory, 0, section.gpu_resource)
    lease = _pod(parse(LEASE_CPUS), Decimal(LEASE_MEMORY_BYTES), 0, section.gpu_resource)
    return {kind: amount + lease[kind] for kind, amount in head.items()}


def _autoscaler(section: KubernetesSection) -> Amounts:
    """The container that KubeRay puts beside the head."""
    if not section.by_kuberay:
        return {"cpu": Decimal(0), "memory": Decimal(0)}
    return {"cpu": parse(AUTOSCALER_CPUS), "memory": Decimal(AUTOSCALER_MEMORY_BYTES)}


def _objects(spec: RunSpec) -> Amounts:
    section = spec.kubernetes
    counted = {**COUNTED, **({} if section.service_account else ACCOUNTS)}
    counted |= {RAY_CLUSTERS.name: 1} if section.by_kuberay else {}
    found = {kind: Decimal(count) for kind, count in counted.items()}
    if section.data_volume is not None:
        volume = {"persistentvolumeclaims": Decimal(1), "requests.storage": Decimal(section.data_volume)}
        found |= volume
        if section.storage_class:
            found |= {f"{section.storage_class}.storageclass.storage.k8s.io/{k}": v for k, v in volume.items()}
    return found


def _scopes(quota: Item) -> list[Item]:
    spec = quota.get("spec", {})
    named = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes") or ()]
    return [*named, *((spec.get("scopeSelector") or {}).get("matchExpressions") or ())]


def _counts(spec: RunSpec, quota: Item, part: str) -> bool:
    """Whether a quota with scopes counts the pods of this part. Only workers have a deadline of their own."""
    rules: Mapping[str, Callable[[Item], bool]] = {
        "Terminating": lambda scope: part == "worker",
        "NotTerminating": lambda scope: part == "head",
        "BestEffort": lambda scope: False,
        "CrossNamespacePodAffinity": lambda scope: False,
        "PriorityClass": lambda scope: _priority(scope, spec.kubernetes.priority_class),
    }
    return all(rules[scope["scopeName"]](scope) for scope in _scopes(quota) if scope["scopeName"] in rules)


def _priority(scope: Item, name: str | None) -> bool:
    match scope.get("operator"):
        case "In":
            return name in (scope.get("values") or ())
        case "NotIn":
            return name not in (scope.get("values") or ())
        case "DoesNotExist":
            return name is None
        case _:
            return name is not None
