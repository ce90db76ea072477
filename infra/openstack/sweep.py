"""Deleting what carries a run's mark and is still there, in the order of its dependencies, from the raw APIs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

from dhctl.infra.events import Report, ResourceChanged
from dhctl.infra.ledger import Ledger
from dhctl.infra.openstack.answers import reason_of, status_of
from dhctl.infra.openstack.cloud import RAISED, CloudError
from dhctl.infra.openstack.inventory import DELETE, SEEN, find, nothing_of
from dhctl.infra.openstack.kinds import Kind, Owned, Project, kinds_of
from dhctl.infra.processes import wait_until

GONE_S = 120.0
"""How long resources of one kind may take to be gone after the API took their deletion."""

ROUNDS_S = 300.0
"""How long a sweep goes on while the cloud is in trouble, or while holders of a resource go away."""

PAUSE_S = 3.0
REFUSALS = (400, 403, 409)
"""Answers that the next try will get too, unless somebody does something."""


class Sweep:
    """Rounds over all kinds, until nothing with the mark is left, nothing more can be done, or the time is over."""

    def __init__(self, project: Project, run_id: str, ledger: Ledger, report: Report) -> None:
        self._project, self._run_id, self._ledger, self._report = project, run_id, ledger, report
        self._refused: dict[str, int] = {}

    def run(self) -> set[str]:
        """Deletes; ids of what is left. Raises CloudError when a kind could not be listed to the end.

        A refusal counts when the next round meets it too: what held the resource may have been on its way out.
        """
        if nothing_of(self._project, self._run_id):
            return set()
        end, before = time.monotonic() + ROUNDS_S, set[str]()
        while True:
            self._refused, trouble, left = {}, None, set[str]()
            for kind in kinds_of(self._project.connection):
                try:
                    left |= self.end_kind(kind)
                except CloudError as error:
                    trouble = error
            settled = not trouble and (not left or (left == before and left <= self._refused.keys()))
            if settled or time.monotonic() > end:
                break
            before = left
            time.sleep(PAUSE_S)
        if trouble:
            raise trouble
        return left

    def end_kind(self, kind: Kind) -> set[str]:
        """Deletes all of one kind and waits until they are gone; ids of those that are not. Raises CloudError."""
        owned, asked = self.ask_kind(kind)
        if not asked:
            return {o.id for o in owned}
        return self._await_gone(kind, asked) | {o.id for o in owned if o not in asked}

    def ask_kind(self, kind: Kind) -> tuple[list[Owned], list[Owned]]:
        """Asks for the deletion of all of one kind: what there was, and of what it was taken. Raises CloudError."""
        owned = find(self._project, kind, self._run_id)
        if kind.name == "server" and owned:
            ids = [o.id for o in owned]
            self._ledger.note(SEEN, "note", servers=ids)
            seen = {f"{self._run_id}/{server}" for server in ids}
            self._project = replace(self._project, known=self._project.known | seen)
        return owned, [o for o in owned if self._ask(kind, o)]

    def _ask(self, kind: Kind, owned: Owned) -> bool:
        """Asks for one deletion; whether the API took it. A reason is kept for each refusal."""
        self._report(ResourceChanged(owned.name, owned.kind, "deleting"))
        told = {"kind": owned.kind, "id": owned.id, "name": owned.name}
        self._ledger.note(DELETE, "intent", **told)
        try:
            kind.delete(self._project, owned)
        except RAISED as error:
            reason = self._reason(kind, owned, error)
            if status_of(error) in REFUSALS:
                self._refused[owned.id] = status_of(error)
            self._ledger.note(DELETE, "failed", **told, reason=reason)
            self._report(ResourceChanged(owned.name, owned.kind, "failed", reason))
            return False
        self._ledger.note(DELETE, "done", **told)
        return True

    def _reason(self, kind: Kind, owned: Owned, error: Exception) -> str:
        """The API's words, and by name what holds the resource, where it is not this run's."""
        try:
            holders = list(kind.holders(self._project, owned)) if status_of(error) == 409 else []
        except RAISED:
            holders = []  # the API's own words must do
        held = f"held by {', '.join(holders[:5])}, which is not this run's: " if holders else ""
        return f"{held}{reason_of(error)}"[:1000]

    def _await_gone(self, kind: Kind, asked: Iterable[Owned]) -> set[str]:
        waiting = {o.id for o in asked}
        left: set[str] = set(waiting)

        def gone() -> bool:
            left.intersection_update(o.id for o in find(self._project, kind, self._run_id))
            return not left

        wait_until(gone, GONE_S, every_s=0.5)
        for owned in asked:
            if owned.id in left:
                detail = f"still there {GONE_S:.0f} s after its deletion was taken"
                self._report(ResourceChanged(owned.name, owned.kind, "failed", detail))
            else:
                self._report(ResourceChanged(owned.name, owned.kind, "deleted"))
        return left
