"""Deleting what carries a run's mark and is still there: what the world outside holds on to first, then the run object
with all that it owns, then the rest kind by kind, then the namespace that was made for the run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any

from dhctl.infra.errors import RefusedError
from dhctl.infra.events import Event, Report, ResourceChanged
from dhctl.infra.kubernetes.apply import AGAIN_S, held_by
from dhctl.infra.kubernetes.client import Cluster, ClusterApiError, patiently, reason_of, status_of
from dhctl.infra.kubernetes.discovery import CONFIG_MAPS, NAMESPACES, PODS, ROLE_BINDINGS, SERVICES, VOLUMES, discover
from dhctl.infra.kubernetes.inventory import (
    DELETE,
    RAISED,
    Found,
    Owned,
    find,
    items_of,
    listing_of,
    owned,
    waited_for,
)
from dhctl.infra.kubernetes.raw import METADATA, read_json
from dhctl.infra.ledger import Ledger
from dhctl.infra.processes import wait_until

DEADLINE_S = 300.0
"""How long a sweep goes on while something goes away, or while the API is in trouble."""

RUN_OBJECT_S = 60.0
"""How long the garbage collector may take for all that the run object owns, before each object is deleted by name."""

GONE_S, HELD_S = 60.0, 30.0
"""How long objects of one rank may take before the next rank is asked for too; and what is held by finalizers alone."""

BALANCERS_S = 150.0
"""How long clouds may take for their load balancers."""

LOOK_EVERY_S = 0.5
GOES_SOON_S = 1.0
"""Looks come more often for as long: most things are gone at once."""

PATIENCE_S = 15.0
CALLS_AT_ONCE = 8
REFUSALS = (400, 403, 405, 409, 422)
"""Answers that the next try will get too, unless somebody does something."""

RANKS = {
    **dict.fromkeys(("cronjobs.batch", "jobs.batch"), 1),
    **dict.fromkeys((f"{plural}.apps" for plural in ("deployments", "statefulsets", "daemonsets", "replicasets")), 2),
    "pods": 3,
    "services": 4,
    "persistentvolumeclaims": 5,
    **dict.fromkeys(("configmaps", "secrets", "networkpolicies.networking.k8s.io"), 6),
    **dict.fromkeys(("rolebindings.rbac.authorization.k8s.io", "roles.rbac.authorization.k8s.io"), 7),
    "serviceaccounts": 8,
}
"""Order of deletion. Kinds that are not named go first: what an operator serves may make pods anew."""

ALONE = (PODS, ROLE_BINDINGS, NAMESPACES)
"""They own nothing that is deleted with them here, and so need not wait for the garbage collector."""

WORK = (
    *("pods", "persistentvolumeclaims", "jobs.batch", "cronjobs.batch"),
    *("deployments.apps", "statefulsets.apps", "daemonsets.apps"),
)
"""What others may have put into the run's namespace, and would miss. Clusters put other things into every namespace."""


class Sweep:
    """Rounds, until nothing with the mark is left, nothing more can be done, or the time is over."""

    def __init__(self, cluster: Cluster, namespace: str, run_id: str, ledger: Ledger, report: Report) -> None:
        self._cluster, self._namespace, self._run_id = cluster, namespace, run_id
        self._ledger, self._tell, self._telling = ledger, report, threading.Lock()
        self._refused: dict[str, str] = {}
        self._waited: set[str] = set()
        """Uids of what this `down` waited for in vain before this sweep."""
        self._unconfirmed: set[str] = set()
        """Uids of pods whose end was waited for and did not come, as on a node that is dead."""
        self._until = time.monotonic() + DEADLINE_S

    def run(self) -> set[str]:
        """Deletes; uids of what is left. Raises ClusterApiError when a kind could not be listed to the end.

        A refusal counts when the next round meets it too: what held the object may have been on its way out.
        """
        self._until = time.monotonic() + DEADLINE_S
        found = self._look()
        if not found.owned and not found.troubles:
            return set()
        self._waited = waited_for(self._ledger.entries())
        self._unconfirmed |= {o.id for o in found.owned if o.of == PODS and o.deleting} & self._waited
        self.end_balancers()
        self._end_run_object(found.owned)
        found = self._rounds()
        for place in [o for o in found.owned if o.of == NAMESPACES]:
            self._end_namespace(place)
            found = self._look()
        self._tell_what_stays(found.owned)
        if found.troubles:
            worst = found.troubles[0]
            raise ClusterApiError(f"cannot list {worst.kind.name}: {worst.error}", "try again later", worst.status)
        return {o.id for o in found.owned}

    def end_balancers(self) -> None:
        """Services behind a load balancer of the cloud: their controller must still see them whole to take it down."""
        kept = listing_of(self._cluster, SERVICES, self._namespace, self._run_id).found
        if not kept:
            return
        try:
            items = items_of(self._cluster, SERVICES.path(self._namespace))
        except RAISED:
            return  # they go with the others then
        balanced = {i["metadata"]["uid"] for i in items if i.get("spec", {}).get("type") == "LoadBalancer"}
        self.end([o for o in kept if o.id in balanced], BALANCERS_S)

    def end(self, those: Sequence[Owned], seconds: float = GONE_S) -> set[str]:
        """Deletes these, and waits until they are gone; uids of those that are not."""
        return self._await_gone(self.ask(those), seconds)

    def ask(self, those: Sequence[Owned], grace_s: int | None = None) -> list[Owned]:
        """Asks for the deletion of these, side by side; those of which it was taken, or was already. `grace_s` is what
        pods get to end in, instead of what they say themselves.
        """
        with ThreadPoolExecutor(CALLS_AT_ONCE) as calls:
            took = list(calls.map(lambda one: self._ask(one, grace_s), those))
        return [o for o, taken in zip(those, took, strict=True) if taken]

    def _look(self) -> Found:
        """Raises ClusterApiError when the cluster does not tell its kinds until the time is over."""
        while True:
            try:
                return find(self._cluster, self._namespace, self._run_id)
            except ClusterApiError as error:
                if error.status in (401, 403) or self._left_s() <= 0:
                    raise
            time.sleep(LOOK_EVERY_S)

    def _end_run_object(self, there: Sequence[Owned]) -> None:
        """In the foreground: the object itself goes last, so that it is there as long as something that it owns is."""
        roots = [o for o in there if self._is_run_object(o)]
        patience_s = HELD_S if any(o.stuck for o in there) else RUN_OBJECT_S
        if {o.id for o in roots} <= self._waited:
            patience_s = AGAIN_S
        if not roots or self.end(roots, patience_s):
            return
        left = {o.id for o in self._look().owned}
        self._unconfirmed |= {o.id for o in there if o.of == PODS and o.deleting} & left
        gone = {o.id for o in there} - left - {o.id for o in roots}
        for one in there:
            if one.id in gone:
                self._report(ResourceChanged(one.name, one.kind, "deleted"))

    def _rounds(self) -> Found:
        before = self._hopeless(self._look().owned)
        while True:
            self._refused = {}
            found = self._look()
            rest = [o for o in found.owned if o.of not in (NAMESPACES, VOLUMES)]
            for rank in _by_rank(rest):
                self.end(rank, self._patience_s(rank, found.owned))
            found = self._look()
            left = {o.id for o in found.owned if o.of != NAMESPACES and not _kept_by_policy(o)}
            stuck = self._refused.keys() | self._hopeless(found.owned)
            settled = not found.troubles and (not left or (left == before and left <= stuck))
            if settled or self._left_s() <= 0:
                return found
            before = left
            time.sleep(LOOK_EVERY_S)

    def _hopeless(self, there: Iterable[Owned]) -> set[str]:
        """What no more waiting ends: held by finalizers, pods whose end is not confirmed, and what waits for those."""
        late = {o.id for o in there if o.stuck or o.id in self._unconfirmed}
        waiting = {o.id for o in there if o.deleting and self._is_run_object(o)} if late else set()
        return late | waiting

    def _patience_s(self, rank: Sequence[Owned], there: Iterable[Owned]) -> float:
        ids, hopeless = {o.id for o in rank}, self._hopeless(there)
        if ids <= hopeless and (self._unconfirmed or ids <= self._waited):
            return 0.0
        return HELD_S if ids <= hopeless else GONE_S

    def _is_run_object(self, one: Owned) -> bool:
        return one.of.name == CONFIG_MAPS.name and one.name == self._run_id

    def _ask(self, one: Owned, grace_s: int | None = None) -> bool:
        """One deletion, of exactly the object that still carries the mark; whether the API took it."""
        try:
            now = self._read(one)
        except RAISED as error:
            return self._refuse(one, error)
        if now is None:
            return False
        if now.deleting:
            return True
        self._report(ResourceChanged(one.name, one.kind, "deleting"))
        self._ledger.note(DELETE, "intent", **_told(one))
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": one.id},
            "propagationPolicy": "Background" if one.of in ALONE else "Foreground",
            **({} if grace_s is None else {"gracePeriodSeconds": grace_s}),
        }
        path = one.of.path(one.namespace, one.name)
        try:
            patiently(lambda: self._cluster.call("DELETE", path, body), min(PATIENCE_S, max(self._left_s(), 0.0)))
        except RAISED as error:
            if status_of(error) != 404:
                return self._refuse(one, error)
        self._ledger.note(DELETE, "done", **_told(one))
        return True

    def _read(self, one: Owned) -> Owned | None:
        """The object as it is now; None when it is gone, is another one of the same name, or lost the mark."""
        path = one.of.path(one.namespace, one.name)
        try:
            found = owned(one.of, patiently(lambda: read_json(self._cluster, path, accept=_ONE), PATIENCE_S))
        except RAISED as error:
            if status_of(error) == 404:
                return None
            raise
        return found if found and (found.id, found.mark.run_id) == (one.id, self._run_id) else None

    def _refuse(self, one: Owned, error: Exception) -> bool:
        reason = reason_of(error)
        if status_of(error) in REFUSALS:
            self._refused[one.id] = reason
        self._fail(one, reason)
        return False

    def _fail(self, one: Owned, reason: str) -> None:
        self._ledger.note(DELETE, "failed", **_told(one), reason=reason[:1000])
        self._report(ResourceChanged(one.name, one.kind, "failed", reason[:1000]))

    def _await_gone(self, asked: Sequence[Owned], seconds: float) -> set[str]:
        left = {o.id for o in asked}
        kinds = list(dict.fromkeys(o.of for o in asked))

        def gone() -> bool:
            for kind in kinds:
                listing = listing_of(self._cluster, kind, self._namespace, self._run_id)
                if not listing.error:
                    there = {o.id for o in listing.found}
                    left.difference_update([o.id for o in asked if o.of == kind and o.id not in there])
                elif listing.status == 404:  # the namespace itself
                    left.difference_update([o.id for o in asked if o.of == kind])
            return not left

        limit_s = max(min(seconds, self._left_s()), 0.0)
        if asked and not wait_until(gone, min(limit_s, GOES_SOON_S)):
            wait_until(gone, limit_s - GOES_SOON_S, LOOK_EVERY_S)
        if seconds >= GONE_S:
            self._unconfirmed |= {o.id for o in asked if o.of == PODS and not o.stuck} & left
        for one in asked:
            if one.id not in left:
                self._report(ResourceChanged(one.name, one.kind, "deleted"))
        return left

    def _end_namespace(self, place: Owned) -> None:
        """With what the cluster itself put into it; never with the work or data of others."""
        try:
            foreign = list(self._foreign())
        except RefusedError as error:
            self._fail(place, str(error))
            return
        if foreign:
            named = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
            self._fail(place, f"holds {named}, which is not this run's")
            return
        patience_s = min(HELD_S, self._left_s()) if self._unconfirmed else self._left_s()
        if self.end([place], patience_s) and place.id not in self._refused:
            self._fail(place, self._why_namespace_stays() or self._still_there())

    def _foreign(self) -> Iterator[str]:
        """Raises ClusterApiError where the namespace cannot be looked through: then it must stay."""
        for kind in [kind for kind in discover(self._cluster).kinds if kind.name in WORK]:
            try:
                items = items_of(self._cluster, kind.path(self._namespace), (), METADATA)
            except RAISED as error:
                raise ClusterApiError(f"whether others use it cannot be seen: {reason_of(error)}") from error
            for item in items:
                found = owned(kind, item)
                going = bool(item["metadata"].get("deletionTimestamp"))
                if not going and (found is None or found.mark.run_id != self._run_id):
                    yield f"{kind.singular} {item['metadata']['name']}"

    def _why_namespace_stays(self) -> str:
        """The namespace controller's own words."""
        try:
            now = read_json(self._cluster, NAMESPACES.path(name=self._namespace))
        except RAISED:
            return ""
        conditions = (now.get("status") or {}).get("conditions") or ()
        return "; ".join(str(c.get("message", "")) for c in conditions if c.get("status") == "True")

    def _tell_what_stays(self, left: Iterable[Owned]) -> None:
        """What was refused is told already."""
        for one in left:
            if one.id not in self._refused and one.of != NAMESPACES:
                told = one.held or self._still_there()
                self._fail(one, "; ".join(filter(None, (told, self._node_of(one)))))

    def _still_there(self) -> str:
        return f"still there {DEADLINE_S - self._left_s():.0f} s after the sweep began"

    def _node_of(self, one: Owned) -> str:
        """Of a pod whose end nobody confirms: its node, which may be dead."""
        if one.of != PODS or not one.deleting or one.stuck:
            return ""
        try:
            return held_by(read_json(self._cluster, PODS.path(one.namespace, one.name)))
        except RAISED:
            return ""  # the rest is told in any case

    def _report(self, event: Event) -> None:
        """Deletions are asked for by several threads; whoever listens need not know."""
        with self._telling:
            self._tell(event)

    def _left_s(self) -> float:
        return self._until - time.monotonic()


_ONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"


def _by_rank(those: Iterable[Owned]) -> Iterator[list[Owned]]:
    def rank(one: Owned) -> int:
        return RANKS.get(one.of.name, 0)

    for _, group in groupby(sorted(those, key=rank), rank):
        yield list(group)


def _kept_by_policy(one: Owned) -> bool:
    """Nothing that dhctl does ends it, so nothing is waited for."""
    return one.of == VOLUMES and not one.deleting and bool(one.held)


def _told(one: Owned) -> dict[str, Any]:
    return {"kind": one.kind, "id": one.id, "name": one.name}
