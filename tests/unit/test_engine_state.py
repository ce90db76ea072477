"""Reading the engine's state where it lies: resources, creates that never ended, locks and who holds them."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from dhctl.infra.engine_state import TORN_S, StackLock, StackState, read_stack
from unit.conftest import Start
from unit.fakes import resource, write_checkpoint, write_lock

STACK = "dh-aaaabbbbcc"
HERE = socket.gethostname()


def test_a_backend_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_stack(tmp_path / "state") == StackState()
    assert read_stack(tmp_path / "state").empty


def test_resources_are_named_and_the_engines_own_are_left_out(tmp_path: Path) -> None:
    kinds = [
        ("pulumi:pulumi:Stack", "dhctl-x"),
        ("pulumi:providers:openstack", "default"),
        ("openstack:networking/network:Network", "n"),
        ("pulumi-python:dynamic/dhctl:Head", "head"),
    ]
    write_checkpoint(tmp_path, STACK, [resource(STACK, *k) for k in kinds])
    state = read_stack(tmp_path)
    assert state.resources == ("n (Network)", "head (Head)")
    assert not state.empty


def test_a_create_that_never_ended_is_pending(tmp_path: Path) -> None:
    creating = {"resource": resource(STACK, "dhctl:index:Head", "head"), "type": "creating"}
    write_checkpoint(tmp_path, STACK, [resource(STACK, "pulumi:pulumi:Stack", "x")], [creating])
    state = read_stack(tmp_path)
    assert (state.resources, state.pending) == ((), ("creating head (Head)",))
    assert not state.empty


def test_a_child_of_a_component_is_named_by_its_own_type(tmp_path: Path) -> None:
    child = {**resource(STACK, "dhctl:index:Net$openstack:networking/subnet:Subnet", "s"), "type": "openstack:x:Subnet"}
    write_checkpoint(tmp_path, STACK, [child])
    assert read_stack(tmp_path).resources == ("s (Subnet)",)


def test_a_stack_without_a_first_update_is_empty(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, STACK, []).write_text('{"version":3,"checkpoint":{"stack":"x","latest":null}}')
    assert read_stack(tmp_path).empty


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "{",
        "[]",
        '{"version":3}',
        '{"version":3,"checkpoint":null}',
        '{"version":3,"checkpoint":{"latest":{"resources":[{}]}}}',
        '{"version":3,"checkpoint":{"latest":{"resources":5}}}',
        pytest.param('{"version":3,"checkpoint":{"latest":{"resources":[{"urn":"head","type":"x:y:Head"}]}}}'),
    ],
)
def test_a_state_that_cannot_be_read_says_so_and_is_not_empty(tmp_path: Path, broken: str) -> None:
    write_checkpoint(tmp_path, STACK, []).write_text(broken)
    state = read_stack(tmp_path)
    assert state.unreadable.startswith(f"{STACK}.json: ")
    assert not state.empty


def test_a_backup_beside_the_state_is_passed_over(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, STACK, [])
    path.with_name(path.name + ".bak").write_text("{")
    assert read_stack(tmp_path).empty


def test_a_lock_names_who_took_it(tmp_path: Path) -> None:
    path = write_lock(tmp_path, STACK, 4711, "elsewhere")
    state = read_stack(tmp_path)
    assert state.locks == (StackLock(path, 4711, "elsewhere"),)
    assert not state.empty


@pytest.mark.parametrize("suffix", ["", ".188e1a5f7f3b2c1d.tmp"])  # the second one: before the CLI gave it its name
@pytest.mark.parametrize("broken", ["", "{}", "[]", '{"pid":"x","hostname":"h"}'])
def test_a_lock_that_nobody_can_read_is_stale_when_it_is_old(tmp_path: Path, broken: str, suffix: str) -> None:
    path = write_lock(tmp_path, STACK, 1, "x")
    path.unlink()
    path = path.with_name(path.name + suffix)
    path.write_text(broken)
    path.with_name(path.name + ".attrs").write_text("{}")
    (lock,) = read_stack(tmp_path).locks
    assert lock == StackLock(path)
    assert not read_stack(tmp_path).empty
    assert not lock.stale, "it may be half written"
    os.utime(path, (0, time.time() - TORN_S - 1))
    assert lock.stale


def test_a_lock_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    path = write_lock(tmp_path, STACK, 1, "x")
    path.unlink()
    path.symlink_to("/proc/self/mem")
    assert "lock 0b1f6e8c" in read_stack(tmp_path).unreadable


def lock_of(pid: int, host: str = HERE) -> StackLock:
    return StackLock(Path("lock.json"), pid, host)


def test_a_lock_of_a_dead_process_here_is_stale(start: Start) -> None:
    ended = start("true")
    ended.wait()
    assert lock_of(ended.pid).stale


def test_a_lock_of_another_host_is_never_stale(start: Start) -> None:
    ended = start("true")
    ended.wait()
    assert not lock_of(ended.pid, "elsewhere").stale


def test_a_lock_whose_pid_is_now_another_program_is_stale(start: Start) -> None:
    assert lock_of(start("sleep", "60").pid).stale


def test_a_lock_of_a_living_engine_is_held(start: Start, tmp_path: Path) -> None:
    (tmp_path / "pulumi").symlink_to(Path(sys.executable).resolve())  # comm is the name it was started by
    engine = start(str(tmp_path / "pulumi"), "-IS", "-c", "print('up', flush=True); input()", stdin=-1, stdout=-1)
    assert engine.stdout
    assert engine.stdin
    engine.stdout.readline()
    assert not lock_of(engine.pid).stale
    engine.stdin.close()
    engine.wait()
    assert lock_of(engine.pid).stale


def test_components_are_no_resources(tmp_path: Path) -> None:
    urn = "urn:pulumi:dh-x::dhctl::dhctl:component:ClusterNetwork::cluster-network"
    write_checkpoint(tmp_path, "dh-x", [{"urn": urn, "type": "dhctl:component:ClusterNetwork", "custom": False}])
    assert read_stack(tmp_path).empty
