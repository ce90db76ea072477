"""Nodes as the ledger tells them: what the report and the crate both read."""

from __future__ import annotations

from datetime import UTC, datetime

from dhctl.infra.crate.resources import node_uses
from dhctl.infra.node_lives import NodeLife, node_lives
from unit.fakes import entry_at

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def times(node: NodeLife) -> list[float | None]:
    """Asked, made, joined, end: seconds after the begin."""
    moments = (node.asked, node.made, node.joined, node.end)
    return [(moment - BEGIN).total_seconds() if moment else None for moment in moments]


def test_a_worker_has_four_moments() -> None:
    (node,) = node_lives(
        [
            entry_at(1, "node.start", "intent", node="w", address="127.0.0.2"),
            entry_at(2, "node.start", "done", node="w"),
            entry_at(5, "node.seen", node="127.0.0.2", status="joined"),
            entry_at(6, "node.seen", node="127.0.0.2", status="joined"),  # another watch begins
            entry_at(9, "node.leave", node="w", why="died"),
        ]
    )
    assert (node.name, times(node), node.why, node.lost) == ("w", [1, 2, 5, 9], "died", True)


def test_what_did_not_start_was_asked_for_and_never_there() -> None:
    told = [entry_at(1, "node.start", "intent", node="w"), entry_at(4, "node.start", "failed", node="w")]
    (node,) = node_lives(told)
    assert (times(node), node.why, node.lost) == ([1, None, None, 4], "did not start", True)
    assert node_uses(told) == []


def test_a_heads_server_is_asked_for_before_it_boots() -> None:
    told = [
        entry_at(1, "resource.create", "intent", kind="Instance", name="dh-x-head"),
        entry_at(8, "head.boot", "intent"),
        entry_at(20, "head.ray", "intent"),
        entry_at(50, "resource.delete", "done", kind="server", name="dh-x-head"),
    ]
    (node,) = node_lives(told)
    assert (node.name, times(node)) == ("head", [1, 8, None, 50])
    assert [(use.node, (use.start - BEGIN).seconds) for use in node_uses(told)] == [("head-1", 8)]


def test_a_head_that_was_out_of_reach_is_one_node() -> None:
    told = [
        entry_at(1, "head.boot", "intent"),
        entry_at(9, "head.recover", "intent"),
        entry_at(30, "head.recover", "done", how="back"),
    ]
    (node,) = node_lives(told)
    assert (times(node), node.why, node.lost) == ([1, 1, None, None], "", False)


def test_a_head_that_was_replaced_is_two() -> None:
    told = [
        entry_at(1, "head.boot", "intent"),
        entry_at(9, "head.recover", "intent"),
        entry_at(12, "head.boot", "intent"),
    ]
    told.append(entry_at(30, "head.recover", "done", how="replaced"))
    before, after = node_lives(told)
    assert (times(before), before.lost) == ([1, 1, None, 9], True)
    assert (times(after), after.lost) == ([12, 12, None, None], False)
    assert [use.node for use in node_uses(told)] == ["head-1", "head-2"]


def test_looks_at_a_run_that_is_gone_count_nothing() -> None:
    told = [
        entry_at(1, "node.start", "done", node="w"),
        entry_at(5, "nodes.stop", "done", nodes=["w"]),
        entry_at(9, "down", "done", clean=True),
        entry_at(99, "node.start", "done", node="late"),
    ]
    assert [times(node) for node in node_lives(told)] == [[1, 1, None, 5]]


def test_what_ray_alone_tells_is_left_out_of_a_crate_with_named_workers() -> None:
    told = [
        entry_at(1, "node.start", "done", node="w"),
        entry_at(5, "node.seen", node="10.0.0.9", name="", status="joined"),
    ]
    assert [node.only_ray_tells for node in node_lives(told)] == [False, True]
    assert [use.node for use in node_uses(told)] == ["w"]
