"""A stack of all types that the stand-in plugin knows and the testbed can make, driven through Pulumi's own API."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pulumi
from pulumi import automation as auto

from testbeds.openstack.plugin.faults import FAULTS_ENV
from testbeds.openstack.plugin.install import install

with warnings.catch_warnings():  # it warns of its own old names while it is imported
    warnings.simplefilter("ignore", DeprecationWarning)
    import pulumi_openstack as openstack

STACK, PROJECT = "golden", "cases"
"""The golden state's: its URNs are compared too."""

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKNXSyuTz0A1H2nM5eeRBLmNbyGC3dAp+rZk7fEiDSCV testbed"
CREATE, DELETE = "60s", "15s"
GOLDEN = json.loads((Path(__file__).parents[1] / "testbeds" / "openstack" / "plugin" / "golden.json").read_text())


def options(*after: pulumi.Resource) -> pulumi.ResourceOptions:
    """Short timeouts, so that a test of a timeout is short."""
    return pulumi.ResourceOptions(
        custom_timeouts=pulumi.CustomTimeouts(create=CREATE, delete=DELETE), depends_on=list(after)
    )


def golden_program(external: str) -> None:
    """The program that made the golden state. `external` is the external network's id."""
    net, compute = openstack.networking, openstack.compute
    n = net.Network("n", tags=["dh-x"], opts=options())
    k = compute.Keypair("k", public_key=PUBLIC_KEY, opts=options())
    openstack.identity.ApplicationCredential("ac", description="x", roles=["member"], opts=options())
    compute.ServerGroup("grp", policies="soft-anti-affinity", opts=options())
    sg = net.SecGroup("sg", description="x", opts=options())
    _ssh_rule(sg)
    s = net.Subnet("s", network_id=n.id, cidr="10.77.0.0/24", ip_version=4, opts=options())
    p = net.Port(
        "p",
        network_id=n.id,
        fixed_ips=[net.PortFixedIpArgs(subnet_id=s.id)],
        security_group_ids=[sg.id],
        opts=options(),
    )
    r = net.Router("r", external_network_id=external, opts=options())
    ri = net.RouterInterface("ri", router_id=r.id, subnet_id=s.id, opts=options())
    f = net.FloatingIp("f", pool="public", opts=options(ri))
    head = compute.Instance(
        "head",
        flavor_name="m1.small",
        image_name="host",
        key_pair=k.name,
        metadata={"dh": "x"},
        networks=[compute.InstanceNetworkArgs(port=p.id)],
        user_data="#cloud-config\n",
        opts=options(ri),
    )
    net.FloatingIpAssociate("fa", floating_ip=f.address, port_id=p.id, opts=options(ri, head))


def _ssh_rule(group: openstack.networking.SecGroup) -> None:
    openstack.networking.SecGroupRule(
        "r22",
        direction="ingress",
        ethertype="IPv4",
        port_range_max=22,
        port_range_min=22,
        protocol="tcp",
        remote_ip_prefix="0.0.0.0/0",
        security_group_id=group.id,
        opts=options(),
    )


def server_program(flavor: str) -> Callable[[], None]:
    """A network, a subnet, a port and a server of that flavor on it."""

    def program() -> None:
        n = openstack.networking.Network("n", opts=options())
        s = openstack.networking.Subnet("s", network_id=n.id, cidr="10.77.0.0/24", opts=options())
        fixed = openstack.networking.PortFixedIpArgs(subnet_id=s.id)
        p = openstack.networking.Port("p", network_id=n.id, fixed_ips=[fixed], opts=options())
        nic = openstack.compute.InstanceNetworkArgs(port=p.id)
        openstack.compute.Instance(
            "head", flavor_name=flavor, image_name="host", networks=[nic], metadata={"dh": "x"}, opts=options()
        )

    return program


def changing_program(step: str) -> Callable[[], None]:
    """What can be changed in place, with `step` in each value that changes."""

    def program() -> None:
        net, compute = openstack.networking, openstack.compute
        n = net.Network("n", tags=["kept", step], description=step, opts=options())
        s = net.Subnet("s", network_id=n.id, cidr="10.77.0.0/24", dns_nameservers=["10.77.0.9"], opts=options())
        groups = {name: net.SecGroup(name, description=step, opts=options()) for name in ("one", "two")}
        # not the server's: the testbed's agent hangs when a plugged port changes (ebtables-nft cannot delete by MAC)
        net.Port("p", network_id=n.id, security_group_ids=[groups[step].id], tags=[step], opts=options(s))
        group = compute.ServerGroup("grp", policies="soft-anti-affinity", opts=options())
        compute.Instance(
            "head",
            flavor_name="m1.tiny",
            image_name="host",
            metadata={"dh": step},
            tags=[step],
            networks=[compute.InstanceNetworkArgs(uuid=n.id)],
            scheduler_hints=[compute.InstanceSchedulerHintArgs(group=group.id)],
            opts=options(s),
        )

    return program


def keypair_program(cloud: str | None) -> Callable[[], None]:
    """One keypair, by an explicit provider for that entry of clouds.yaml, or by the default one."""

    def program() -> None:
        chosen = openstack.Provider("named", cloud=cloud) if cloud else None
        openstack.compute.Keypair("k", public_key=PUBLIC_KEY, opts=pulumi.ResourceOptions(provider=chosen))

    return program


class StandInStack:
    """One Pulumi stack with a state, a home and an installed stand-in of its own in `folder`."""

    def __init__(self, folder: Path, engine: Path, env: dict[str, str]) -> None:
        """`engine` is the folder of the Pulumi CLI."""
        self._folder, self._engine = folder, engine
        self.faults, self.work = folder / "faults.json", folder / "work"
        for name in ("state", "work"):
            (folder / name).mkdir()
        install(folder / "home" / "plugins", sys.executable)
        self._env = env | {
            "PULUMI_BACKEND_URL": f"file://{folder}/state",
            "PULUMI_CONFIG_PASSPHRASE": "x",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            FAULTS_ENV: str(self.faults),
        }

    def without(self, name: str) -> str:
        """Takes a variable out of the CLI's environment, and gives what it was."""
        return self._env.pop(name)

    def stack(self, program: Callable[[], None] = lambda: None) -> auto.Stack:
        """The stack, with a program for `up` and `preview`."""
        command = auto.PulumiCommand(root=str(self._engine.parent))
        workspace = auto.LocalWorkspaceOptions(
            work_dir=str(self.work),
            pulumi_home=str(self._folder / "home"),
            pulumi_command=command,
            project_settings=auto.ProjectSettings(PROJECT, "python"),
            env_vars=self._env,
        )
        return auto.create_or_select_stack(STACK, PROJECT, program, opts=workspace)

    def deployment(self) -> dict[str, Any]:
        """The exported state."""
        return dict(self.stack().export_stack().deployment or {})

    def resources(self) -> list[dict[str, Any]]:
        """Those in the state, but the stack itself."""
        return [r for r in self.deployment().get("resources", ()) if r["type"] != "pulumi:pulumi:Stack"]

    def kinds(self) -> set[str]:
        """The last word of each type in the state, but providers."""
        return {r["type"].rpartition(":")[2] for r in self.resources()} - {"openstack"}


@contextmanager
def failing() -> Iterator[list[str]]:
    """Expects the CLI to fail; the list then holds what it said."""
    said: list[str] = []
    try:
        yield said
    except auto.CommandError as error:
        said.append(str(error))
    if not said:
        raise AssertionError("the command did not fail")


_VOLATILE = (
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>"),
    (r"\b[0-9a-f]{32}\b", "<id>"),
    (r"([0-9a-f]{2}:){15}[0-9a-f]{2}", "<fingerprint>"),
    (r"([0-9a-f]{2}:){5}[0-9a-f]{2}", "<mac>"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC", "<time>"),
    (r"ssh-ed25519 \S+ ", "ssh-ed25519 <key> "),
    (r"(10\.77\.0|172\.24\.4)\.\d+$", r"\1.<n>"),
    (r"-[0-9a-f]{7}$", "-<random>"),
)
BOOK_KEEPING = ("__meta", "__pulumi_raw_state_delta")
"""What the bridge keeps for itself in outputs."""


def comparable(value: Any) -> Any:
    """A state without what differs from run to run: ids, addresses, times, secrets, random parts of names."""
    if isinstance(value, dict):
        if "4dabf18193072939515e22adb298388d" in value:
            return "<secret>"
        return {name: comparable(item) for name, item in value.items() if name not in BOOK_KEEPING}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if isinstance(value, str):
        for pattern, word in _VOLATILE:
            value = re.sub(pattern, word, value)
    return value


def shape(resource: dict[str, Any]) -> dict[str, Any]:
    """What the golden file has of a resource, comparable."""
    names = ("type", "id", "inputs", "outputs", "additionalSecretOutputs")
    shaped = {name: comparable(resource[name]) for name in names if resource.get(name)}
    return shaped | {"dependencies": sorted(resource.get("dependencies") or ())}
