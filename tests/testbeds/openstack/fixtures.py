"""Pytest fixtures of the testbed; a conftest imports those that its tests need.

`openstack_cloud` and `s3_server` last a session. Where they cannot run, tests are skipped with a sentence; in CI they
(CI=true) fail instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from openstack.connection import Connection

from testbeds.object_store import ObjectStore, object_store
from testbeds.openstack.cloud_setup import connect
from testbeds.openstack.fault_proxy import FaultProxy
from testbeds.openstack.layout import ADMIN_CLOUD, CLOUD, EXTERNAL_ADDRESS, STATE_ENV, Layout
from testbeds.openstack.leftovers import leftovers
from testbeds.openstack.testbed import Testbed
from testbeds.sharing import KEEP_ENV, run_verb, shared, skip


@dataclass(frozen=True)
class OpenStackCloud:
    """A running testbed. `env` is what a user of it has in the environment."""

    layout: Layout

    @property
    def env(self) -> dict[str, str]:
        """The user demo, who is a plain member of the project demo."""
        return {"OS_CLIENT_CONFIG_FILE": str(self.layout.clouds_yaml), "OS_CLOUD": CLOUD}

    def user(self) -> Connection:
        """A connection as demo."""
        return connect(self.layout, CLOUD)

    def admin(self) -> Connection:
        """A connection as the cloud's administrator."""
        return connect(self.layout, ADMIN_CLOUD)


@pytest.fixture(scope="session")
def openstack_cloud() -> Iterator[OpenStackCloud]:
    """The testbed: started unless it runs, stopped at the end if tests started it (DHCTL_TESTBED_KEEP=1 keeps it).

    When the session ends, whatever is left in the project demo that was not there before is an error.
    """
    layout = Layout.of_environment()
    testbed = Testbed(layout, lambda _: None)
    ours = layout.state / "started-by-tests"
    env = {STATE_ENV: str(layout.state)}
    if not testbed.is_up() and (obstacle := testbed.obstacle()):
        skip(obstacle)
    with shared(layout.state) as alone:
        if run_verb("openstack", env, "up") == "started" and not os.environ.get(KEEP_ENV):
            ours.touch()
        cloud = OpenStackCloud(layout)
        before = set(leftovers(cloud.user()))
        try:
            yield cloud
            left = [line for line in leftovers(cloud.user()) if line not in before]
        finally:
            # Of several sessions that share it, the last one stops it.
            if ours.exists() and alone():
                run_verb("openstack", env, "down")
    assert left == [], "the tests left these in the project demo"


@pytest.fixture(scope="session")
def s3_server(openstack_cloud: OpenStackCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An S3 server that both this machine and the testbed's instances reach."""
    with object_store(tmp_path_factory.mktemp("s3"), EXTERNAL_ADDRESS) as store:
        yield store


@pytest.fixture
def fault_proxy(openstack_cloud: OpenStackCloud, tmp_path: Path) -> Iterator[FaultProxy]:
    """Between a client with `fault_proxy.clouds_yaml` and the testbed's compute, network and identity."""
    with FaultProxy(openstack_cloud.layout, tmp_path) as proxy:
        yield proxy
