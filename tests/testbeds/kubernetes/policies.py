"""Enforcing NetworkPolicies while a test wants it; otherwise this cluster has nobody who does, like many a real one.

It knows what dhctl's policies say: ingress, pods of the same namespace by their labels, all ports. Packets are judged
on the node of the pod that they are for, in its namespace's own firewall.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kubernetes import client

from testbeds.errors import TestbedError
from testbeds.kubernetes.cluster import NOT_YET
from testbeds.kubernetes.layout import NODES
from testbeds.services import PATH

CHAIN = "K8STB-POLICY"
EVERY_S = 0.2


@contextmanager
def policies_enforced(admin: client.ApiClient) -> Iterator[None]:
    """All NetworkPolicies of the cluster hold, those that come later too. They hold when the block begins."""
    ended = threading.Event()
    first = judge(admin)
    _apply(first)
    follower = threading.Thread(target=_follow, args=(admin, first, ended), daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()
        for node in NODES:
            _restore(node.namespace, [f":{CHAIN} - [0:0]"])


def judge(admin: client.ApiClient) -> list[str]:
    """The rules for all policies and pods as they are now."""
    plain = admin.sanitize_for_serialization
    policies = plain(client.NetworkingV1Api(admin).list_network_policy_for_all_namespaces().items)
    pods = plain(client.CoreV1Api(admin).list_pod_for_all_namespaces().items)
    return rules(policies, pods)


def rules(policies: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]]) -> list[str]:
    """Of iptables: first what may pass, then nothing to any pod that a policy selects.

    Raises TestbedError for a policy that says what is not known here.
    """
    there = [pod for pod in pods if pod.get("status", {}).get("podIP") and not pod["spec"].get("hostNetwork")]
    allowed, closed = [], []
    for policy in policies:
        namespace, spec = policy["metadata"]["namespace"], policy["spec"]
        if "Egress" in spec.get("policyTypes", ["Ingress"]):
            raise TestbedError(f"policy {policy['metadata']['name']} is about egress, which is not known here")
        for pod in _selected(there, namespace, spec["podSelector"]):
            target = pod["status"]["podIP"]
            closed.append(f"-A {CHAIN} -d {target}/32 -j DROP")
            for entry in spec.get("ingress") or ():
                sources = [_source(there, namespace, peer) for peer in entry.get("from") or ({},)]
                allowed += [f"-A {CHAIN} {source}-d {target}/32 -j RETURN" for some in sources for source in some]
    established = f"-A {CHAIN} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"
    return [established, *sorted(set(allowed)), *sorted(set(closed))]


def _source(pods: list[Mapping[str, Any]], namespace: str, peer: Mapping[str, Any]) -> list[str]:
    if not peer:
        return [""]
    if set(peer) != {"podSelector"}:
        raise TestbedError(f"a policy's peer {peer} is not known here")
    return [f"-s {pod['status']['podIP']}/32 " for pod in _selected(pods, namespace, peer["podSelector"])]


def _selected(pods: list[Mapping[str, Any]], namespace: str, selector: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if set(selector) - {"matchLabels"}:
        raise TestbedError(f"a policy's selector {selector} is not known here")
    wanted = (selector.get("matchLabels") or {}).items()
    own = (pod for pod in pods if pod["metadata"]["namespace"] == namespace)
    return [pod for pod in own if wanted <= (pod["metadata"].get("labels") or {}).items()]


def _follow(admin: client.ApiClient, known: list[str], ended: threading.Event) -> None:
    while not ended.wait(EVERY_S):
        try:
            now = judge(admin)
        except NOT_YET:  # the API server is away: what held goes on
            continue
        if now != known:
            _apply(now)
            known = now


def _apply(wanted: list[str]) -> None:
    for node in NODES:
        _restore(node.namespace, [f":{CHAIN} - [0:0]", *wanted])
        if _iptables(node.namespace, "-C", "FORWARD", "-j", CHAIN).returncode:
            _iptables(node.namespace, "-I", "FORWARD", "-j", CHAIN).check_returncode()


def _restore(namespace: str, lines: list[str]) -> None:
    """Replaces the chain's rules at one stroke."""
    text = "\n".join(("*filter", *lines, "COMMIT", ""))
    done = _inside(namespace, "iptables-restore", "--wait", "--noflush", given=text)
    if done.returncode:
        raise TestbedError(f"iptables-restore failed in {namespace}: {done.stderr.strip()}")


def _iptables(namespace: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return _inside(namespace, "iptables", "-w", *arguments)


def _inside(namespace: str, *command: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ("nsenter", f"--net=/run/netns/{namespace}", *command),
        env={"PATH": PATH, "LC_ALL": "C"},
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
