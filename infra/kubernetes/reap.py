"""Ending runs from a cluster's own lists, without a record of them: by mark and expiry alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dhctl.infra.events import Report, Warned
from dhctl.infra.kubernetes import inventory
from dhctl.infra.kubernetes.client import Cluster, ClusterApiError, reason_of, status_of
from dhctl.infra.kubernetes.discovery import NAMESPACES, VOLUMES, Kind, discover
from dhctl.infra.kubernetes.inventory import LOOKS_AT_ONCE, RAISED, Listing, Owned, items_of, listing_of
from dhctl.infra.kubernetes.raw import METADATA
from dhctl.infra.kubernetes.sweep import Sweep
from dhctl.infra.ledger import Ledger
from dhctl.infra.marked_run import MarkedRun, past_lease


def marked_runs(cluster: Cluster, namespace: str | None = None) -> list[MarkedRun]:
    """All runs of which a namespace has something, each with the latest expiry that it tells; without a namespace
    those of all namespaces in which the caller may list, at least of the context's own.

    Raises ClusterApiError.
    """
    by_run: dict[str, dict[str, Owned]] = {}
    for owned in _all_owned(cluster, namespace):
        by_run.setdefault(owned.mark.run_id, {}).setdefault(owned.id, owned)
    return [
        MarkedRun(run, max(o.mark.expires_at for o in found.values()), tuple(found.values()))
        for run, found in by_run.items()
    ]


def expired(cluster: Cluster, run_id: str | None = None, namespace: str | None = None) -> list[MarkedRun]:
    """Runs past their lease; with `run_id` that one, past it or not. Raises ClusterApiError, UnknownRunError."""
    return past_lease(marked_runs(cluster, namespace), run_id)


def end(cluster: Cluster, run: MarkedRun, report: Report) -> MarkedRun:
    """Sweeps a run and looks again. What the API says to a refused deletion stands in the checks."""
    checks = []
    for namespace in sorted({owned.namespace for owned in run.owned if isinstance(owned, Owned)}):
        with tempfile.TemporaryDirectory(prefix="dhctl-reap-") as folder:
            ledger = Ledger(Path(folder) / "ledger.jsonl")
            ledger.create()
            try:
                Sweep(cluster, namespace, run.run_id, ledger, report).run()
            except ClusterApiError as error:
                report(Warned(str(error)))
            entries = ledger.entries()
        checks += inventory.look(cluster, namespace, run.run_id, entries)
    return MarkedRun(run.run_id, run.expires_at, run.owned, tuple(checks))


def _all_owned(cluster: Cluster, namespace: str | None) -> Iterator[Owned]:
    kinds = [*discover(cluster).kinds, VOLUMES, NAMESPACES]
    places = [namespace] if namespace else _places(cluster)

    def look(kind: Kind) -> list[Listing]:
        """One list of all namespaces where that is allowed, else one for each."""
        everywhere = listing_of(cluster, kind, namespace or "")
        if namespace or not everywhere.error or not kind.namespaced:
            return [everywhere]
        return [listing_of(cluster, kind, place) for place in places]

    with ThreadPoolExecutor(LOOKS_AT_ONCE) as looks:
        found = [listing for listings in looks.map(look, kinds) for listing in listings]
    for listing in found:
        if listing.error and listing.status not in (403, 404, 405):
            raise ClusterApiError(f"cannot list {listing.kind.name}: {listing.error}", "try again", listing.status)
        yield from listing.found


def _places(cluster: Cluster) -> list[str]:
    """Namespaces that the caller may list; else only the context's own."""
    try:
        return [item["metadata"]["name"] for item in items_of(cluster, NAMESPACES.path(), (), METADATA)]
    except RAISED as error:
        if status_of(error) == 403:
            return [cluster.namespace]
        raise ClusterApiError(f"cannot list namespaces: {reason_of(error)}", "try again", status_of(error)) from error
