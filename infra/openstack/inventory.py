"""Looking at a project for everything that carries a run's mark, through the raw APIs, and telling it to a receipt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from openstack.connection import Connection

from dhctl.infra.events import Report, Warned
from dhctl.infra.ledger import Entry
from dhctl.infra.openstack.cloud import CloudError, cloud_errors
from dhctl.infra.openstack.kinds import Kind, Owned, Project, kinds_of
from dhctl.infra.receipt import Check, Leftover

DELETE, SEEN = "resource.delete", "servers.seen"
"""Acts of the ledger: one resource deleted from the raw API, and servers of the run that were seen."""

LOOKS_AT_ONCE = 8


def known_servers(run_id: str, entries: Iterable[Entry]) -> frozenset[str]:
    """Servers that the run had, as `<run id>/<server id>`, gone or not: seen in a list, or told of by the head."""
    seen = [s for e in entries if e.act == SEEN for s in e.detail.get("servers", ())]
    told = [s for e in entries if e.act in ("node.start", "head.boot") and (s := e.detail.get("server"))]
    return frozenset(f"{run_id}/{server}" for server in (*seen, *told))


def refusals(entries: Iterable[Entry]) -> dict[str, str]:
    """Why the newest try to delete a resource failed, by resource id."""
    told: dict[str, str] = {}
    for entry in entries:
        if entry.act == DELETE and entry.phase in ("done", "failed"):
            told[str(entry.detail.get("id"))] = str(entry.detail.get("reason", ""))
    return told


def find(project: Project, kind: Kind, run_id: str) -> list[Owned]:
    """Resources of one kind with this run's mark. Raises CloudError."""
    with cloud_errors(f"list {kind.place}"):
        return [owned for owned in kind.find(project) if owned.mark.run_id == run_id]


def find_all(connection: Connection, report: Report) -> Iterator[Owned]:
    """Resources of all runs of the project, in the order in which they can be deleted.

    A kind that cannot be listed is warned of, and keeps none of the others from being found. Raises CloudError when it
    is the servers: they are what a run costs, and tell best until when it may live.
    """
    for kind in kinds_of(connection):
        try:
            with cloud_errors(f"list {kind.place}"):
                yield from kind.find(Project(connection))
        except CloudError as error:
            if kind.name == "server":
                raise
            report(Warned(str(error)))


def nothing_of(project: Project, run_id: str) -> bool:
    """Whether all lists could be read, and none has anything of this run."""
    return all(check.state == "none" for check in look(project, run_id, {}))


def look(project: Project, run_id: str, reasons: Mapping[str, str]) -> list[Check]:
    """One check a kind; a list that is not possible is "unknown" with the API's own words."""

    def look_at(kind: Kind) -> Check:
        looked_for = f"{kind.proof} {run_id}"
        try:
            found = find(project, kind, run_id)
        except Exception as error:  # noqa: BLE001 - whatever it was, the place is unknown
            return Check(kind.place, looked_for, (), str(error)[:500])
        left = (Leftover(o.kind, f"{o.name} ({o.id})", kind.remove_with(o), reasons.get(o.id, "")) for o in found)
        return Check(kind.place, looked_for, tuple(left))

    with ThreadPoolExecutor(LOOKS_AT_ONCE) as looks:
        return list(looks.map(look_at, kinds_of(project.connection)))
