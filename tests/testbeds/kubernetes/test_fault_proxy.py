"""The fault proxy in front of the real API server, seen by a client that has its kubeconfig."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
import requests
import urllib3
from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException

from dhctl.infra.kubernetes.client import connect as dhctl_connect
from dhctl.infra.kubernetes.port_forward import open_forward
from dhctl.infra.kubernetes.section import KubernetesSection
from testbeds.faults import Cut, Hang
from testbeds.kubernetes import conditions, pods
from testbeds.kubernetes.checks import CONFIGMAPS, FORWARD, HTTP_SERVER, READ_PODS, allowed, until
from testbeds.kubernetes.cluster import connect
from testbeds.kubernetes.fault_proxy import FaultProxy, Refusal, api_fault
from testbeds.kubernetes.fixtures import KubernetesCluster, MakeNamespace


@pytest.fixture
def namespace(kubernetes_cluster: KubernetesCluster, make_namespace: MakeNamespace) -> str:
    name = make_namespace()
    kubernetes_cluster.give_tenant(name, [READ_PODS, FORWARD, CONFIGMAPS])
    with kubernetes_cluster.tenant() as api:
        until(lambda: allowed(lambda: client.CoreV1Api(api).list_namespaced_pod(name)), 10)
    return name


@pytest.fixture
def tenant(kubernetes_fault_proxy: FaultProxy, namespace: str) -> Iterator[client.CoreV1Api]:
    with connect(kubernetes_fault_proxy.kubeconfig) as api:
        yield client.CoreV1Api(api)


@pytest.mark.parametrize("code", [409, 429, 500])
def test_answers_in_the_api_servers_place(
    kubernetes_fault_proxy: FaultProxy, tenant: client.CoreV1Api, namespace: str, code: int
) -> None:
    refusal = Refusal(code, "AsTold", retry_after_s=1)
    fault = kubernetes_fault_proxy.expect(api_fault("POST", "/configmaps", refusal))
    with pytest.raises(ApiException) as refused:
        tenant.create_namespaced_config_map(namespace, {"metadata": {"name": "made"}})
    assert (refused.value.status, fault.hits) == (code, 1)
    assert refused.value.headers["Retry-After"] == "1"
    assert json.loads(refused.value.body)["reason"] == "AsTold"
    tenant.create_namespaced_config_map(namespace, {"metadata": {"name": "made"}})


def test_a_cut_answer_is_made_and_never_heard(
    kubernetes_fault_proxy: FaultProxy, tenant: client.CoreV1Api, namespace: str
) -> None:
    kubernetes_fault_proxy.expect(api_fault("POST", "/configmaps", Cut()))
    with pytest.raises(urllib3.exceptions.HTTPError):
        tenant.create_namespaced_config_map(namespace, {"metadata": {"name": "made"}})
    tenant.read_namespaced_config_map("made", namespace)


def test_a_hanging_answer_comes_late(
    kubernetes_fault_proxy: FaultProxy, tenant: client.CoreV1Api, namespace: str
) -> None:
    kubernetes_fault_proxy.expect(api_fault("GET", "/configmaps", Hang(2)))
    with pytest.raises(urllib3.exceptions.HTTPError):
        tenant.list_namespaced_config_map(namespace, _request_timeout=1)
    tenant.list_namespaced_config_map(namespace)


def test_watches_pass_as_they_come(tenant: client.CoreV1Api, core: client.CoreV1Api, namespace: str) -> None:
    def make() -> None:
        core.create_namespaced_pod(namespace, pods.strict_pod("seen", ("true",)))

    maker = threading.Timer(1, make)
    maker.start()
    try:
        for event in watch.Watch().stream(tenant.list_namespaced_pod, namespace, timeout_seconds=30):
            assert event["object"].metadata.name == "seen"
            break
        else:
            pytest.fail("the watch said nothing")
    finally:
        maker.join()


def test_port_forwards_pass(
    kubernetes_fault_proxy: FaultProxy,
    core: client.CoreV1Api,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core.create_namespaced_pod(namespace, pods.strict_pod("server", HTTP_SERVER))
    pods.wait_phase(core.api_client, namespace, "server", "Running")
    monkeypatch.setenv("KUBECONFIG", str(kubernetes_fault_proxy.kubeconfig))
    cluster = dhctl_connect(KubernetesSection())
    with cluster.api, open_forward(cluster, namespace, "server", {"web": 8000}) as local:

        def asked() -> int:
            try:
                return requests.get(f"http://127.0.0.1:{local['web']}/limits.conf", timeout=10).status_code
            except requests.ConnectionError:  # the server is not there yet
                return 0

        assert until(asked, 20) == 200
    assert any("/portforward" in request.path for request, _ in kubernetes_fault_proxy.seen)


def test_without_an_api_server_it_says_so(
    kubernetes_cluster: KubernetesCluster, tenant: client.CoreV1Api, namespace: str
) -> None:
    with conditions.api_server_down(kubernetes_cluster.layout), pytest.raises(ApiException) as none:
        tenant.list_namespaced_config_map(namespace)
    assert none.value.status == 502
