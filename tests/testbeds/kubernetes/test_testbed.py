"""The testbed itself: that it is the cluster, and misbehaves in the ways, that other tests rely on."""

from __future__ import annotations

import errno
import json
import socket
import time

import psutil
import pytest
import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from testbeds.kubernetes import conditions, kernel, pods
from testbeds.kubernetes.checks import CONFIGMAPS, HTTP_SERVER, READ_PODS, allowed, until
from testbeds.kubernetes.cluster import STORAGE_CLASSES, resolve
from testbeds.kubernetes.fixtures import KubernetesCluster, MakeNamespace
from testbeds.kubernetes.layout import DOMAIN, MACHINE_ADDRESS, NODES, Node
from testbeds.kubernetes.leftovers import leftovers
from testbeds.kubernetes.policies import policies_enforced
from testbeds.kubernetes.project import PYTHON
from testbeds.kubernetes.testbed import Testbed
from testbeds.object_store import ObjectStore


def test_pods_of_two_nodes_find_each_other_by_name(
    admin: client.ApiClient, core: client.CoreV1Api, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    core.create_namespaced_pod(namespace, pods.strict_pod("server", HTTP_SERVER, NODES[0]))
    spec = {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8000}]}
    core.create_namespaced_service(namespace, {"metadata": {"name": "web"}, "spec": spec})
    core.create_namespaced_service(
        namespace, {"metadata": {"name": "head"}, "spec": {"selector": {"app": "server"}, "clusterIP": "None"}}
    )
    address = pods.wait_phase(admin, namespace, "server", "Running").status.pod_ip
    until(lambda: resolve(f"head.{namespace}.svc.{DOMAIN}") == [address], 30)
    script = (
        "import time, urllib.request\n"
        "for _ in range(60):\n"
        "    try:\n"
        "        print(urllib.request.urlopen('http://web/limits.conf', timeout=2).status)\n"
        "        break\n"
        "    except OSError as late:\n"
        "        print(late)\n"
        "        time.sleep(0.5)\n"
        "print(urllib.request.urlopen('http://head:8000/limits.conf', timeout=5).status)\n"
    )
    printed = pods.run(admin, namespace, pods.strict_pod("client", ("python", "-c", script), NODES[1]))
    assert printed.splitlines()[-2:] == ["200", "200"]


def test_pods_reach_the_s3_server_and_nothing_else_outside(
    admin: client.ApiClient, make_namespace: MakeNamespace, kubernetes_s3: ObjectStore
) -> None:
    others = [
        address.address
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family == socket.AF_INET and address.address != MACHINE_ADDRESS and name != "lo"
    ]
    script = (
        "import json, socket, sys, urllib.error, urllib.request\n"
        "def knock(address):\n"
        "    with socket.socket() as door:\n"
        "        door.settimeout(3)\n"
        "        return door.connect_ex((address, 80))\n"
        "try:\n"
        "    urllib.request.urlopen(sys.argv[1], timeout=10)\n"
        "except urllib.error.HTTPError as answer:\n"
        "    print(json.dumps([answer.code, [knock(other) for other in sys.argv[2:]]]))\n"
    )
    command = ("python", "-c", script, kubernetes_s3.endpoint_url, *others, "1.1.1.1")
    status, errors = json.loads(pods.run(admin, make_namespace(), pods.strict_pod("knock", command)))
    assert status == 403  # nobody is anybody there
    # The fabric says that there is no way, but not to everyone who asks within the same second: those wait in vain.
    assert set(errors) <= {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAGAIN}


def test_a_strict_pod_has_the_projects_python(admin: client.ApiClient, make_namespace: MakeNamespace) -> None:
    script = "import os, ray, kubernetes, dhctl.infra.mark; print(os.getuid(), ray.__version__)"
    printed = pods.run(admin, make_namespace(), pods.strict_pod("python", (PYTHON, "-c", script), project=True))
    assert printed.split()[0] == "1000"


@pytest.mark.thorough
def test_ray_of_two_pods_is_one_cluster(
    admin: client.ApiClient, core: client.CoreV1Api, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    start = (PYTHON, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", "--num-cpus=1")
    small = ("--object-store-memory=100000000", "--plasma-directory=/tmp")
    head = pods.strict_pod("head", (*start, "--head", "--include-dashboard=false", *small), NODES[0], project=True)
    core.create_namespaced_pod(namespace, head)
    address = pods.wait_phase(admin, namespace, "head", "Running").status.pod_ip
    worker = pods.strict_pod("worker", (*start, f"--address={address}:6379", *small), NODES[1], project=True)
    worker["spec"]["restartPolicy"] = "Always"  # the head may not listen yet
    core.create_namespaced_pod(namespace, worker)
    script = "import ray; ray.init('auto', log_to_driver=False); print('nodes', sum(n['Alive'] for n in ray.nodes()))"

    until(lambda: "nodes 2" in pods.execute(admin, namespace, "head", (PYTHON, "-c", script)), 120)


def test_policies_hold_only_while_they_are_enforced(
    admin: client.ApiClient, core: client.CoreV1Api, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    core.create_namespaced_pod(namespace, pods.strict_pod("server", HTTP_SERVER, NODES[0]))
    address = pods.wait_phase(admin, namespace, "server", "Running").status.pod_ip
    spec = {
        "podSelector": {"matchLabels": {"app": "server"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}],
    }
    client.NetworkingV1Api(admin).create_namespaced_network_policy(
        namespace, {"metadata": {"name": "friends"}, "spec": spec}
    )
    script = (
        "import socket, sys, time\n"
        "def knock():\n"
        "    with socket.socket() as door:\n"
        "        door.settimeout(1)\n"
        f"        return door.connect_ex(('{address}', 8000))\n"
        "tries = int(sys.argv[1])\n"
        "while (answer := knock()) and (tries := tries - 1):\n"
        "    time.sleep(0.3)\n"
        "print(answer)\n"
    )

    def knocks(name: str, label: str, node: Node) -> bool:
        tries = "10" if label == "friend" else "2"  # a friend is let in as soon as it is seen
        pod = pods.strict_pod(name, ("python", "-c", script, tries), node)
        pod["metadata"]["labels"]["app"] = label
        return pods.run(admin, namespace, pod) == "0\n"

    assert knocks("before", "stranger", NODES[1])
    with policies_enforced(admin):
        assert [knocks(f"friend-{node.name}", "friend", node) for node in NODES] == [True, True]
        assert [knocks(f"stranger-{node.name}", "stranger", node) for node in NODES] == [False, False]
    assert knocks("after", "stranger", NODES[1])


def test_restricted_namespaces_refuse_this_machines_folders(
    core: client.CoreV1Api, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace(level="restricted")
    with pytest.raises(ApiException, match="restricted volume type"):
        core.create_namespaced_pod(namespace, pods.strict_pod("mounts", ("true",), project=True))
    core.create_namespaced_pod(namespace, pods.strict_pod("plain", ("true",)))


def test_quota_can_be_lowered_for_a_while(
    admin: client.ApiClient, core: client.CoreV1Api, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace({"pods": "3", "requests.cpu": "2"})
    core.create_namespaced_pod(namespace, pods.strict_pod("first", ("sleep", "60")))
    with conditions.quota(admin, namespace, pods="1"), pytest.raises(ApiException, match="exceeded quota"):
        core.create_namespaced_pod(namespace, pods.strict_pod("second", ("sleep", "60")))
    core.create_namespaced_pod(namespace, pods.strict_pod("second", ("sleep", "60")))


def test_the_tenant_may_do_what_a_test_gave_and_nothing_else(
    kubernetes_cluster: KubernetesCluster, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    with kubernetes_cluster.tenant() as api:
        tenant = client.CoreV1Api(api)
        with pytest.raises(ApiException) as refused:
            tenant.list_namespaced_pod(namespace)
        assert refused.value.status == 403
        kubernetes_cluster.give_tenant(namespace, [READ_PODS])
        assert until(lambda: allowed(lambda: tenant.list_namespaced_pod(namespace)), 10)
        kubernetes_cluster.give_tenant(namespace, [CONFIGMAPS])
        until(lambda: not allowed(lambda: tenant.list_namespaced_pod(namespace)), 10)
        assert not allowed(tenant.list_node)


@pytest.mark.thorough
def test_a_node_whose_link_is_cut_is_lost_and_comes_back(admin: client.ApiClient) -> None:
    with conditions.link_cut(NODES[1]):
        conditions.wait_node(admin, NODES[1], ready=False)
    conditions.wait_node(admin, NODES[1], ready=True)


@pytest.mark.thorough
def test_a_killed_kubelet_starts_nothing_until_there_is_a_new_one(
    kubernetes_cluster: KubernetesCluster,
    admin: client.ApiClient,
    core: client.CoreV1Api,
    make_namespace: MakeNamespace,
) -> None:
    namespace = make_namespace()
    core.create_namespaced_pod(namespace, pods.strict_pod("before", ("sleep", "600"), NODES[1]))
    running = pods.wait_phase(admin, namespace, "before", "Running")
    processes = kernel.pods_processes()
    with conditions.kubelet_killed(kubernetes_cluster.layout, NODES[1]):
        core.create_namespaced_pod(namespace, pods.strict_pod("during", ("sleep", "600"), NODES[1]))
        time.sleep(5)
        assert core.read_namespaced_pod("during", namespace).status.phase == "Pending"
        assert all(mark.alive() for mark in processes)
    pods.wait_phase(admin, namespace, "during", "Running")
    again = core.read_namespaced_pod("before", namespace)
    assert again.status.container_statuses[0].container_id == running.status.container_statuses[0].container_id
    conditions.wait_node(admin, NODES[1], ready=True)


def test_an_api_server_that_is_gone_comes_back_with_everything(
    kubernetes_cluster: KubernetesCluster, core: client.CoreV1Api, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "kept"}})
    with conditions.api_server_down(kubernetes_cluster.layout), pytest.raises(urllib3.exceptions.HTTPError):
        core.read_namespaced_config_map("kept", namespace)
    core.read_namespaced_config_map("kept", namespace)
    assert Testbed(kubernetes_cluster.layout, lambda _: None).is_up()


@pytest.mark.parametrize("kind", STORAGE_CLASSES)
def test_a_claim_gets_a_volume_that_goes_with_it(
    admin: client.ApiClient, core: client.CoreV1Api, make_namespace: MakeNamespace, kind: str
) -> None:
    namespace = make_namespace()
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": kind}
    core.create_namespaced_persistent_volume_claim(namespace, {"metadata": {"name": "data"}, "spec": spec})

    def phase() -> str:
        found: str = core.read_namespaced_persistent_volume_claim("data", namespace).status.phase
        return found

    if kind == "testbed-immediate":
        until(lambda: phase() == "Bound", 20)
    for node, script in zip(
        NODES, ("open('/data/x', 'w').write('kept')", "print(open('/data/x').read())"), strict=True
    ):
        pod = pods.strict_pod(node.name, ("python", "-c", script), node)
        pod["spec"]["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "data"}})
        pod["spec"]["containers"][0]["volumeMounts"].append({"name": "data", "mountPath": "/data"})
        printed = pods.run(admin, namespace, pod)
    assert printed == "kept\n"
    volume = core.read_namespaced_persistent_volume_claim("data", namespace).spec.volume_name
    for node in NODES:
        conditions.delete_pod(admin, namespace, node.name)
    core.delete_namespaced_persistent_volume_claim("data", namespace)
    until(lambda: volume not in [item.metadata.name for item in core.list_persistent_volume().items], 30)


def test_a_pod_can_be_gone_at_once(
    admin: client.ApiClient, core: client.CoreV1Api, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    core.create_namespaced_pod(namespace, pods.strict_pod("victim", ("sleep", "600")))
    pods.wait_phase(admin, namespace, "victim", "Running")
    conditions.delete_pod(admin, namespace, "victim")
    assert not _names(core, namespace)


def _names(core: client.CoreV1Api, namespace: str) -> list[str]:
    return [pod.metadata.name for pod in core.list_namespaced_pod(namespace).items]


def test_leftovers_are_found_by_their_mark(
    admin: client.ApiClient, core: client.CoreV1Api, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    marked = {"name": "marked", "labels": {"dhctl/run": "dh-check"}}
    core.create_namespaced_config_map(namespace, {"metadata": marked})
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "foreign"}})
    assert leftovers(admin, "dhctl/run=dh-check") == [f"ConfigMap {namespace}/marked"]
    core.delete_namespaced_config_map("marked", namespace)
    assert leftovers(admin, "dhctl/run=dh-check") == []


def test_while_it_is_up_nothing_remains(kubernetes_cluster: KubernetesCluster) -> None:
    testbed = Testbed(kubernetes_cluster.layout, lambda _: None)
    assert testbed.remains() == []
    assert kernel.remains() != []
