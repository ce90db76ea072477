"""The testbed's programs as a table: the control plane on the fabric, and a node's in the node's namespaces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from dhctl.infra.processes import ProcessMark
from testbeds.kubernetes import simulator
from testbeds.kubernetes.kernel import EMPTY_FOLDERS
from testbeds.kubernetes.layout import (
    API_ADDRESS,
    API_PORT,
    DNS_SERVICE_ADDRESS,
    DOMAIN,
    FABRIC,
    HERE,
    PAUSE_IMAGE,
    POD_CIDR,
    SERVICE_CIDR,
    Layout,
    Node,
)
from testbeds.kubernetes.programs import programs
from testbeds.services import Service, Services

ETCD = "http://127.0.0.1:2379"
NODE_MEMORY_GIB = 8
"""What a node offers to pods: each kubelet sees the whole machine. Less on a machine that has not so much."""
SYSCTLS = {"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"}
"""What kubelet wants to see. It sees it in its own mount namespace: the machine's settings stay."""
NODE_LOST_S = 24
"""After so long without a word a node is not Ready; Kubernetes' own 50 s are long for a test."""
NODE_WORD_S = 4
EVICTED_S = 20
"""After so long on a node that is not Ready pods are evicted; Kubernetes' own 300 s."""


def services_of(layout: Layout) -> Services:
    """Those of this testbed that were started."""
    return Services(layout.state, (API_ADDRESS,))


def etcd(layout: Layout) -> Service:
    """The cluster's memory; what is in it is thrown away with the testbed, so nothing is ever synced to the disk."""
    peer = "http://127.0.0.1:2380"
    where = ("--listen-client-urls", ETCD, "--advertise-client-urls", ETCD, "--listen-peer-urls", peer)
    own = ("--data-dir", str(layout.state / "etcd"), "--initial-advertise-peer-urls", peer)
    only = ("--initial-cluster", f"default={peer}", "--unsafe-no-fsync", "--logger", "zap")
    return _on_fabric("etcd", ("etcd", *own, *where, *only))


def api_server(layout: Layout) -> Service:
    """Reached from the fabric, from pods and from this machine."""
    pki = layout.pki
    options = {
        "etcd-servers": ETCD,
        "bind-address": API_ADDRESS,
        "advertise-address": API_ADDRESS,
        "secure-port": API_PORT,
        "tls-cert-file": pki / "api.crt",
        "tls-private-key-file": pki / "api.key",
        "client-ca-file": pki / "ca.crt",
        "authorization-mode": "Node,RBAC",
        "allow-privileged": "true",
        "service-account-issuer": f"https://kubernetes.default.svc.{DOMAIN}",
        "service-account-key-file": pki / "accounts.pub",
        "service-account-signing-key-file": pki / "accounts.key",
        "service-cluster-ip-range": SERVICE_CIDR,
        "kubelet-client-certificate": pki / "api-server.crt",
        "kubelet-client-key": pki / "api-server.key",
        "kubelet-certificate-authority": pki / "ca.crt",
        "kubelet-preferred-address-types": "InternalIP",
        "default-not-ready-toleration-seconds": EVICTED_S,
        "default-unreachable-toleration-seconds": EVICTED_S,
    }
    return _kubernetes(layout, "kube-apiserver", options)


def control_plane(layout: Layout) -> list[Service]:
    """What works for the API server, the cluster's DNS, and storage on demand."""
    pki = layout.pki
    alone = {"bind-address": "127.0.0.1", "leader-elect": "false"}
    controllers = {
        "kubeconfig": layout.kubeconfig("controllers"),
        "use-service-account-credentials": "true",
        "service-account-private-key-file": pki / "accounts.key",
        "root-ca-file": pki / "ca.crt",
        "cluster-signing-cert-file": pki / "ca.crt",
        "cluster-signing-key-file": pki / "ca.key",
        "node-monitor-period": "2s",
        "node-monitor-grace-period": f"{NODE_LOST_S}s",
    }
    scheduler = {"kubeconfig": layout.kubeconfig("scheduler")}
    provision = (str(HERE / "provisioner.py"), str(layout.admin_kubeconfig), str(layout.state / "volumes"))
    return [
        _kubernetes(layout, "kube-controller-manager", {**alone, **controllers}),
        _kubernetes(layout, "kube-scheduler", {**alone, **scheduler}),
        _on_fabric("storage", ("python3", *provision)),
        _on_fabric("coredns", (str(programs(layout.cache) / "coredns"), "-conf", str(layout.state / "Corefile"))),
    ]


def kwok(layout: Layout) -> Service:
    """The kubelet of all simulated nodes; runs only where somebody wants some."""
    service = _on_fabric(simulator.SERVICE, simulator.command(layout))
    return replace(service, env=simulator.ENV)


def holder(layout: Layout, node: Node) -> Service:
    """Makes the node's mount namespace and holds it. Everything else of the node enters it by this process."""
    command = ("unshare", "--mount", "--propagation", "private", "sh", "-eu", str(layout.node(node) / "enter.sh"))
    return Service(f"{node.name}-holder", command, stop_s=0)


def containerd(layout: Layout, node: Node, held_by: ProcessMark) -> Service:
    """The node's container runtime."""
    command = ("containerd", "-c", str(layout.node(node) / "containerd.toml"))
    return _on_node(node, held_by, "containerd", command)


def kubelet(layout: Layout, node: Node, held_by: ProcessMark) -> Service:
    """The node's agent."""
    own = ("--config", str(layout.node(node) / "kubelet.yaml"), "--kubeconfig", str(layout.kubeconfig(node.name)))
    who = ("--hostname-override", node.name, "--node-ip", node.address)
    return _on_node(node, held_by, "kubelet", (str(programs(layout.cache) / "kubelet"), *own, *who))


def kube_proxy(layout: Layout, node: Node, held_by: ProcessMark) -> Service:
    """The node's firewall rules for services."""
    command = (str(programs(layout.cache) / "kube-proxy"), "--config", str(layout.node(node) / "proxy.yaml"))
    return _on_node(node, held_by, "kube-proxy", command)


def write_configuration(layout: Layout, nodes: tuple[Node, ...], machine_memory_kib: int) -> None:
    """The files that the commands above name."""
    (layout.state / "Corefile").write_text(
        f".:53 {{\n bind {API_ADDRESS}\n errors\n cache 5\n"
        f" kubernetes {DOMAIN} in-addr.arpa {{\n  kubeconfig {layout.admin_kubeconfig} testbed\n }}\n}}\n"
    )
    for node in nodes:
        folder = layout.node(node)
        for name in ("cni", "kubelet", "logs", "cni-state", "plugins"):
            (folder / name).mkdir(parents=True)
        for path, value in SYSCTLS.items():
            (folder / "sysctls" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "sysctls" / path).write_text(f"{value}\n")
        (folder / "enter.sh").write_text(_enter(layout, node))
        (folder / "cni" / "pods.conflist").write_text(json.dumps(_cni(layout, node)))
        (folder / "containerd.toml").write_text(_containerd_toml(layout, node))
        (folder / "kubelet.yaml").write_text(yaml.safe_dump(_kubelet_configuration(layout, node, machine_memory_kib)))
        (folder / "proxy.yaml").write_text(yaml.safe_dump(_proxy_configuration(layout, node)))


def _enter(layout: Layout, node: Node) -> str:
    """What the node's mount namespace has that differs from the machine's; last of all a sign that it is there."""
    folder = layout.node(node)
    lines = ["mount --make-rshared /", "mount -t tmpfs tmpfs /run", "mkdir /run/netns /run/lock"]
    lines += [f"mount --bind {folder}/sysctls/{path} /proc/sys/{path}" for path in SYSCTLS]
    own = zip(("kubelet", "cni-state", "logs"), (*EMPTY_FOLDERS, "/var/log"), strict=True)
    lines += [f"mount --bind {folder}/{name} {place}" for name, place in own]
    return "\n".join((*lines, f"touch {folder}/entered", "exec sleep infinity", ""))


def _cni(layout: Layout, node: Node) -> dict[str, Any]:
    ipam = {
        "type": "host-local",
        "dataDir": f"{layout.node(node)}/addresses",
        "ranges": [[{"subnet": node.pod_cidr}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True, "ipam": ipam}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}


def _containerd_toml(layout: Layout, node: Node) -> str:
    folder = layout.node(node)
    # Without restrict_oom_score_adj no pod starts on a machine that lacks CAP_SYS_RESOURCE.
    return f"""\
version = 2
root = "{folder}/containerd"
state = "/run/containerd-state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
"""


def _kubelet_configuration(layout: Layout, node: Node, machine_memory_kib: int) -> dict[str, Any]:
    offered_kib = min(NODE_MEMORY_GIB * 1024 * 1024, machine_memory_kib * 3 // 8)
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / f"{node.name}-kubelet.crt"),
        "tlsPrivateKeyFile": str(layout.pki / f"{node.name}-kubelet.key"),
        "containerRuntimeEndpoint": f"unix://{layout.node(node)}/containerd.sock",
        "volumePluginDir": str(layout.node(node) / "plugins"),
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "protectKernelDefaults": True,
        "oomScoreAdj": 0,
        "failSwapOn": False,
        "clusterDomain": DOMAIN,
        "clusterDNS": [DNS_SERVICE_ADDRESS],
        "resolvConf": "",
        "imageGCHighThresholdPercent": 100,  # the image cannot be pulled again
        "evictionHard": {
            "memory.available": "200Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "systemReserved": {"memory": f"{machine_memory_kib - offered_kib - 200 * 1024}Ki"},
        "maxPods": 40,
        "nodeStatusUpdateFrequency": f"{NODE_WORD_S}s",
        "nodeLeaseDurationSeconds": 4 * NODE_WORD_S,
    }


def _proxy_configuration(layout: Layout, node: Node) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(layout.kubeconfig("proxy"))},
        "hostnameOverride": node.name,
        "clusterCIDR": POD_CIDR,
        "bindAddress": node.address,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        # The machine's own setting cannot be written from a network namespace, nor shall it be.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _kubernetes(layout: Layout, name: str, options: Mapping[str, Any]) -> Service:
    arguments = (f"--{option}={value}" for option, value in options.items())
    return _on_fabric(name, (str(programs(layout.cache) / name), *arguments))


def _on_fabric(name: str, command: tuple[str, ...]) -> Service:
    return Service(name, ("nsenter", f"--net=/run/netns/{FABRIC}", *command), stop_s=0)


def _on_node(node: Node, held_by: ProcessMark, name: str, command: tuple[str, ...]) -> Service:
    spaces = (f"--net=/run/netns/{node.namespace}", f"--mount=/proc/{held_by.pid}/ns/mnt")
    return Service(f"{node.name}-{name}", ("nsenter", *spaces, *command), stop_s=0)
