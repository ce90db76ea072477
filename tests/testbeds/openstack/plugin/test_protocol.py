"""The stand-in as a process that the engine talks to. No cloud."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from dhctl.infra.processes import start_ticks
from testbeds.openstack.plugin.cloud import ApiError, Deadline, wait
from testbeds.openstack.plugin.faults import FAULTS_ENV, Faults
from testbeds.openstack.plugin.install import OFFICIAL_ENV, install
from testbeds.openstack.plugin.wire import UNKNOWN, to_python, to_struct

URN = "urn:pulumi:stack::project::dhctl:Head$openstack:networking/network:Network::n"
KIND = "openstack:networking/network:Network"
SECONDS = 20.0


@pytest.fixture
def binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(OFFICIAL_ENV, raising=False)
    return install(tmp_path, sys.executable)


@contextmanager
def serving(binary: Path, env: dict[str, str]) -> Iterator[Any]:
    with subprocess.Popen([binary, "127.0.0.1:1"], stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            assert process.stdout
            port = int(process.stdout.readline())
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield provider_pb2_grpc.ResourceProviderStub(channel)
        finally:
            process.terminate()
            assert process.wait(SECONDS) == 0


@pytest.fixture
def stub(binary: Path) -> Iterator[Any]:
    with serving(binary, dict(os.environ)) as stub:
        yield stub


def test_it_answers_as_the_version_whose_place_it_takes(stub: Any) -> None:
    assert stub.GetPluginInfo(Empty(), timeout=SECONDS).version == "5.5.1"
    told = json.loads(stub.GetSchema(provider_pb2.GetSchemaRequest(), timeout=SECONDS).schema)
    assert "stand-in" in told["description"]


def test_check_diff_and_a_preview_need_no_cloud(stub: Any) -> None:
    checked = stub.Check(
        provider_pb2.CheckRequest(urn=URN, news=to_struct({"tags": [UNKNOWN], "mtu": 1400}), randomSeed=b"s"),
        timeout=SECONDS,
    )
    inputs = to_python(checked.inputs)
    assert (list(checked.failures), inputs["mtu"], inputs["__defaults"]) == ([], 1400, ["name"])
    diff = stub.Diff(
        provider_pb2.DiffRequest(
            urn=URN, old_inputs=checked.inputs, news=to_struct(inputs | {"mtu": 1500, "tenantId": "t"})
        ),
        timeout=SECONDS,
    )
    assert (sorted(diff.diffs), list(diff.replaces)) == (["mtu", "tenantId"], ["tenantId"])
    assert diff.changes == provider_pb2.DiffResponse.DIFF_SOME
    assert diff.deleteBeforeReplace is False, "an autonamed resource is replaced before its old one goes"
    made = stub.Create(provider_pb2.CreateRequest(urn=URN, properties=checked.inputs, preview=True), timeout=SECONDS)
    outputs = to_python(made.properties)
    assert (made.id, outputs["name"], outputs["allTags"]) == ("", inputs["name"], UNKNOWN)


def test_a_type_that_it_does_not_know_is_an_error(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        stub.Check(provider_pb2.CheckRequest(urn=URN.replace(KIND, "openstack:dns/zone:Zone")), timeout=SECONDS)
    assert "does not know the type openstack:dns/zone:Zone" in str(raised.value.details())


def test_without_any_login_it_does_not_begin(binary: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    with serving(binary, env) as stub, pytest.raises(grpc.RpcError) as raised:
        stub.Configure(provider_pb2.ConfigureRequest(), timeout=SECONDS)
    assert raised.value.details() == "One of 'auth_url' or 'cloud' must be specified"


def test_it_ends_with_the_process_that_started_it(binary: Path, tmp_path: Path) -> None:
    """As the CLI starts it: a child, whose parent is then killed."""
    parent = f"import subprocess, sys; p = subprocess.Popen([{str(binary)!r}]); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        plugin = int(process.stdout.readline())
        assert int(process.stdout.readline()) > 0
        process.kill()
    end = time.monotonic() + SECONDS
    while start_ticks(plugin) is not None and time.monotonic() < end:  # nobody may be there to bury it
        time.sleep(0.1)
    assert start_ticks(plugin) is None


def test_the_official_plugin_is_used_when_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official = tmp_path / "official"
    official.touch(mode=0o755)
    install(tmp_path, sys.executable)
    monkeypatch.setenv(OFFICIAL_ENV, str(official))
    binary = install(tmp_path, sys.executable)
    assert binary == tmp_path / "resource-openstack-v5.5.1" / "pulumi-resource-openstack"
    assert binary.resolve() == official


def test_a_fault_strikes_once_where_it_is_ordered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = tmp_path / "faults.json"
    faults = Faults()
    faults.strike(KIND, "create", "before", "n")
    monkeypatch.setenv(FAULTS_ENV, str(orders))
    faults.strike(KIND, "create", "before", "n")
    fault = {"type": KIND, "op": "create", "when": "after", "do": "error", "text": "no route"}
    orders.write_text(json.dumps([fault | {"name": "other"}, fault]))
    faults.strike(KIND, "create", "before", "n")
    faults.strike(KIND, "delete", "after", "n")
    with pytest.raises(ApiError, match="no route"):
        faults.strike(KIND, "create", "after", "n")
    faults.strike(KIND, "create", "after", "n")
    assert [left["name"] for left in json.loads(orders.read_text())] == ["other"]


def test_an_ordered_hang_ends_when_the_engine_cancels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = tmp_path / "faults.json"
    orders.write_text(json.dumps([{"type": KIND, "op": "delete", "when": "before", "do": "hang"}]))
    monkeypatch.setenv(FAULTS_ENV, str(orders))
    faults = Faults()
    faults.cancelled.set()
    with pytest.raises(ApiError, match="hang of delete n ended"):
        faults.strike(KIND, "delete", "before", "n")


def test_an_ordered_death_takes_the_parent_too(tmp_path: Path) -> None:
    orders = tmp_path / "faults.json"
    orders.write_text(json.dumps([{"type": KIND, "op": "create", "when": "after", "do": "die"}]))
    strike = f"from testbeds.openstack.plugin.faults import Faults; Faults().strike({KIND!r}, 'create', 'after', 'n')"
    parent = f"import subprocess, sys; print(subprocess.run([sys.executable, '-c', {strike!r}]).returncode)"
    env = {**os.environ, FAULTS_ENV: str(orders), "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", parent], env=env, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


def test_waiting_speaks_the_words_of_the_official_plugin() -> None:
    with pytest.raises(ApiError) as raised:
        wait(lambda: "ERROR", target=("ACTIVE",), pending=("BUILD",), deadline=Deadline(5))
    assert str(raised.value) == "unexpected state 'ERROR', wanted target 'ACTIVE'. last error: %!s(<nil>)"
    with pytest.raises(ApiError, match=r"^context deadline exceeded$"):
        wait(lambda: "BUILD", target=("ACTIVE",), pending=("BUILD",), deadline=Deadline(0.3))
    states = iter(["BUILD", "ACTIVE"])
    wait(lambda: next(states), target=("ACTIVE",), pending=("BUILD",), deadline=Deadline(5))
