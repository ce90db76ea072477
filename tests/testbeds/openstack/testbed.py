"""A real OpenStack on this machine: keystone, glance, placement, nova and neutron of Debian 12.

Without systemd, as root. Instances are namespaces: nova_driver/native_driver.py.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from dhctl.infra.processes import listeners
from testbeds import apt
from testbeds.errors import TestbedError
from testbeds.openstack import packages, services
from testbeds.openstack.cloud_setup import connect, make_accounts, make_site, wait_ready
from testbeds.openstack.configuration import write_configuration
from testbeds.openstack.databases import Databases
from testbeds.openstack.layout import ADMIN_CLOUD, Layout
from testbeds.openstack.remains import make_external_bridge, remains, remove_remains
from testbeds.sharing import alone


class Testbed:
    """The testbed of one state folder. `up` always begins with an empty cloud; `down` leaves the logs."""

    __test__ = False  # no test class, in spite of its name

    def __init__(self, layout: Layout, say: Callable[[str], None]) -> None:
        self.layout = layout
        self.services = services.services_of(layout)
        self._say = say

    def obstacle(self) -> str:
        """Why this machine cannot run it: a sentence with a next step, empty when it can."""
        if os.geteuid() != 0:
            return "the OpenStack testbed needs root (network namespaces, mounts); run the tests as root"
        missing = apt.missing(packages.PACKAGES)
        return f"packages are missing ({', '.join(missing)}); install them: make testbed-install" if missing else ""

    def is_up(self) -> bool:
        """Whether it was brought up and every service still lives."""
        marks = self.services.marks()
        return self.layout.ready_file.exists() and bool(marks) and all(mark.alive() for mark in marks.values())

    def up(self) -> bool:
        """Brings it up, unless it is; whether it was brought up now.

        Raises TestbedError; what was started is stopped then.
        """
        if obstacle := self.obstacle():
            raise TestbedError(obstacle)
        with alone(self.layout.state):
            if self.is_up():
                return False
            self._stop_processes()
            self._refuse_others()
            remove_remains(self.layout)
            self._forget()
            try:
                self._bring_up()
            except BaseException:
                self._stop_all()
                raise
            return True

    def down(self) -> None:
        """Stops everything and removes it from the kernel. Already down is as good."""
        with alone(self.layout.state):
            self._stop_all()
        self._say("down")

    def remains(self) -> list[str]:
        """What is on this machine of a testbed that should be gone: processes, namespaces, links, firewall chains.

        Nothing while it is up: then they are in use.
        """
        if self.is_up():
            return []
        living = [mark for mark in self.services.marks().values() if mark.alive()]
        pids = sorted({mark.pid for mark in (*living, *self.services.strays())})
        return [f"process {pid}" for pid in pids] + remains()

    def _bring_up(self) -> None:
        databases = Databases(self.layout)
        write_configuration(self.layout)
        databases.make_data_folder()
        make_external_bridge(self.layout)  # the APIs listen on it
        self._say("configured")
        backends = {service.name: service for service in services.backends(self.layout)}
        for service in backends.values():
            self.services.start(service)
        self.services.wait_open([backends["memcached"], backends["mysql"]])
        databases.create()
        databases.make_keys()
        restored = databases.restore()
        if not restored:
            databases.make()
        self._say("databases restored from the cache" if restored else "databases made")
        keystone = services.identity(self.layout)
        self.services.start(keystone)
        self.services.wait_open([keystone])
        if not restored:
            make_accounts(connect(self.layout, ADMIN_CLOUD))
            databases.save()
        self._say("keystone answers")
        self.services.wait_open([backends["rabbit"]])
        apis = services.apis(self.layout)
        for service in apis:
            self.services.start(service)
        self.services.wait_open(apis)
        self._say("all APIs listen")
        for service in services.agents(self.layout):
            self.services.start(service)
        admin = connect(self.layout, ADMIN_CLOUD)
        make_site(admin)
        wait_ready(admin)
        self.layout.ready_file.touch()
        self._say(f"ready: OS_CLIENT_CONFIG_FILE={self.layout.clouds_yaml} OS_CLOUD=testbed")

    def _stop_all(self) -> None:
        self._stop_processes()
        remove_remains(self.layout)

    def _refuse_others(self) -> None:
        """Whoever else listens where we would, say another OpenStack, keeps its ports, its state and its networks."""
        ours = (*services.backends(self.layout), services.identity(self.layout), *services.apis(self.layout))
        wanted = {port: service.name for service in ours for port in service.ports}
        for other in listeners():
            if other.port in wanted:
                name = wanted[other.port]
                raise TestbedError(f"process {other.pid} listens on {other}, where {name} would; stop it and try again")

    def _stop_processes(self) -> None:
        layout = self.layout
        self.layout.ready_file.unlink(missing_ok=True)
        first = [*services.agents(layout), *services.apis(layout), services.identity(layout)]
        left = self.services.stop(first)
        left += self.services.stop(services.backends(layout))
        left += self.services.stop_strays()
        if left:
            pids = ", ".join(str(mark.pid) for mark in left)
            raise TestbedError(f"processes {pids} outlived SIGKILL; look what holds them (a mount?) and run down again")
        self.services.file.unlink(missing_ok=True)

    def _forget(self) -> None:
        """Empties the state folder: a testbed that was stopped midway has servers without processes."""
        for path in self.layout.state.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
