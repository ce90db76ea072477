"""What the testbed makes in the kernel: namespaces, cables between them, cgroups; what is left of it, by its names."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dhctl.infra.processes import ProcessMark, wait_until
from testbeds.errors import TestbedError
from testbeds.kubernetes.layout import (
    API_ADDRESS,
    FABRIC,
    FABRIC_CIDR,
    MACHINE_ADDRESS,
    MACHINE_LINK,
    NODES,
    POD_CIDR,
    PREFIX,
    Node,
)
from testbeds.services import PATH

CGROUPS = Path("/sys/fs/cgroup")
EMPTY_FOLDERS = (Path("/var/lib/kubelet"), Path("/var/lib/cni"))
"""Fixed in the programs. Each node mounts a folder of its own over them, out of this machine's sight."""
_NAMESPACE = re.compile(rf"{PREFIX}-(?:fabric|node\d+)")
_LINK = re.compile(rf"{PREFIX}(?:-\w+)?")
_CGROUP = re.compile(rf"{PREFIX}-node\d+")
_BRIDGE = "br0"


def make_network() -> None:
    """The fabric, its nodes, and this machine's cable to it. None of the namespaces has a way out but to this machine.

    Raises TestbedError.
    """
    _ip("netns", "add", FABRIC)
    inside = ("-n", FABRIC)
    _ip(*inside, "link", "set", "lo", "up")
    _ip(*inside, "link", "add", _BRIDGE, "type", "bridge")
    _ip(*inside, "link", "set", _BRIDGE, "up")
    _ip(*inside, "address", "add", f"{API_ADDRESS}/24", "dev", _BRIDGE)
    _forward(FABRIC)
    _ip("link", "add", MACHINE_LINK, "type", "veth", "peer", "name", "machine", "netns", FABRIC)
    _ip("address", "add", f"{MACHINE_ADDRESS}/24", "dev", MACHINE_LINK)
    _ip("link", "set", MACHINE_LINK, "up")
    _ip(*inside, "link", "set", "machine", "master", _BRIDGE, "up")
    for node in NODES:
        _make_node(node)
    for node in NODES:
        for other in NODES:
            if other != node:
                _ip("-n", node.namespace, "route", "add", other.pod_cidr, "via", other.address)


def _make_node(node: Node) -> None:
    _ip("netns", "add", node.namespace)
    inside = ("-n", node.namespace)
    _ip(*inside, "link", "set", "lo", "up")
    _ip("-n", FABRIC, "link", "add", node.fabric_link, "type", "veth", "peer", "name", "eth0", "netns", node.namespace)
    _ip("-n", FABRIC, "link", "set", node.fabric_link, "master", _BRIDGE, "up")
    _ip(*inside, "link", "set", "eth0", "up")
    _ip(*inside, "address", "add", f"{node.address}/24", "dev", "eth0")
    # Kube-proxy's rules are met only by packets that have a route: also those to the addresses of services.
    _ip(*inside, "route", "add", "default", "via", API_ADDRESS)
    _ip("-n", FABRIC, "route", "add", node.pod_cidr, "via", node.address)
    _forward(node.namespace)
    # This machine knows the nodes, not their pods: to it a pod has its node's address, as outside a real cluster.
    rule = ("-s", POD_CIDR, "-d", MACHINE_ADDRESS, "-j", "MASQUERADE")
    _run("nsenter", f"--net=/run/netns/{node.namespace}", "iptables", "-w", "-t", "nat", "-A", "POSTROUTING", *rule)


def set_link(node: Node, up: bool) -> None:
    """Pulls the node's cable out of the fabric, or puts it back."""
    _ip("-n", FABRIC, "link", "set", node.fabric_link, "up" if up else "down")


def refuse_others() -> None:
    """Whoever else uses the fabric's addresses on this machine keeps them. Raises TestbedError that names the link."""
    fabric = ipaddress.ip_network(FABRIC_CIDR)
    found: list[dict[str, Any]] = json.loads(_ip("-json", "-4", "route", "show", "table", "all") or "[]")
    for route in found:
        if route["dst"] == "default" or route.get("dev") == MACHINE_LINK:
            continue
        if ipaddress.ip_network(route["dst"], strict=False).overlaps(fabric):
            raise TestbedError(
                f"the route to {route['dst']} by {route.get('dev', 'another link')} overlaps {FABRIC_CIDR}, which the "
                "Kubernetes testbed uses; take it away and try again"
            )


def make_cgroups() -> None:
    """A folder a node in each hierarchy; kubelet wants them to be there."""
    for hierarchy in _hierarchies():
        for node in NODES:
            (hierarchy / node.cgroup).mkdir(exist_ok=True)


def pods_processes() -> list[ProcessMark]:
    """All processes of all pods, by the nodes' cgroups: whoever started them."""
    pids = {
        int(pid)
        for folder in cgroups()
        for path in (folder, *folder.rglob("*"))
        if path.name == "cgroup.procs"
        for pid in _lines(path)
    }
    marks = [ProcessMark.of(pid) for pid in sorted(pids)]
    return [mark for mark in marks if mark is not None]


def remove_remains() -> None:
    """Deletes the namespaces, the link and the cgroups, whose processes must be gone. Nothing there is as good."""
    for name in namespaces():
        _quietly("ip", "netns", "delete", name)
    for link in links():
        _quietly("ip", "link", "delete", link)
    wait_until(_remove_cgroups, 10, 0.1)


def _remove_cgroups() -> bool:
    """Whether none is left: the kernel needs a moment after the last process of one."""
    for folder in cgroups():
        for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
        with contextlib.suppress(OSError):
            folder.rmdir()
    return not cgroups()


def remains() -> list[str]:
    """What is there now, in words."""
    kinds = {"namespace": namespaces(), "link": links(), "cgroup": [str(path) for path in cgroups()]}
    return [f"{kind} {name}" for kind, names in kinds.items() for name in names]


def namespaces() -> list[str]:
    """Network namespaces of the fabric and of nodes."""
    folder = Path("/run/netns")
    return sorted(path.name for path in folder.iterdir() if _NAMESPACE.fullmatch(path.name)) if folder.exists() else []


def links() -> list[str]:
    """This machine's end of the cable."""
    return sorted(path.name for path in Path("/sys/class/net").iterdir() if _LINK.fullmatch(path.name))


def cgroups() -> list[Path]:
    """The nodes' folders in all hierarchies."""
    return [path for hierarchy in _hierarchies() for path in hierarchy.iterdir() if _CGROUP.fullmatch(path.name)]


def mounts_below(folder: Path) -> list[str]:
    """Mount points in `folder`, as this process sees them."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [point for point in points if Path(point).is_relative_to(folder)]


def _hierarchies() -> Iterator[Path]:
    """Of cgroup v1 one a controller, of v2 the only one."""
    if (CGROUPS / "cgroup.controllers").exists():
        yield CGROUPS
        return
    seen = set()
    for path in sorted(CGROUPS.iterdir()):
        # cpu and cpuacct may be links to one and the same.
        if (path / "cgroup.procs").exists() and path.resolve() not in seen:
            seen.add(path.resolve())
            yield path.resolve()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # gone meanwhile
        return []


def _forward(namespace: str) -> None:
    _run("nsenter", f"--net=/run/netns/{namespace}", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def _run(*command: str) -> str:
    done = _quietly(*command)
    if done.returncode:
        raise TestbedError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout


def _quietly(*command: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": PATH, "LC_ALL": "C"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
