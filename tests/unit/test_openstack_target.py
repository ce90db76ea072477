"""The OpenStack target behind the seam: what the other modules do, asked in the right order with the right things."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.errors import ClusterError, NotUpError
from dhctl.infra.events import Event
from dhctl.infra.home import Home
from dhctl.infra.ledger import last
from dhctl.infra.openstack import bring_up, sweep
from dhctl.infra.openstack.cloud import CloudError
from dhctl.infra.openstack.mark import HEAD, WORKER
from dhctl.infra.openstack.secrets import HeadSecrets
from dhctl.infra.record import RunRecord
from dhctl.infra.spec import TargetName
from dhctl.infra.target import Target
from dhctl.stacks.openstack import target as module
from dhctl.stacks.openstack.target import OpenStackTarget
from dhctl.stacks.targets import target_for
from unit.fake_openstack import cloud_record, cloud_spec
from unit.http_cloud import HttpCloud
from unit.noting_engine import noted
from unit.own_sshd import free_port

OUTPUTS = {"address": "10.77.0.5", "floating_ip": "198.51.100.9", "head_server": "s1", "credential_id": "c1"}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A login is kept for a whole verb: each test has its own. No wait is longer than a test."""
    monkeypatch.setattr(sweep, "PAUSE_S", 0.0)
    monkeypatch.setattr(sweep, "GONE_S", 0.05)
    monkeypatch.setattr(sweep, "ROUNDS_S", 0.1)
    module.cloud_of.cache_clear()
    yield
    module.cloud_of.cache_clear()


@pytest.fixture
def target() -> Target:
    return target_for(TargetName.OPENSTACK)


@pytest.fixture
def run(home: Home) -> RunRecord:
    return cloud_record(home)


def bring(record: RunRecord, **outputs: Any) -> None:
    """What `up` leaves in the record."""
    HeadSecrets.of(record).make_key()
    record.ledger.done("stack.up", outputs={**OUTPUTS, **outputs})


def test_the_factory_knows_it(target: Target) -> None:
    assert isinstance(target, OpenStackTarget)
    assert target.name is TargetName.OPENSTACK


def test_a_login_that_fails_is_one_problem(http_cloud: HttpCloud, target: Target, tmp_path: Path) -> None:
    http_cloud.write_config(tmp_path, password="wrong")
    (found,) = target.admit(cloud_spec())
    assert found.what == "credentials"
    assert "check user, password and project" in found.problem


def test_a_plan_calls_nobody(target: Target) -> None:
    assert {planned.name for planned in target.plan(cloud_spec())} >= {"network", "head", "autoscaler"}


def test_a_verb_logs_in_once(http_cloud: HttpCloud, target: Target, run: RunRecord) -> None:
    target.inventory(run)
    target.inventory(run)
    assert http_cloud.asked.count("POST /identity/v3/auth/tokens") == 1


def fill_site(there: HttpCloud) -> None:
    small = {"id": "f1", "name": "small", "vcpus": 2, "ram": 4096, "disk": 20}
    there.answers |= {
        "GET /image/v2/images": {"images": [{"id": "i1", "name": "debian", "status": "active"}]},
        "GET /compute/v2.1/flavors/detail": {"flavors": [small]},
    }
    there.add("networks", "out-1", name="public")


def test_the_program_declares_the_spec_at_this_site_without_a_secret(
    http_cloud: HttpCloud, target: Target, run: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key-of-the-store")
    fill_site(http_cloud)
    program = target.program(run)
    assert http_cloud.asked == [], "the site is asked when the program runs"
    stack = noted(program)
    assert stack.noted.inputs("head")["flavorId"] == "f1"
    assert stack.noted.inputs("router")["externalNetworkId"] == "out-1"
    assert stack.outputs["address"] == "10.77.0.5"
    secrets = HeadSecrets.of(run)
    assert secrets.make_key() == stack.noted.inputs("keypair")["publicKey"]
    told = json.dumps({name: stack.noted.inputs(name) for name in stack.noted.made}, default=str)
    told += run.ledger.path.read_text()
    for secret in (secrets.token_file.read_text(), "PRIVATE KEY", "key-of-the-store", "right"):
        assert secret not in told
    assert last(run.ledger.entries(), "secrets.create", "done") is not None
    rules = stack.noted.inputs("credential")["accessRules"]
    assert {rule["service"] for rule in rules} == {"compute"}
    assert {rule["method"] for rule in rules} == {"GET", "POST", "DELETE"}


def test_the_head_is_reached_at_its_floating_ip(target: Target, run: RunRecord) -> None:
    bring(run)
    found = target.endpoint(run)
    assert (found.host, found.user, found.alias, found.bastion) == ("198.51.100.9", "debian", run.run_id, None)
    assert found.key_file == HeadSecrets.of(run).key_file


def test_without_a_floating_ip_its_own_address_counts(target: Target, home: Home) -> None:
    record = cloud_record(home, bastion="anna@jump", network="lab", floating_ip=False, user="ubuntu")
    bring(record, floating_ip="")
    found = target.endpoint(record)
    assert (found.host, found.user, found.bastion) == ("10.77.0.5", "ubuntu", "anna@jump")


def test_jobs_find_the_gcs_at_the_heads_own_address(target: Target, run: RunRecord) -> None:
    bring(run)
    assert target.job_environment(run) == {"RAY_ADDRESS": "10.77.0.5:6379"}


def test_before_the_stack_is_up_there_is_no_head(target: Target, run: RunRecord) -> None:
    with pytest.raises(NotUpError, match=f"{run.run_id} is not up; `dhctl status {run.run_id}`"):
        target.endpoint(run)
    with pytest.raises(NotUpError), target.connect(run):
        pytest.fail("there is nothing to connect to")


def test_after_the_end_nobody_connects(target: Target, run: RunRecord) -> None:
    bring(run)
    HeadSecrets.of(run).remove()
    with pytest.raises(NotUpError, match="is not up"), target.connect(run):
        pytest.fail("there is nothing to connect to")


def test_closed_doors_are_told(target: Target, run: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(bring_up, "CLOSED_PORTS", (port,))
    bring(run, floating_ip="127.0.0.1")
    assert target.probe_outside(run) == f"closed to the outside: {port} (refused)"


def test_an_open_door_is_an_error(
    http_cloud: HttpCloud, target: Target, run: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bring_up, "CLOSED_PORTS", (int(http_cloud.url.rpartition(":")[2]),))
    bring(run, floating_ip="127.0.0.1")
    with pytest.raises(ClusterError, match="can be entered from outside"):
        target.probe_outside(run)


def fill_run(there: HttpCloud, record: RunRecord) -> None:
    mark = bring_up.mark_of(record)
    there.add("servers", "s1", name=mark.name("head"), metadata=mark.metadata(HEAD))
    there.add("servers", "w1", name=mark.name("w-1"), metadata=mark.metadata(WORKER))
    there.add("networks", "n1", name=mark.name("net"), tags=mark.tags)
    there.add("application_credentials", "c1", name=mark.name("credential"))


def test_a_run_is_taken_down_step_by_step(
    http_cloud: HttpCloud, target: Target, run: RunRecord, told: list[Event]
) -> None:
    bring(run)
    fill_run(http_cloud, run)
    target.collect(run)
    target.release_nodes(run, told.append)
    assert http_cloud.deleted == ["c1", "s1", "w1"]
    left = {check.place for check in target.inventory(run) if check.state == "left"}
    assert left == {"networks", "secrets of the run"}
    target.sweep(run, told.append)
    assert {check.state for check in target.inventory(run)} == {"none"}
    assert not HeadSecrets.of(run).folder.exists()


def test_all_of_it_can_be_repeated_on_a_run_that_is_gone(
    http_cloud: HttpCloud, target: Target, run: RunRecord, told: list[Event]
) -> None:
    for _ in range(2):
        target.collect(run)
        target.release_nodes(run, told.append)
        target.sweep(run, told.append)
        assert {check.state for check in target.inventory(run)} == {"none"}


def test_secrets_stay_while_nobody_knows_whether_the_head_is_gone(
    http_cloud: HttpCloud, target: Target, run: RunRecord, told: list[Event]
) -> None:
    bring(run)
    http_cloud.broken["/compute/v2.1/servers"] = [500]
    with pytest.raises(CloudError):
        target.sweep(run, told.append)
    assert HeadSecrets.of(run).key_file.exists()


def test_the_receipt_tells_why_a_thing_stayed(
    http_cloud: HttpCloud, target: Target, run: RunRecord, told: list[Event]
) -> None:
    fill_run(http_cloud, run)
    http_cloud.refuses["n1"] = (409, "Network in use.")
    target.sweep(run, told.append)
    (left,) = [found for check in target.inventory(run) for found in check.found]
    assert (left.kind, left.reason) == ("network", "Network in use. (HTTP 409)")


def test_ports_of_servers_that_the_ledger_saw_are_looked_for(
    http_cloud: HttpCloud, target: Target, run: RunRecord
) -> None:
    run.ledger.note("servers.seen", "note", servers=["w-gone"])
    http_cloud.add("ports", "p1", tags=[], device_id="w-gone", device_owner="compute:nova")
    (left,) = [found for check in target.inventory(run) for found in check.found]
    assert left.kind == "port"
