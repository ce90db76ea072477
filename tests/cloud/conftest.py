"""What runs against the real OpenStack of the testbed, which is started once for all of it: minutes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openstack.connection import Connection

from cloud.runs import CloudRuns, assert_nothing_marked
from cloud.things import Foreign, MarkedThings
from dhctl.infra.engine_install import ensure_engine
from dhctl.infra.events import ignore
from dhctl.infra.home import default_root
from e2e.driver import clean_environment, end_started
from testbeds.object_store import ObjectStore
from testbeds.openstack.fixtures import OpenStackCloud, fault_proxy, openstack_cloud, s3_server
from testbeds.openstack.plugin.install import install

__all__ = ["fault_proxy", "openstack_cloud", "s3_server"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
def cloud(openstack_cloud: OpenStackCloud, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """A connection as a plain member of the project, whose credentials are in the environment too."""
    for name, value in openstack_cloud.env.items():
        monkeypatch.setenv(name, value)
    return openstack_cloud.user()


@pytest.fixture
def foreign(openstack_cloud: OpenStackCloud) -> Iterator[Foreign]:
    """Somebody else's server, port, floating IP and security group in the project; they must outlive every test."""
    things = Foreign(openstack_cloud.user())
    try:
        yield things
        things.assert_untouched()
    finally:
        things.remove()


@pytest.fixture
def marked(openstack_cloud: OpenStackCloud) -> Iterator[MarkedThings]:
    """Makes things with a run's mark through the raw API; what a test leaves of them is removed."""
    things = MarkedThings(openstack_cloud.user())
    try:
        yield things
    finally:
        things.remove()


@pytest.fixture(scope="session")
def engine_path() -> Path:
    """The folder of the Pulumi CLI that the user of this machine has, installed first if need be."""
    return ensure_engine(default_root(), ignore).parent


@pytest.fixture(scope="session")
def bucket(s3_server: ObjectStore) -> str:
    """s3:// URL of a bucket that is there."""
    return s3_server.make_bucket("runs")


@pytest.fixture
def dhctl(
    tmp_path: Path, engine_path: Path, openstack_cloud: OpenStackCloud, s3_server: ObjectStore, bucket: str
) -> Iterator[CloudRuns]:
    """The command in a home of its own, logged in. A run that is not gone afterwards is taken down: the test fails."""
    env = {**clean_environment(engine_path, tmp_path / "home"), **openstack_cloud.env, **s3_server.env}
    install(tmp_path / "home" / "plugins", sys.executable)
    command = CloudRuns(tmp_path / "home", tmp_path, env, bucket=bucket)
    yield command
    left = end_started(command)
    assert [record.run_id for record in left] == [], "the test left runs that were not taken down"
    assert_nothing_marked(openstack_cloud.user(), [record.run_id for record in command.records()])
