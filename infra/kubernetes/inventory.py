"""Looking at a cluster for everything that carries a run's mark, through the raw API, and telling it to a receipt."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from kubernetes.client.exceptions import ApiException

from dhctl.infra.kubernetes.client import NO_SERVER, Cluster, ClusterApiError, patiently, reason_of, status_of
from dhctl.infra.kubernetes.discovery import NAMESPACES, VOLUMES, Kind, discover
from dhctl.infra.kubernetes.mark import ROLE_LABEL, RUN_LABEL, Mark
from dhctl.infra.kubernetes.raw import METADATA, read_json
from dhctl.infra.ledger import Entry
from dhctl.infra.mark import RUN_ID
from dhctl.infra.receipt import Check, Leftover

DELETE = "resource.delete"
"""Act of the ledger: one object deleted through the raw API."""

MADE = (
    *("pods", "configmaps", "secrets", "services", "serviceaccounts", "persistentvolumeclaims"),
    *("cronjobs.batch", "jobs.batch", "networkpolicies.networking.k8s.io", "rayclusters.ray.io"),
    *("roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io"),
)
"""What a run makes: these always have a row in the receipt."""

LOOKS_AT_ONCE = 8
PATIENCE_S = 15.0
NAMED = 12
"""Kinds that one row names; the others it counts."""

READ_ONLY_GROUPS = "metrics.k8s.io"
"""End of the names of groups in which nothing can be made. Their servers are often out of order."""

CLAIM = re.compile(rf"({RUN_ID.pattern})-.+")
"""Name of a claim that a run made."""

RAISED = (ApiException, *NO_SERVER)


HELD = "held by the"


@dataclass(frozen=True)
class Owned:
    """One object that carries a run's mark. `id` is its uid; `held` says what keeps it, where that shows."""

    kind: str
    id: str
    name: str
    mark: Mark
    of: Kind
    namespace: str
    role: str = ""
    deleting: bool = False
    held: str = ""

    def remove_with(self, context: str) -> str:
        """The command with which a person deletes it."""
        words = ["kubectl", "delete", self.of.name, self.name]
        words += ["-n", self.namespace] if self.of.namespaced else []
        words += ["--context", context] if context and context != "in-cluster" else []
        return shlex.join(words)

    @property
    def stuck(self) -> bool:
        """Its deletion was taken, and finalizers keep it."""
        return self.deleting and self.held.startswith(HELD)


@dataclass(frozen=True)
class Listing:
    """What a look at one kind gave. `error` says why there was none; `status` is HTTP's."""

    kind: Kind
    found: tuple[Owned, ...] = ()
    error: str = ""
    status: int = 0


@dataclass(frozen=True)
class Found:
    """One look at everything."""

    listings: tuple[Listing, ...]
    silent: tuple[str, ...] = ()
    """API groups that did not tell their kinds."""

    @property
    def owned(self) -> list[Owned]:
        """All that was found; what is served under two names counts once."""
        once: dict[str, Owned] = {}
        for listing in self.listings:
            for found in listing.found:
                once.setdefault(found.id, found)
        return list(once.values())

    @property
    def troubles(self) -> list[Listing]:
        """Looks that failed, though not for want of a right."""
        return [listing for listing in self.listings if listing.error and listing.status != 403]


def refusals(entries: Iterable[Entry]) -> dict[str, str]:
    """Why the newest try to delete an object failed, by uid."""
    told: dict[str, str] = {}
    for entry in entries:
        if entry.act == DELETE and entry.phase in ("done", "failed"):
            told[str(entry.detail.get("id"))] = str(entry.detail.get("reason", ""))
    return told


def waited_for(entries: Iterable[Entry]) -> set[str]:
    """Uids of what was waited for in vain since the newest `down` began: no need to wait for it as long once more."""
    found: set[str] = set()
    for entry in entries:
        if (entry.act, entry.phase) == ("down", "intent"):
            found.clear()
        elif (entry.act, entry.phase) == (DELETE, "failed"):
            found.add(str(entry.detail.get("id")))
    return found


def find(cluster: Cluster, namespace: str, run_id: str) -> Found:
    """Everything of a run: all kinds of the namespace, side by side; volumes bound to its claims; the namespace itself.

    Raises ClusterApiError when the cluster does not tell its kinds.
    """
    place = listing_of(cluster, NAMESPACES, namespace, run_id)
    discovery = discover(cluster)
    if place.status == 404:  # and so there can be nothing in it
        empty = [Listing(kind) for kind in discovery.kinds]
        return Found((*empty, listing_of(cluster, VOLUMES, namespace, run_id), Listing(NAMESPACES)), discovery.silent)
    listings = _side_by_side(cluster, [*discovery.kinds, VOLUMES], namespace, run_id)
    claims = {o.id for listing in listings if listing.kind.plural == "persistentvolumeclaims" for o in listing.found}
    if claims and not listings[-1].error:  # also by uid, where a claim has a name of its own
        listings[-1] = listing_of(cluster, VOLUMES, namespace, run_id, frozenset(claims))
    return Found((*listings, place), discovery.silent)


def _side_by_side(cluster: Cluster, kinds: Iterable[Kind], namespace: str, run_id: str) -> list[Listing]:
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as looks:
        return list(looks.map(lambda kind: listing_of(cluster, kind, namespace, run_id), kinds))


def listing_of(
    cluster: Cluster, kind: Kind, namespace: str, run_id: str = "", claims: frozenset[str] = frozenset()
) -> Listing:
    """Objects of one kind with this run's mark; without a run id with the mark of any run. Never raises.

    Without a namespace of all namespaces.
    """
    try:
        found = tuple(_owned_of(cluster, kind, namespace, run_id, claims))
    except RAISED as error:
        status = status_of(error)
        if status == 404 and kind != NAMESPACES:  # a kind that was taken away meanwhile
            return Listing(kind)
        return Listing(kind, (), reason_of(error), status)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Listing(kind, (), f"the answer makes no sense ({type(error).__name__}: {error})"[:300])
    return Listing(kind, found)


def _owned_of(cluster: Cluster, kind: Kind, namespace: str, run_id: str, claims: frozenset[str]) -> Iterator[Owned]:
    selector = f"{RUN_LABEL}={run_id}" if run_id else RUN_LABEL
    if kind == VOLUMES:
        for item in items_of(cluster, kind.path()):
            mark = _mark_of_volume(item, namespace, run_id, claims)
            if mark:
                yield _volume(item, mark)
        return
    if kind == NAMESPACES and namespace:
        items = [patiently(lambda: read_json(cluster, kind.path(name=namespace)), PATIENCE_S)]
    else:
        items = items_of(cluster, kind.path(namespace), [("labelSelector", selector)], METADATA)
    for item in items:
        found = owned(kind, item)
        if found and run_id in ("", found.mark.run_id):
            yield found


def items_of(
    cluster: Cluster, path: str, query: Iterable[tuple[str, str]] = (), accept: str = "application/json"
) -> list[dict[str, Any]]:
    """The items of a list. Raises ApiException, and what `client.NO_SERVER` lists."""
    answer = patiently(lambda: read_json(cluster, path, list(query), accept), PATIENCE_S)
    return list(answer.get("items") or ())


def owned(kind: Kind, item: Mapping[str, Any]) -> Owned | None:
    """An object as one of a run's, or None when it carries no mark."""
    metadata = item["metadata"]
    labels = metadata.get("labels") or {}
    mark = Mark.from_labels(labels)
    if mark is None:
        return None
    name, place = metadata["name"], metadata.get("namespace", "")
    return Owned(
        kind.singular,
        metadata["uid"],
        name,
        mark,
        kind,
        place if kind.namespaced else name,
        labels.get(ROLE_LABEL, ""),
        bool(metadata.get("deletionTimestamp")),
        _holders(metadata),
    )


def _holders(metadata: Mapping[str, Any]) -> str:
    """The finalizers of an object whose deletion was taken."""
    since, finalizers = metadata.get("deletionTimestamp"), metadata.get("finalizers") or ()
    if not since:
        return ""
    held = f"{HELD} finalizer{'s' * (len(finalizers) > 1)} {', '.join(finalizers)}" if finalizers else "going"
    return f"{held} since its deletion was taken at {since}"


def _mark_of_volume(item: Mapping[str, Any], namespace: str, run_id: str, claims: frozenset[str]) -> Mark | None:
    """Provisioners copy no labels: a volume is known by the claim that it is, or was, bound to."""
    claim = (item.get("spec") or {}).get("claimRef") or {}
    if namespace not in ("", claim.get("namespace")):
        return None
    if claim.get("uid") in claims:
        return Mark(run_id)
    named = CLAIM.fullmatch(str(claim.get("name", "")))
    return Mark(named[1]) if named and run_id in ("", named[1]) else None


def _volume(item: Mapping[str, Any], mark: Mark) -> Owned:
    metadata, spec = item["metadata"], item["spec"]
    retained = spec.get("persistentVolumeReclaimPolicy") == "Retain"
    held = "its reclaim policy is Retain: the storage stays until the cluster's operator removes it" if retained else ""
    gone = bool(metadata.get("deletionTimestamp"))
    claimed_in = str(spec["claimRef"].get("namespace", ""))
    kind = VOLUMES
    return Owned(
        kind.singular, metadata["uid"], metadata["name"], mark, kind, claimed_in, "", gone, held or _holders(metadata)
    )


@dataclass(frozen=True)
class Rules:
    """What the caller may make in a namespace, as the cluster tells it; `whole` unless it cannot tell all of it."""

    rules: tuple[Mapping[str, Any], ...]
    whole: bool

    def may_create(self, group: str, plural: str = "*") -> bool:
        """Whether a rule allows it. A right to single names is none to create."""
        for rule in self.rules:
            groups, resources, verbs = (rule.get(k) or () for k in ("apiGroups", "resources", "verbs"))
            named = plural == "*" or plural in resources or "*" in resources
            if {"*", "create"} & set(verbs) and {"*", group} & set(groups) and named and not rule.get("resourceNames"):
                return True
        return False


def rules_of(cluster: Cluster, namespace: str) -> Rules:
    """Asks once for all kinds. A cluster that does not answer knows no rules."""
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    try:
        path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
        told = patiently(lambda: cluster.call("POST", path, body), PATIENCE_S).get("status") or {}
    except RAISED:
        return Rules((), whole=False)
    return Rules(tuple(told.get("resourceRules") or ()), whole=not told.get("incomplete"))


def _may_create(cluster: Cluster, namespace: str, kind: Kind) -> bool:
    """One question for one kind, where the rules are not whole; yes where that is not answered either."""
    wanted = {"namespace": namespace, "verb": "create", "group": kind.group, "resource": kind.plural}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": wanted},
    }
    try:
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        told = patiently(lambda: cluster.call("POST", path, body), PATIENCE_S)
    except RAISED:
        return True
    return bool((told.get("status") or {}).get("allowed"))


def look(cluster: Cluster, namespace: str, run_id: str, entries: Iterable[Entry] = ()) -> list[Check]:
    """A row for each kind that a run makes or the caller may make, and one for all other kinds together.

    A kind that cannot be listed is "unknown" only where the caller could have made such objects. `entries` are those of
    the run's ledger, which tell why a deletion was refused.
    """
    try:
        found = find(cluster, namespace, run_id)
    except ClusterApiError as error:
        return [Check("Kubernetes", f"label {RUN_LABEL}={run_id} in namespace {namespace}", (), str(error)[:500])]
    return list(_Rows(cluster, namespace, run_id, refusals(entries)).of(found))


class _Rows:
    """The receipt's rows of one look."""

    def __init__(self, cluster: Cluster, namespace: str, run_id: str, reasons: Mapping[str, str]) -> None:
        self._cluster, self._namespace, self._reasons = cluster, namespace, reasons
        self._looked_for = f"label {RUN_LABEL}={run_id} in {namespace}"
        self._run_id = run_id
        self._rules = rules_of(cluster, namespace)

    def of(self, found: Found) -> Iterator[Check]:
        """In the order in which the cluster tells its kinds."""
        once, unread, read = {o.id: o for o in found.owned}, list[str](), list[Listing]()
        for listing in found.listings:
            own = tuple(o for o in listing.found if once.get(o.id) == o)
            if listing.error and not self._could_have_made(listing):
                unread.append(listing.kind.name)
            elif listing.error or self._has_row(listing.kind):
                yield self._row(listing, own)
            else:
                read.append(Listing(listing.kind, own))
        for group in found.silent:
            if self._rules.may_create(group) and not group.endswith(READ_ONLY_GROUPS):
                yield Check(f"kinds of {group}", self._looked_for, (), "its API server does not tell its kinds")
            else:
                unread.append(f"all of {group}")
        if read or unread:
            yield self._others(read, unread)

    def _has_row(self, kind: Kind) -> bool:
        if kind == NAMESPACES:
            return self._namespace == self._run_id
        return kind == VOLUMES or kind.name in MADE or self._rules.may_create(kind.group, kind.plural)

    def _could_have_made(self, listing: Listing) -> bool:
        kind = listing.kind
        if kind == VOLUMES and listing.status == 403:
            return False  # provisioners make them, not tenants
        if self._has_row(kind):
            return True
        return kind.namespaced and not self._rules.whole and _may_create(self._cluster, self._namespace, kind)

    def _row(self, listing: Listing, own: tuple[Owned, ...]) -> Check:
        looked_for = self._looked_for
        if listing.kind == VOLUMES:
            looked_for = f"bound to claims of {self._run_id} in {self._namespace}"
        elif listing.kind == NAMESPACES:
            looked_for = f"label {RUN_LABEL}={self._run_id}"
        unknown = f"cannot list {listing.kind.name}: {listing.error}" if listing.error else ""
        return Check(listing.kind.name, looked_for, tuple(map(self._leftover, own)), unknown)

    def _others(self, read: list[Listing], unread: list[str]) -> Check:
        told = f"{self._looked_for}, {len(read)} kinds"
        if unread:
            rest = f" and {len(unread) - NAMED} more" if len(unread) > NAMED else ""
            told += f"; not to be seen, nor made, by you: {', '.join(sorted(unread)[:NAMED])}{rest}"
        left = tuple(self._leftover(o) for listing in read for o in listing.found)
        return Check("other kinds", told, left)

    def _leftover(self, found: Owned) -> Leftover:
        reason = self._reasons.get(found.id) or found.held
        return Leftover(found.kind, found.name, found.remove_with(self._cluster.context), reason)
