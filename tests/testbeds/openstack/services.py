"""The testbed's services as a table."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from testbeds.openstack.configuration import argument
from testbeds.openstack.layout import ENDPOINTS, EXTERNAL_ADDRESS, HERE, IDENTITY_URL, LOOPBACK, Layout
from testbeds.services import Service, Services


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

    def agent(name: str, own: str) -> Service:
        return Service(name, (f"neutron-{name}-agent", *common, *argument(layout.etc / own)))

    return [
        Service("linuxbridge", ("/usr/bin/python3", str(HERE / "linuxbridge_agent.py"), *common)),
        agent("dhcp", "dhcp_agent.ini"),
        agent("l3", "l3_agent.ini"),
        agent("metadata", "metadata_agent.ini"),
    ]


def services_of(layout: Layout) -> Services:
    """Those of this testbed that were started."""
    return Services(layout.state, (LOOPBACK, EXTERNAL_ADDRESS))
