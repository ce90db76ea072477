"""The testbed's services as a table, and starting, finding and stopping exactly them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from dhctl.infra.processes import ProcessMark, stop_all, wait_until
from testbeds.openstack.configuration import argument
from testbeds.openstack.layout import (
    ENDPOINTS,
    EXTERNAL_ADDRESS,
    HERE,
    IDENTITY_URL,
    LOOPBACK,
    MARK_ENV,
    Layout,
    TestbedError,
)

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Debian's own interpreter and tools, nothing of a virtual environment or of pyenv."""


@dataclass(frozen=True)
class Service:
    """One daemon: what starts it, where it listens, how long it may take to open that port and to end."""

    name: str
    command: tuple[str, ...]
    ports: tuple[int, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    start_s: float = 120
    stop_s: float = 3
    """An API needs no goodbye: what it was doing is thrown away with the databases."""


def backends(layout: Layout) -> list[Service]:
    """Cache, database, message broker."""
    state = layout.state
    mariadb = ("--no-defaults", "--user=mysql", f"--datadir={state}/mysql", f"--socket={layout.mysql_socket}")
    quick = (
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-doublewrite=0",
        "--innodb-buffer-pool-size=256M",
        "--skip-name-resolve",
    )
    where = (f"--pid-file={state}/run/mysql/pid", "--bind-address=127.0.0.1", "--port=3306", "--max-connections=500")
    rabbit_env = {  # everything of Erlang on loopback only
        "HOME": f"{state}/rabbit",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": "ostb@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": "5672",
        "RABBITMQ_MNESIA_BASE": f"{state}/rabbit/mnesia",
        "RABBITMQ_LOG_BASE": str(layout.log),
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{state}/rabbit/plugins",
        "RABBITMQ_CONFIG_FILE": f"{state}/rabbit/rabbitmq",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
    }
    return [
        Service("memcached", ("memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", "11211", "-m", "64"), (11211,)),
        Service("mysql", ("mariadbd", *mariadb, *quick, *where, "--character-set-server=utf8mb3"), (3306,), stop_s=10),
        Service("rabbit", ("/usr/lib/rabbitmq/bin/rabbitmq-server",), (5672,), env=rabbit_env, stop_s=10),
    ]


def _uwsgi(name: str, url: str, script: str, threads: int, env: Mapping[str, str]) -> Service:
    address, port = str(urlsplit(url).hostname), int(urlsplit(url).port or 0)
    # Without `Connection: close` clients meet RemoteDisconnected, and neutron answers 503 for keystone.
    master = "--master --processes 1 --lazy-apps --die-on-term --disable-logging"
    options = f"{master} --enable-threads --threads {threads} --thunder-lock --buffer-size 65535 --listen 100"
    command = ("uwsgi_python3", "--http-socket", f"{address}:{port}", "--wsgi-file", script, *options.split())
    return Service(name, (*command, "--add-header", "Connection: close"), (port,), env=env)


def identity(layout: Layout) -> Service:
    """Keystone."""
    return _uwsgi(
        "keystone",
        IDENTITY_URL,
        "/usr/bin/keystone-wsgi-public",
        4,
        {"OS_KEYSTONE_CONFIG_FILES": f"{layout.etc}/keystone.conf"},
    )


def apis(layout: Layout) -> list[Service]:
    """Everything else of the control plane, and the compute host."""
    nova = argument(layout.etc / "nova.conf")
    neutron = (*argument(layout.etc / "neutron.conf"), *argument(layout.etc / "ml2_conf.ini"))
    placement = {"OS_PLACEMENT_CONFIG_DIR": str(layout.etc / "placement")}
    return [
        Service("neutron-server", ("neutron-server", *neutron), (9696,)),
        Service("nova-api", ("nova-api", *nova), (8774, 8775)),
        _uwsgi("placement", ENDPOINTS["placement"], "/usr/bin/placement-api", 2, placement),
        Service("glance", ("glance-api", *argument(layout.etc / "glance-api.conf")), (9292,)),
        Service("nova-conductor", ("nova-conductor", *nova)),
        Service("nova-scheduler", ("nova-scheduler", *nova)),
        Service("nova-compute", ("/usr/bin/python3", str(HERE / "nova_driver" / "nova_compute.py"), *nova)),
    ]


def agents(layout: Layout) -> list[Service]:
    """Neutron's agents. Started before its API listens they would fall into a back-off of a minute."""
    common = (*argument(layout.etc / "neutron.conf"), *argument(layout.etc / "ml2_conf.ini"))

    def agent(name: str, own: str = "") -> Service:
        extra = argument(layout.etc / own) if own else ()
        return Service(name, (f"neutron-{name}-agent", *common, *extra))

    return [
        agent("linuxbridge"),
        agent("dhcp", "dhcp_agent.ini"),
        agent("l3", "l3_agent.ini"),
        agent("metadata", "metadata_agent.ini"),
    ]


def clean_env(layout: Layout) -> dict[str, str]:
    """The environment of every process of the testbed: its mark, and nothing of the caller's but this."""
    return {
        "PATH": PATH,
        "LC_ALL": "C.UTF-8",
        "HOME": "/root",
        "PYTHONWARNINGS": "ignore",
        MARK_ENV: str(layout.state),
    }


class Services:
    """Those of one testbed that were started, by their marks in `services.json`."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._children: list[subprocess.Popen[bytes]] = []

    def marks(self) -> dict[str, ProcessMark]:
        """Name -> process, alive or not. Empty when none was ever started."""
        try:
            body = json.loads(self.layout.services_file.read_text())
        except FileNotFoundError:
            return {}
        found = ((name, ProcessMark.from_dict(mark)) for name, mark in body.items())
        return {name: mark for name, mark in found if mark is not None}

    def start(self, service: Service) -> None:
        """Starts one in a session of its own, its output in its log, and notes its mark."""
        with (self.layout.log / f"{service.name}.log").open("ab") as log:
            process = subprocess.Popen(
                service.command,
                env=clean_env(self.layout) | dict(service.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.layout.state,
                start_new_session=True,
            )
        self._children.append(process)
        mark = ProcessMark.of(process.pid)
        marks = {name: mark.to_dict() for name, mark in self.marks().items()}
        if mark is None:
            raise TestbedError(f"{service.name} ended at once:\n{self.tail(service.name)}")
        body = json.dumps({**marks, service.name: mark.to_dict()})
        draft = self.layout.services_file.with_suffix(".new")
        draft.write_text(body)
        draft.rename(self.layout.services_file)

    def wait_open(self, services: Iterable[Service]) -> None:
        """Until all their ports answer. Raises TestbedError with the log's end when one ends or is late."""
        for service in services:
            mark = self.marks()[service.name]
            for port in service.ports:
                wait_until(partial(_answers_or_ended, port, mark), service.start_s, 0.1)
                if not _answers(port):
                    why = f"does not listen on {port} after {service.start_s:.0f} s" if mark.alive() else "ended"
                    raise TestbedError(f"{service.name} {why}:\n{self.tail(service.name)}")

    def tail(self, name: str, lines: int = 15) -> str:
        """The end of a service's log."""
        return "\n".join((self.layout.log / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])

    def stop(self, services: Sequence[Service]) -> list[ProcessMark]:
        """Ends these, and all in their sessions, together. Processes that outlived even SIGKILL."""
        marks = self.marks()
        wanted = [(service, marks[service.name]) for service in services if service.name in marks]
        members = [mark for _, leader in wanted for mark in _session(leader)]
        left = stop_all(members, max((service.stop_s for service, _ in wanted), default=0))
        # Those that this very process started are to be waited for; all others have init for that.
        self._children = [child for child in self._children if child.poll() is None]
        return left

    def strays(self) -> list[ProcessMark]:
        """Living processes with the testbed's mark: dnsmasq, haproxy, epmd, instances, whatever a service left."""
        wanted = f"{MARK_ENV}={self.layout.state}".encode()
        own = {os.getpid(), os.getppid()}
        pids = [
            int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal() and int(path.name) not in own
        ]
        marks = [ProcessMark.of(pid) for pid in pids if wanted in _environment(pid)]
        return [mark for mark in marks if mark is not None]

    def stop_strays(self, grace_s: float = 2) -> list[ProcessMark]:
        """Ends them. Those that outlived even SIGKILL."""
        return stop_all(self.strays(), grace_s)


def _session(leader: ProcessMark) -> list[ProcessMark]:
    """The leader and all processes of its session; none when it is gone and its number may be another's."""
    if not leader.alive():
        return []
    members = [leader]
    for path in Path("/proc").iterdir():
        if path.name.isdecimal() and int(path.name) != leader.pid and _session_id(int(path.name)) == leader.pid:
            mark = ProcessMark.of(int(path.name))
            members += [mark] if mark else []
    return members


def _session_id(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone meanwhile
        return []


def _answers_or_ended(port: int, mark: ProcessMark) -> bool:
    return _answers(port) or not mark.alive()


def _answers(port: int) -> bool:
    """On either of the testbed's own addresses."""
    return any(_listens(address, port) for address in (LOOPBACK, EXTERNAL_ADDRESS))


def _listens(address: str, port: int) -> bool:
    """On this very machine: without the bridge the address is a stranger's, and a gateway may answer for it."""
    with socket.socket() as probe:
        probe.settimeout(1)
        try:
            probe.bind((address, 0))
        except OSError:  # not an address of this machine
            return False
        return probe.connect_ex((address, port)) == 0
