"""What a testbed leaves in the kernel: bridges, namespaces, firewall chains, found by their prefixes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from testbeds.openstack.layout import EXTERNAL_ADDRESS, EXTERNAL_BRIDGE, Layout

_NAMESPACE = re.compile(r"(?:qdhcp|qrouter|ostb)-[0-9a-f-]+")
_LINK = re.compile(rf"(?:brq|tap)[0-9a-f-]{{8,}}|{EXTERNAL_BRIDGE}")
_CHAIN = re.compile(r"-N (neutron-\S+)")
_JUMP = re.compile(r"-A (?!neutron-)(.*-j neutron-.*)")
_SET = re.compile(r"N?IPv[46][0-9a-f-]{8,}-?")
_TABLES = ("filter", "nat", "mangle", "raw")
_BRIDGE_CALLS = tuple(
    Path("/proc/sys/net/bridge", name) for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables")
)


def make_external_bridge(layout: Layout) -> None:
    """The bridge that stands for the site's outer network, with this machine's address on it."""
    before = {path.name: path.read_text().strip() for path in _BRIDGE_CALLS if path.exists()}
    (layout.state / "bridge-calls").write_text("\n".join(f"{name} {value}" for name, value in before.items()))
    _run("ip", "link", "add", EXTERNAL_BRIDGE, "type", "bridge")
    _run("ip", "address", "add", f"{EXTERNAL_ADDRESS}/24", "dev", EXTERNAL_BRIDGE)
    _run("ip", "link", "set", EXTERNAL_BRIDGE, "up")


def remove_remains(layout: Layout) -> None:
    """Deletes all of it, and sets the bridge's calls into the firewall back. Nothing there is as good."""
    for namespace in namespaces():
        _run("ip", "netns", "delete", namespace)
    for link in links():
        _run("ip", "link", "delete", link)
    for tool in ("iptables", "ip6tables"):
        for table in _TABLES:
            _remove_chains(tool, table)
    for name in _ip_sets():
        _run("ipset", "destroy", name)
    note = layout.state / "bridge-calls"
    for line in note.read_text().splitlines() if note.exists() else ():
        name, value = line.split()
        (_BRIDGE_CALLS[0].parent / name).write_text(value)


def namespaces() -> list[str]:
    """Network namespaces of neutron's agents and of instances."""
    folder = Path("/run/netns")
    return sorted(path.name for path in folder.iterdir() if _NAMESPACE.fullmatch(path.name)) if folder.exists() else []


def links() -> list[str]:
    """Bridges and tap devices of neutron's networks."""
    return sorted(path.name for path in Path("/sys/class/net").iterdir() if _LINK.fullmatch(path.name))


def remains() -> list[str]:
    """What is there now, in words."""
    chains = [
        f"{tool} chain {chain} in {table}"
        for tool in ("iptables", "ip6tables")
        for table in _TABLES
        for chain in _CHAIN.findall(_listing(tool, table))
    ]
    return [f"namespace {name}" for name in namespaces()] + [f"link {name}" for name in links()] + chains


def _remove_chains(tool: str, table: str) -> None:
    rules = _listing(tool, table)
    for rule in _JUMP.findall(rules):
        _run(tool, "-w", "-t", table, "-D", *_words(rule))
    chains = _CHAIN.findall(rules)
    for verb in ("-F", "-X"):  # first emptied all, for they refer to each other
        for chain in chains:
            _run(tool, "-w", "-t", table, verb, chain)


def _words(rule: str) -> list[str]:
    """A rule as `iptables -S` prints it: only comments are quoted, and hold blanks."""
    return [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', rule)]


def _listing(tool: str, table: str) -> str:
    return _run(tool, "-w", "-t", table, "-S") if shutil.which(tool, path="/usr/sbin:/sbin") else ""


def _ip_sets() -> list[str]:
    names = _run("ipset", "list", "-n") if shutil.which("ipset", path="/usr/sbin:/sbin") else ""
    return [name for name in names.splitlines() if _SET.fullmatch(name)]


def _run(*command: str) -> str:
    """Output of a tool. Its failure is no error here: what it deletes may have gone by itself."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False).stdout
