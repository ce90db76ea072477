"""The Debian packages that the testbed is made of."""

from __future__ import annotations

NODES = ("containerd", "runc", "containernetworking-plugins", "iptables")
CONTROL_PLANE = ("etcd-server", "python3")
BUILD = ("debootstrap", "gcc", "libc6-dev")
"""For the image and its `pause`."""
TOOLS = ("iproute2", "util-linux")
PACKAGES = (*NODES, *CONTROL_PLANE, *BUILD, *TOOLS)
