"""The Debian packages that the testbed is made of."""

from __future__ import annotations

BACKENDS = ("mariadb-server", "rabbitmq-server", "memcached", "uwsgi-core", "uwsgi-plugin-python3")
SERVICES = (
    "keystone",
    "glance-api",
    "placement-api",
    "nova-api",
    "nova-conductor",
    "nova-scheduler",
    "nova-compute",
    "neutron-server",
    "neutron-linuxbridge-agent",
    "neutron-dhcp-agent",
    "neutron-l3-agent",
    "neutron-metadata-agent",
)
NODES = ("cloud-init", "isc-dhcp-client", "openssh-server", "openssh-client", "e2fsprogs", "sudo")
"""What runs inside the instances, whose root file system is this machine's."""
TOOLS = ("iproute2", "iptables", "ebtables", "ipset", "procps", "util-linux")
PACKAGES = (*BACKENDS, *SERVICES, *NODES, *TOOLS)
