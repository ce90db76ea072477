"""The engine around Pulumi: events become lines of the ledger, and a destroy that cannot succeed gives up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pulumi.automation import CommandError, OutputValue
from pulumi.automation._cmd import CommandResult
from pulumi.automation.events import (
    DiagnosticEvent,
    EngineEvent,
    OpType,
    ResOpFailedEvent,
    ResourcePreEvent,
    ResOutputsEvent,
    StepEventMetadata,
)

from dhctl.infra.engine import Engine
from dhctl.infra.errors import EngineError
from dhctl.infra.events import Event, ResourceChanged
from dhctl.infra.record import RunRecord

TELL = Callable[[EngineEvent], None]


class FakeStack:
    """Stands for Pulumi's stack: each operation tells the events of its turn, and fails where they hold an error."""

    def __init__(self, *turns: list[EngineEvent], outputs: dict[str, OutputValue] | None = None) -> None:
        self.turns, self.outputs = list(turns), outputs or {}
        self.calls: list[str] = []

    def _operate(self, call: str, on_event: TELL) -> None:
        self.calls.append(call)
        events = self.turns.pop(0)
        for event in events:
            on_event(event)
        if any(event.diagnostic_event for event in events) or not events:
            raise CommandError(CommandResult(stdout="", stderr="error: it failed", code=255))

    def up(self, *, on_event: TELL, suppress_progress: bool) -> Any:
        self._operate("up", on_event)
        return SimpleNamespace(outputs=self.outputs)

    def destroy(self, *, on_event: TELL, suppress_progress: bool, continue_on_error: bool) -> None:
        self._operate("destroy", on_event)

    def refresh(self, *, clear_pending_creates: bool, suppress_progress: bool) -> None:
        self.calls.append("refresh")


class OnStack(Engine):
    """The engine with that stack instead of a CLI."""

    def __init__(self, record: RunRecord, stack: FakeStack, told: list[Event]) -> None:
        super().__init__(record, Path("pulumi"), told.append, sys.executable)
        self.stack = stack

    def _stack(self, program: Any, *, new: bool, stoppable: bool = False, trusted: bool = False) -> Any:
        return self.stack


def metadata(op: OpType, kind: str, name: str) -> StepEventMetadata:
    urn = f"urn:pulumi:run::dhctl::{kind}::{name}"
    return StepEventMetadata(op=op, urn=urn, type=kind, provider="")


def event(**parts: Any) -> EngineEvent:
    return EngineEvent(sequence=1, timestamp=1, **parts)


def created(kind: str, name: str) -> list[EngineEvent]:
    told = metadata(OpType.CREATE, kind, name)
    return [event(resource_pre_event=ResourcePreEvent(told)), event(res_outputs_event=ResOutputsEvent(told))]


def deleted(name: str) -> EngineEvent:
    return event(
        res_outputs_event=ResOutputsEvent(metadata(OpType.DELETE, "openstack:networking/network:Network", name))
    )


def error(message: str) -> EngineEvent:
    return event(diagnostic_event=DiagnosticEvent(message=message, color="never", severity="error"))


def lines(record: RunRecord) -> list[tuple[str, str, str]]:
    return [
        (entry.phase, entry.detail["kind"], entry.detail["name"])
        for entry in record.ledger.entries()
        if entry.act == "resource.create"
    ]


def test_each_cloud_resource_is_in_the_ledger_before_and_after(record: RunRecord, told: list[Event]) -> None:
    stack = FakeStack(
        [
            *created("pulumi:pulumi:Stack", "dhctl-run"),
            *created("pulumi:providers:openstack", "openstack"),
            *created("dhctl:component:ClusterNetwork", "cluster-network"),
            *created("openstack:networking/network:Network", "network"),
        ]
    )
    OnStack(record, stack, told).up(dict)
    assert lines(record) == [("intent", "Network", "network"), ("done", "Network", "network")]
    assert told == [ResourceChanged("network", "Network", "creating"), ResourceChanged("network", "Network", "created")]


def test_resources_that_keep_the_ledger_themselves_are_not_written_twice(record: RunRecord, told: list[Event]) -> None:
    OnStack(record, FakeStack(created("pulumi-python:dynamic:Resource", "head")), told).up(dict)
    assert lines(record) == []
    assert [changed.status for changed in told if isinstance(changed, ResourceChanged)] == ["creating", "created"]


def test_a_create_that_failed_is_an_intent_without_an_end(record: RunRecord, told: list[Event]) -> None:
    kind = metadata(OpType.CREATE, "openstack:compute/instance:Instance", "head")
    failed = event(res_op_failed_event=ResOpFailedEvent(kind, status=1, steps=1))
    before = event(resource_pre_event=ResourcePreEvent(kind))
    stack = FakeStack([before, failed, error("No valid host was found")])
    with pytest.raises(EngineError, match="Pulumi failed while bringing up the stack: No valid host was found"):
        OnStack(record, stack, told).up(dict)
    assert lines(record) == [("intent", "Instance", "head")]


def test_what_is_gone_is_made_again_after_a_look_and_the_passphrase_stays(record: RunRecord, told: list[Event]) -> None:
    record.engine_dir.mkdir()
    (record.engine_dir / "passphrase").write_text("drawn at the first up")
    outputs = {"address": OutputValue("10.77.0.6", False)}
    stack = FakeStack(created("a:b:Instance", "head"), outputs=outputs)
    assert OnStack(record, stack, told).renew(dict).told == {"address": "10.77.0.6"}
    assert stack.calls == ["refresh", "up"]
    assert (record.engine_dir / "passphrase").read_text() == "drawn at the first up"
    assert lines(record) == [("intent", "Instance", "head"), ("done", "Instance", "head")]


def test_secret_outputs_are_kept_apart(record: RunRecord, told: list[Event]) -> None:
    outputs = {"address": OutputValue("10.77.0.5", False), "credential_secret": OutputValue("narrow", True)}
    found = OnStack(record, FakeStack(created("a:b:C", "c"), outputs=outputs), told).up(dict)
    assert (found.told, found.secret) == ({"address": "10.77.0.5"}, {"credential_secret": "narrow"})
    assert "narrow" not in repr(found)


def test_a_destroy_that_works_is_tried_once(record: RunRecord, told: list[Event]) -> None:
    stack = FakeStack([deleted("network")])
    OnStack(record, stack, told).destroy()
    assert stack.calls == ["destroy"]


def test_a_destroy_that_fails_is_tried_again_after_a_refresh(record: RunRecord, told: list[Event]) -> None:
    stack = FakeStack([error("timeout")], [deleted("network")])
    OnStack(record, stack, told).destroy()
    assert stack.calls == ["destroy", "refresh", "destroy"]


def test_a_destroy_gives_up_when_an_error_repeats(record: RunRecord, told: list[Event]) -> None:
    stack = FakeStack([error("Network in use")], [error("Network in use")], [deleted("network")])
    with pytest.raises(EngineError, match="Pulumi failed while destroying the stack: Network in use"):
        OnStack(record, stack, told).destroy()
    assert stack.calls == ["destroy", "refresh", "destroy"]


def test_a_destroy_gives_up_after_the_third_try(record: RunRecord, told: list[Event]) -> None:
    stack = FakeStack([error("one")], [error("two")], [error("three")], [deleted("network")])
    with pytest.raises(EngineError, match="three"):
        OnStack(record, stack, told).destroy()
    assert stack.calls == ["destroy", "refresh", "destroy", "refresh", "destroy"]


def test_a_failure_without_words_is_tried_again_too(record: RunRecord, told: list[Event]) -> None:
    stack = FakeStack([], [deleted("network")])
    OnStack(record, stack, told).destroy()
    assert stack.calls == ["destroy", "refresh", "destroy"]
