"""Which kinds of objects a namespace can have: asked, because every cluster has its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from kubernetes.client.exceptions import ApiException

from dhctl.infra.kubernetes.client import NO_SERVER, Cluster, api_errors, patiently
from dhctl.infra.kubernetes.raw import read_json

AGGREGATED = ",".join(
    [
        *(f"application/json;g=apidiscovery.k8s.io;v={v};as=APIGroupDiscoveryList" for v in ("v2", "v2beta1")),
        "application/json",
    ]
)
"""All kinds in one answer, since Kubernetes 1.30; what stands between may serve only the older lists."""

PATIENCE_S = 15.0
CALLS_AT_ONCE = 8
NEEDED = {"list", "delete"}


@dataclass(frozen=True)
class Kind:
    """One kind of objects, in the version that the cluster prefers."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def name(self) -> str:
        """As kubectl takes it: pods, cronjobs.batch."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """As manifests have it: v1, batch/v1."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        """For people: pod, cronjob."""
        return self.kind.lower()

    def path(self, namespace: str = "", name: str = "") -> str:
        """Of one object, or of the list; without a namespace of all namespaces."""
        base = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        place = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        return f"{base}{place}/{self.plural}" + (f"/{name}" if name else "")


PODS = Kind("", "v1", "pods", "Pod")
CONFIG_MAPS = Kind("", "v1", "configmaps", "ConfigMap")
SERVICES = Kind("", "v1", "services", "Service")
ROLE_BINDINGS = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
NAMESPACES = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
RAY_CLUSTERS = Kind("ray.io", "v1", "rayclusters", "RayCluster")
VOLUMES = Kind("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)


@dataclass(frozen=True)
class Discovery:
    """Kinds of namespaced objects that can be listed and deleted, and the API groups that did not tell theirs."""

    kinds: tuple[Kind, ...]
    silent: tuple[str, ...] = ()


def discover(cluster: Cluster) -> Discovery:
    """Asks the API server. Raises ClusterApiError when it does not answer."""
    rows: list[_Row] = []
    silent: list[str] = []
    with api_errors("ask which kinds of objects the cluster has"):
        for base in ("/api", "/apis"):
            told, quiet = _told(cluster, base)
            rows += told
            silent += quiet
    return Discovery(tuple(_usable(rows)), tuple(dict.fromkeys(silent)))


def _told(cluster: Cluster, base: str) -> tuple[list[_Row], list[str]]:
    answer = patiently(lambda: read_json(cluster, base, accept=AGGREGATED), PATIENCE_S)
    if answer.get("kind") == "APIGroupDiscoveryList":
        return _aggregated(answer)
    return _one_by_one(cluster, answer, base)


@dataclass(frozen=True)
class _Row:
    kind: Kind
    verbs: frozenset[str]


def _usable(rows: Iterable[_Row]) -> Iterator[Kind]:
    """Each once, in the first version that has it: versions come in the order in which the cluster prefers them."""
    seen: set[str] = set()
    for row in rows:
        if row.kind.namespaced and row.verbs >= NEEDED and row.kind.name not in seen:
            seen.add(row.kind.name)
            yield row.kind


def _aggregated(answer: dict[str, Any]) -> tuple[list[_Row], list[str]]:
    rows, silent = [], []
    for item in answer.get("items") or ():
        group = item.get("metadata", {}).get("name", "")
        for version in item.get("versions") or ():
            resources = version.get("resources") or ()
            if not resources and version.get("freshness") == "Stale":
                silent.append(group)
            for told in resources:
                made = (told.get("responseKind") or {}).get("kind", told["resource"])
                kind = Kind(group, version["version"], told["resource"], made, told.get("scope") == "Namespaced")
                rows.append(_Row(kind, frozenset(told.get("verbs") or ())))
    return rows, silent


def _one_by_one(cluster: Cluster, answer: dict[str, Any], base: str) -> tuple[list[_Row], list[str]]:
    """A list for each version of each group, as older servers have them."""
    wanted = [("", version) for version in answer.get("versions") or ()]
    for group in answer.get("groups") or ():
        preferred = group.get("preferredVersion", {}).get("version")
        versions = sorted((v["version"] for v in group["versions"]), key=lambda v: v != preferred)
        wanted += [(group["name"], version) for version in versions]

    def ask(place: tuple[str, str]) -> Sequence[_Row] | None:
        group, version = place
        path = "/".join(filter(None, (base, group, version)))
        try:
            found = patiently(lambda: read_json(cluster, path), PATIENCE_S)
        except (ApiException, *NO_SERVER):
            return None
        return [
            _Row(Kind(group, version, r["name"], r["kind"], bool(r["namespaced"])), frozenset(r.get("verbs") or ()))
            for r in found.get("resources") or ()
            if "/" not in r["name"]
        ]

    with ThreadPoolExecutor(CALLS_AT_ONCE) as calls:
        answers = list(calls.map(ask, wanted))
    silent = [group or version for (group, version), rows in zip(wanted, answers, strict=True) if rows is None]
    return [row for rows in answers for row in rows or ()], silent
