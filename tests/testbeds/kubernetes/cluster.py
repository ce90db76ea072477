"""Clients of the cluster, what it needs before it is of use, and when it is."""

from __future__ import annotations

import secrets
import socket
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from testbeds.errors import TestbedError
from testbeds.kubernetes.layout import (
    API_ADDRESS,
    API_SERVICE_ADDRESS,
    DNS_SERVICE_ADDRESS,
    DOMAIN,
    NODES,
    Node,
)
from testbeds.kubernetes.provisioner import EXISTING, NAME

API_LIMIT_S = 120
READY_LIMIT_S = 240
STORAGE_CLASSES = {"testbed": "WaitForFirstConsumer", "testbed-immediate": "Immediate"}
EXISTING_CLASS = "testbed-existing"
NOT_YET = (ApiException, urllib3.exceptions.HTTPError, OSError)


def connect(kubeconfig: Path) -> client.ApiClient:
    """A client that reads nothing but the file, and tries everything once."""
    settings = client.Configuration()
    config.load_kube_config(config_file=str(kubeconfig), client_configuration=settings)
    settings.retries = False
    return client.ApiClient(settings)


def get(admin: client.ApiClient, path: str, query: Sequence[tuple[str, str]] = (), limit_s: float = 30) -> bytes:
    """The body of an answer of the API server. Raises ApiException for anything but 200."""
    request = admin.param_serialize("GET", path, query_params=list(query), header_params={"Accept": "*/*"})
    answer = admin.call_api(*request, _request_timeout=limit_s)
    body: bytes = answer.read() or b""
    if answer.status != 200:
        raise ApiException.from_response(http_resp=answer, body=body.decode(errors="replace"), data=None)
    return body


def wait_api(admin: client.ApiClient) -> None:
    """Until the API server says that it is ready. Raises TestbedError."""

    _wait(lambda: get(admin, "/readyz") == b"ok", API_LIMIT_S, "the API server is not ready", 0.1)


def make_dns_service(admin: client.ApiClient) -> None:
    """CoreDNS runs beside the control plane; pods know it by a service's address as everywhere."""
    meta = {"name": "kube-dns", "namespace": "kube-system"}
    ports = [{"name": name, "port": 53, "protocol": name.upper()} for name in ("udp", "tcp")]
    service = {"metadata": meta, "spec": {"clusterIP": DNS_SERVICE_ADDRESS, "ports": ports}}
    core = client.CoreV1Api(admin)
    core.create_namespaced_service("kube-system", service)
    endpoints = {
        "metadata": {**meta, "name": "kube-dns-fabric", "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [API_ADDRESS]}],
    }
    client.DiscoveryV1Api(admin).create_namespaced_endpoint_slice("kube-system", endpoints)


def make_storage_classes(admin: client.ApiClient) -> None:
    """`testbed`, the default one, makes a volume when a pod wants it; `testbed-immediate` does not wait for that.

    A volume of `testbed-existing` is the folder that its claim names (provisioner.py).
    """
    storage = client.StorageV1Api(admin)
    for name, mode in STORAGE_CLASSES.items():
        default = {"storageclass.kubernetes.io/is-default-class": "true"} if name == "testbed" else {}
        meta = {"name": name, "annotations": default}
        body = {"metadata": meta, "provisioner": NAME, "reclaimPolicy": "Delete", "volumeBindingMode": mode}
        storage.create_storage_class(body)
    body = {"metadata": {"name": EXISTING_CLASS}, "provisioner": EXISTING, "reclaimPolicy": "Delete"}
    storage.create_storage_class(body)


def wait_nodes(admin: client.ApiClient) -> None:
    """Until all nodes are Ready. Raises TestbedError."""
    _wait(lambda: all(node_ready(admin, node) for node in NODES), READY_LIMIT_S, "not all nodes are Ready", 0.2)


def wait_dns() -> None:
    """Until CoreDNS knows the API server's service. Raises TestbedError."""
    name = f"kubernetes.default.svc.{DOMAIN}"
    _wait(lambda: resolve(name) == [API_SERVICE_ADDRESS], READY_LIMIT_S, "CoreDNS does not answer", 0.2)


def wait_accounts(admin: client.ApiClient) -> None:
    """Until the controllers have given the namespace default its account: then they do so everywhere."""

    def there() -> bool:
        return bool(client.CoreV1Api(admin).read_namespaced_service_account("default", "default"))

    _wait(there, READY_LIMIT_S, "the controllers do nothing", 0.2)


def node_ready(admin: client.ApiClient, node: Node) -> bool:
    """Whether the node is there and Ready."""
    found = client.CoreV1Api(admin).list_node(field_selector=f"metadata.name={node.name}").items
    return any(one.type == "Ready" and one.status == "True" for item in found for one in item.status.conditions or ())


def resolve(name: str) -> list[str]:
    """IPv4 addresses of a name by the cluster's DNS server; empty where there are none or it does not answer."""
    number = secrets.randbelow(1 << 16)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = labels + b"\0" + struct.pack("!HH", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.settimeout(1)
        try:
            door.sendto(struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + question, (API_ADDRESS, 53))
            answer = door.recv(4096)
        except OSError:
            return []
    return _addresses(answer, number, 12 + len(question))


def _addresses(answer: bytes, number: int, at: int) -> list[str]:
    """The A records of an answer whose first record begins at `at`."""
    got, _, _, count, _, _ = struct.unpack("!6H", answer[:12])
    if got != number:
        return []
    found = []
    for _ in range(count):
        while answer[at] and answer[at] < 0xC0:  # a name is labels up to an empty one, or up to a pointer
            at += 1 + answer[at]
        at += 2 if answer[at] else 1
        kind, _, _, length = struct.unpack("!HHIH", answer[at : at + 10])
        data = answer[at + 10 : at + 10 + length]
        at += 10 + length
        if kind == 1:
            found.append(socket.inet_ntoa(data))
    return found


def _wait(done: Callable[[], Any], limit_s: float, trouble: str, every_s: float) -> None:
    end = time.monotonic() + limit_s
    last: Exception | None = None
    while time.monotonic() < end:
        try:
            if done():
                return
        except NOT_YET as late:
            last = late
        time.sleep(every_s)
    why = f" ({last})" if last else ""
    raise TestbedError(f"{trouble} after {limit_s:.0f} s{why}; look into its log")
