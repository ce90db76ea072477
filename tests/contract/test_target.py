"""One suite over every target: what the life of a run relies on, wherever it lives."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, assert_never

import pytest
from pods.runs import section as pods_section

from cloud.runs import SECTION
from dhctl.infra.errors import NotUpError, RefusedError
from dhctl.infra.events import Event
from dhctl.infra.home import Home
from dhctl.infra.receipt import Check
from dhctl.infra.record import RunRecord, open_record
from dhctl.infra.spec import RunSpec, TargetName
from dhctl.infra.target import PlannedResource, Requirement, Target
from dhctl.stacks.targets import target_for
from testbeds.kubernetes.fixtures import KubernetesCluster
from testbeds.object_store import ObjectStore
from testbeds.openstack.fixtures import OpenStackCloud

CLOUDS = {TargetName.OPENSTACK, TargetName.KUBERNETES}
"""Targets that need a testbed."""

pytestmark = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.e2e if name in CLOUDS else ()) for name in TargetName]
)

Keys = dict[str, Any]
PROMISED = {n: m for n, m in vars(Target).items() if inspect.isfunction(m) and not n.startswith("_")}


@pytest.fixture
def target(name: TargetName) -> Target:
    return target_for(name)


@pytest.fixture
def section(name: TargetName, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """What the target's own keys must say at least, with its testbed running and logged in."""
    match name:
        case TargetName.LOCAL:
            return {"local": {"scratch": str(tmp_path / "scratch")}}
        case TargetName.OPENSTACK:
            cloud: OpenStackCloud = request.getfixturevalue("openstack_cloud")
            store: ObjectStore = request.getfixturevalue("s3_server")
            for variable, value in {**cloud.env, **store.env}.items():
                monkeypatch.setenv(variable, value)
            return {"openstack": SECTION, "output": "s3://contract/out"}
        case TargetName.KUBERNETES:
            cluster: KubernetesCluster = request.getfixturevalue("kubernetes_cluster")
            pods_store: ObjectStore = request.getfixturevalue("kubernetes_s3")
            namespace: str = request.getfixturevalue("namespace")
            for variable, value in {**cluster.env, **pods_store.env}.items():
                monkeypatch.setenv(variable, value)
            return {"kubernetes": pods_section(namespace), "output": "s3://contract/out"}
        case _:
            assert_never(name)


@pytest.fixture
def spec(target: Target, name: TargetName, section: Keys, tmp_path: Path) -> RunSpec:
    """The smallest run there is, with what it leaves to the place decided, as admission does."""
    job = {"folder": str(tmp_path), "entrypoint": "python main.py"}
    return target.settle(RunSpec.model_validate({"name": "trial", "target": name, "job": job, **section}))


@pytest.fixture
def never(spec: RunSpec, tmp_path: Path) -> RunRecord:
    """A run whose client died before it made anything."""
    return open_record(Home(tmp_path / "home"), spec, "0.0", {})


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in sorted(folder.rglob("*"))}


def test_it_offers_all_that_a_run_needs(target: Target, name: TargetName) -> None:
    assert target.name is name
    for promised, method in PROMISED.items():
        offered = getattr(type(target), promised)
        wanted = list(inspect.signature(method).parameters)
        assert list(inspect.signature(offered).parameters) == wanted, promised


def test_admission_looks_and_does_not_write(target: Target, spec: RunSpec, tmp_path: Path) -> None:
    before = everything(tmp_path)
    found = target.admit(spec)
    assert found
    assert all(isinstance(r, Requirement) and r.what and r.need and r.have for r in found)
    assert everything(tmp_path) == before


def test_what_is_decided_stays(target: Target, spec: RunSpec, tmp_path: Path) -> None:
    before = everything(tmp_path)
    assert target.settle(spec) == spec
    assert everything(tmp_path) == before


def test_a_plan_names_everything_and_does_not_write(target: Target, spec: RunSpec, tmp_path: Path) -> None:
    before = everything(tmp_path)
    planned = target.plan(spec)
    assert planned
    assert all(isinstance(r, PlannedResource) and r.name and r.kind and r.made_by for r in planned)
    assert len({r.name for r in planned}) == len(planned)
    assert everything(tmp_path) == before


def test_impossible_wishes_are_problems_not_exceptions(target: Target, spec: RunSpec) -> None:
    greedy = spec.model_copy(update={"workers": spec.workers.model_copy(update={"max": 1000, "cpus": 1024})})
    problems = [r.problem for r in target.admit(greedy) if r.problem]
    assert problems
    assert all("; " in p for p in problems), "each problem ends in a next step"


def test_nothing_of_a_run_that_never_was_is_found(target: Target, never: RunRecord) -> None:
    checks = target.inventory(never)
    assert checks
    assert all(isinstance(c, Check) and c.place and c.looked_for for c in checks)
    assert {c.state for c in checks} == {"none"}


def test_ending_a_run_that_never_was_is_silent(target: Target, never: RunRecord) -> None:
    told: list[Event] = []
    before = never.ledger.entries()
    for _ in range(2):
        target.release_nodes(never, told.append)
        target.collect(never)
        target.sweep(never, told.append)
    assert told == []
    assert never.ledger.entries() == before
    assert {c.state for c in target.inventory(never)} == {"none"}


def test_looking_changes_nothing(target: Target, never: RunRecord, tmp_path: Path) -> None:
    before = everything(tmp_path)
    target.inventory(never)
    assert everything(tmp_path) == before


def test_a_run_that_is_not_up_cannot_be_reached(target: Target, never: RunRecord) -> None:
    with pytest.raises(NotUpError, match=never.run_id), target.connect(never):
        pytest.fail("connected")
    with pytest.raises(NotUpError):
        target.job_environment(never)


def test_a_run_that_is_not_up_has_no_head_to_enter(target: Target, never: RunRecord) -> None:
    with pytest.raises(RefusedError, match=never.run_id):
        target.endpoint(never)


def test_what_fits_is_not_shrunk(target: Target, spec: RunSpec) -> None:
    assert target.shrink(spec) == (spec, "")


def test_a_head_that_never_was_is_cleared_in_silence_and_never_found(target: Target, never: RunRecord) -> None:
    told: list[Event] = []
    before = never.ledger.entries()
    for _ in range(2):
        target.clear_head(never, told.append)
    assert told == []
    assert never.ledger.entries() == before
    try:
        assert target.lost_head(never)
    except NotUpError as error:
        assert never.run_id in str(error)  # noqa: PT017 - either is right


def test_nothing_troubles_a_run_that_never_was(target: Target, never: RunRecord) -> None:
    assert target.troubles(never) == []


def test_its_program_is_made_without_the_engine(target: Target, never: RunRecord, tmp_path: Path) -> None:
    before = everything(tmp_path)
    assert callable(target.program(never))
    assert everything(tmp_path) == before
