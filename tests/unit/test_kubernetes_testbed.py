"""What can be said of the Kubernetes testbed without root, its packages and its programs."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import struct
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from dhctl.infra.processes import ProcessMark
from testbeds.errors import TestbedError
from testbeds.faults import Cut
from testbeds.kubernetes import (
    cluster,
    fault_proxy,
    image,
    kernel,
    layout,
    pki,
    pods,
    policies,
    programs,
    project,
    provisioner,
    services,
)
from testbeds.kubernetes.fault_proxy import FaultProxy, Refusal, api_fault
from testbeds.kubernetes.layout import CACHE_ENV, NODES, STATE_ENV, Layout
from testbeds.kubernetes.testbed import Testbed
from testbeds.sharing import held


@pytest.fixture
def place(tmp_path: Path) -> Layout:
    place = Layout(tmp_path / "state", tmp_path / "cache")
    place.state.mkdir()
    pki.make_pki(place)
    services.write_configuration(place, NODES, 24 * 1024 * 1024)
    return place


@pytest.fixture
def testbed(place: Layout) -> Testbed:
    return Testbed(place, lambda _: None)


def test_folders_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(STATE_ENV, str(tmp_path / "s"))
    monkeypatch.setenv(CACHE_ENV, str(tmp_path / "c"))
    assert Layout.of_environment() == Layout(tmp_path / "s", tmp_path / "c")


def test_nodes_have_names_addresses_and_pods_of_their_own() -> None:
    for name in ("name", "namespace", "address", "pod_cidr", "fabric_link"):
        assert len({getattr(node, name) for node in NODES}) == len(NODES)
    assert len(layout.MACHINE_LINK) < 16  # the kernel's limit


@pytest.mark.parametrize("name", ["k8stb-fabric", "k8stb-node1", "k8stb-node12"])
def test_own_namespaces_are_known(name: str) -> None:
    assert kernel._NAMESPACE.fullmatch(name)


@pytest.mark.parametrize("name", ["qrouter-35b5da8c", "cni-0cb011ef", "ostb-9b10c29d", "k8stb", "my-k8stb-node1"])
def test_namespaces_of_others_are_not_ours(name: str) -> None:
    assert not kernel._NAMESPACE.fullmatch(name)


@pytest.mark.parametrize("name", ["ostb-ex", "docker0", "br0", "cni0", "eth0", "k8stb0", "veth1"])
def test_links_of_others_are_not_ours(name: str) -> None:
    assert not kernel._LINK.fullmatch(name)


def test_all_listen_on_loopback_or_the_fabric(place: Layout, testbed: Testbed) -> None:
    text = "\n".join(path.read_text() for path in place.state.rglob("*.yaml"))
    text += (place.state / "Corefile").read_text()
    commands = [services.etcd(place), services.api_server(place), *services.control_plane(place)]
    text += "\n".join(" ".join(service.command) for service in commands)
    assert "0.0.0.0:" not in text
    found = set(re.findall(r"(?:bind-address=|bindAddress: |address: |bind |-urls http://)([\d.]+)", text))
    assert found == {"127.0.0.1", layout.API_ADDRESS, *(node.address for node in NODES)}


def test_a_node_offers_what_the_machine_has(place: Layout) -> None:
    big = yaml.safe_load((place.node(NODES[0]) / "kubelet.yaml").read_text())["systemReserved"]["memory"]
    small = services._kubelet_configuration(place, NODES[0], 4 * 1024 * 1024)["systemReserved"]["memory"]
    offered = [total * 1024 * 1024 - int(kib.removesuffix("Ki")) for total, kib in ((24, big), (4, small))]
    assert offered[0] == 8 * 1024 * 1024 + 200 * 1024
    assert 2 * offered[1] < 4 * 1024 * 1024  # both nodes together


def test_machine_settings_are_seen_changed_only_in_the_node(place: Layout) -> None:
    script = (place.node(NODES[0]) / "enter.sh").read_text()
    assert "sysctl" not in script.replace("/sysctls/", "")
    assert not re.search(r">\s*/proc", script)
    for path, value in services.SYSCTLS.items():
        assert f"mount --bind {place.node(NODES[0])}/sysctls/{path} /proc/sys/{path}\n" in script
        assert (place.node(NODES[0]) / "sysctls" / path).read_text().strip() == value


def test_programs_of_a_node_enter_both_its_namespaces(place: Layout, testbed: Testbed) -> None:
    me = ProcessMark.me()
    for make in (services.containerd, services.kubelet, services.kube_proxy):
        command = make(place, NODES[1], me).command
        assert command[:3] == ("nsenter", "--net=/run/netns/k8stb-node2", f"--mount=/proc/{me.pid}/ns/mnt")


def test_a_service_that_a_test_holds_down_is_no_reason_to_start_anew(testbed: Testbed, place: Layout) -> None:
    place.ready_file.touch()
    gone = {"pid": 1, "ticks": -1, "boot": "an earlier one"}
    testbed.services.file.write_text(json.dumps({"me": ProcessMark.me().to_dict(), "kube-apiserver": gone}))
    assert not testbed.is_up()
    with held(place.held_down("kube-apiserver")):
        assert testbed.is_up()
    assert not testbed.is_up()


class TestPki:
    def test_every_certificate_is_the_authoritys(self, place: Layout) -> None:
        authority = x509.load_pem_x509_certificate((place.pki / "ca.crt").read_bytes())
        names = {*pki.USERS, *pki.SERVERS}
        for name in names:
            x509.load_pem_x509_certificate((place.pki / f"{name}.crt").read_bytes()).verify_directly_issued_by(
                authority
            )
            assert (place.pki / f"{name}.key").stat().st_mode & 0o077 == 0

    def test_the_tenant_is_in_no_group_with_rights(self, place: Layout) -> None:
        subject = x509.load_pem_x509_certificate((place.pki / "tenant.crt").read_bytes()).subject
        assert subject.rfc4514_string() == "CN=tenant,O=tenants"

    def test_a_kubeconfig_needs_no_other_file(self, place: Layout) -> None:
        body = json.loads(place.tenant_kubeconfig.read_text())
        assert place.tenant_kubeconfig.stat().st_mode & 0o077 == 0
        assert body["clusters"][0]["cluster"]["server"] == "https://10.250.0.1:6443"
        key = base64.b64decode(body["users"][0]["user"]["client-key-data"])
        assert key == (place.pki / "tenant.key").read_bytes()
        assert str(place.state) not in place.tenant_kubeconfig.read_text()


class TestPrograms:
    GO_MOD = """
require (
    k8s.io/api v0.0.0
    k8s.io/klog/v2 v2.130.1
    k8s.io/kube-openapi v0.0.0-20250701173324-9bd5c66d9911
    k8s.io/apimachinery v0.0.0 // indirect
)
replace (
    k8s.io/api => ./staging/src/k8s.io/api
    k8s.io/kubelet => ./staging/src/k8s.io/kubelet
)
"""

    def test_libraries_that_are_folders_are_replaced_by_their_releases(self) -> None:
        patch = programs.KUBERNETES.removeprefix("1.")
        assert programs.replacements(self.GO_MOD) == [
            f"k8s.io/{name}=k8s.io/{name}@v0.{patch}" for name in ("api", "apimachinery", "kubelet")
        ]

    def test_every_link_is_a_case_of_the_program(self) -> None:
        source = (programs.SOURCES / "kubernetes" / "main.go").read_text()
        assert sorted(re.findall(r'case "(.*)":', source)) == sorted(programs.LINKS)

    def test_the_corefile_asks_for_no_plugin_that_is_not_built_in(self, place: Layout) -> None:
        source = (programs.SOURCES / "coredns" / "main.go").read_text()
        corefile = (place.state / "Corefile").read_text()
        assert set(re.findall(r"^ (\w+)", corefile, re.MULTILINE)) == set(re.findall(r'plugin/(\w+)"', source))

    def test_another_source_is_another_stamp(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        before = programs.stamp()
        (tmp_path / "main.go").write_text("package main")
        monkeypatch.setattr(programs, "SOURCES", tmp_path)
        assert programs.stamp() != before

    def test_what_is_there_is_not_built_again(self, tmp_path: Path) -> None:
        programs.programs(tmp_path).mkdir()
        assert not programs.build(tmp_path, lambda _: None)
        image.store(tmp_path).mkdir()
        assert not image.make_store(tmp_path, lambda _: None)

    def test_only_the_newest_builds_are_kept(self, tmp_path: Path) -> None:
        for age in range(5):
            (tmp_path / f"programs-{age}").mkdir()
            os.utime(tmp_path / f"programs-{age}", (1000 - age, 1000 - age))
        (tmp_path / "images-1").mkdir()
        programs.remove_old(tmp_path, "programs-*")
        left = sorted(path.name for path in tmp_path.iterdir())
        assert left == ["images-1", "programs-0", "programs-1", "programs-2"]


class TestImage:
    def test_an_archive_is_what_oci_says(self, tmp_path: Path) -> None:
        root = tmp_path / "root"
        (root / "bin").mkdir(parents=True)
        (root / "bin" / "pause").write_text("x")
        out = tmp_path / "out.tar"
        image.write_archive(root, "localhost/p:1", out, {"Entrypoint": ["/bin/pause"]})
        with tarfile.open(out) as archive:
            blobs = {name: _body(archive, name) for name in archive.getnames()}
        for name, body in blobs.items():
            if name.startswith("blobs/"):
                assert name == f"blobs/sha256/{hashlib.sha256(body).hexdigest()}"
        [entry] = json.loads(blobs["index.json"])["manifests"]
        assert entry["annotations"]["io.containerd.image.name"] == "localhost/p:1"
        manifest = json.loads(blobs[_path(entry["digest"])])
        config = json.loads(blobs[_path(manifest["config"]["digest"])])
        [layer] = manifest["layers"]
        assert config["rootfs"]["diff_ids"] == [layer["digest"]]
        assert layer["size"] == len(blobs[_path(layer["digest"])])
        assert [path.name for path in tmp_path.iterdir() if path.suffix == ".layer"] == []

    def test_nodes_share_the_stores_files_but_not_its_databases(self, tmp_path: Path) -> None:
        there = image.store(tmp_path)
        (there / "deep").mkdir(parents=True)
        (there / "deep" / "blob").write_text("same")
        (there / "deep" / "link").symlink_to("nowhere")
        (there / "meta.db").write_text("own")
        image.link_store(tmp_path, tmp_path / "node")
        assert (tmp_path / "node" / "deep" / "blob").samefile(there / "deep" / "blob")
        assert (tmp_path / "node" / "deep" / "link").is_symlink()
        (tmp_path / "node" / "meta.db").write_text("changed")
        assert (there / "meta.db").read_text() == "own"


def _body(archive: tarfile.TarFile, name: str) -> bytes:
    found = archive.extractfile(name)
    assert found
    return found.read()


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


class TestProject:
    def test_the_interpreter_and_the_checkout_are_in_the_folders(self) -> None:
        folders = project.folders()
        for wanted in (Path(project.PYTHON), Path(project.PYTHON).resolve(), Path(sys.base_prefix), Path(__file__)):
            assert any(wanted.is_relative_to(folder) for folder in folders), wanted

    def test_no_folder_lies_in_another(self) -> None:
        folders = project.folders()
        assert not [one for one in folders for other in folders if one != other and one.is_relative_to(other)]

    def test_mounts_are_read_only_and_at_their_own_paths(self) -> None:
        volumes, mounts, env = project.project_volumes()
        assert [volume["hostPath"]["path"] for volume in volumes] == [mount["mountPath"] for mount in mounts]
        assert all(mount["readOnly"] for mount in mounts)
        assert {one["name"] for one in env} == {"PATH", "PYTHONDONTWRITEBYTECODE"}

    def test_a_strict_pod_without_the_project_satisfies_restricted(self) -> None:
        spec = pods.strict_pod("p", ("true",))["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume]


class TestProvisioner:
    CLASSES = (
        {"metadata": {"name": "now"}, "provisioner": "dhctl-testbed/folder", "volumeBindingMode": "Immediate"},
        {
            "metadata": {"name": "late"},
            "provisioner": "dhctl-testbed/folder",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
        {"metadata": {"name": "theirs"}, "provisioner": "somebody/else", "volumeBindingMode": "Immediate"},
    )

    @staticmethod
    def claim(kind: str, **annotations: str) -> dict[str, Any]:
        meta = {"uid": "u1", "name": "data", "namespace": "ns", "annotations": annotations}
        spec = {"storageClassName": kind, "accessModes": ["ReadWriteOnce"]}
        return {"metadata": meta, "spec": {**spec, "resources": {"requests": {"storage": "1Gi"}}}}

    def made(self, *claims: dict[str, Any], volumes: tuple[dict[str, Any], ...] = ()) -> list[dict[str, Any]]:
        classes = [{**one, "reclaimPolicy": "Delete"} for one in self.CLASSES]
        return list(provisioner.to_make(claims, volumes, classes, Path("/folder")))

    def test_a_claim_that_does_not_wait_gets_its_volume_once(self) -> None:
        [volume] = self.made(self.claim("now"))
        assert volume["spec"]["hostPath"]["path"] == "/folder/pvc-u1"
        assert volume["spec"]["claimRef"]["uid"] == "u1"
        assert self.made(self.claim("now"), volumes=(volume,)) == []

    def test_a_claim_that_waits_gets_its_volume_when_a_node_is_chosen(self) -> None:
        assert self.made(self.claim("late")) == []
        assert self.made(self.claim("late", **{"volume.kubernetes.io/selected-node": "node1"}))

    def test_claims_of_other_classes_are_left_alone(self) -> None:
        assert self.made(self.claim("theirs"), self.claim("")) == []

    def test_only_own_volumes_that_are_released_and_to_go_are_removed(self) -> None:
        [volume] = self.made(self.claim("now"))
        released = {**volume, "status": {"phase": "Released"}}
        kept = {**released, "spec": {**volume["spec"], "persistentVolumeReclaimPolicy": "Retain"}}
        foreign = {**released, "metadata": {"name": "pv"}}
        bound = {**volume, "status": {"phase": "Bound"}}
        assert list(provisioner.to_remove([released, kept, foreign, bound])) == ["pvc-u1"]


class TestPolicies:
    @staticmethod
    def pod(address: str, namespace: str = "ns", **labels: str) -> dict[str, Any]:
        return {"metadata": {"namespace": namespace, "labels": labels}, "spec": {}, "status": {"podIP": address}}

    @staticmethod
    def policy(*ingress: dict[str, Any], **spec: Any) -> dict[str, Any]:
        selector = {"matchLabels": {"run": "a"}}
        meta = {"namespace": "ns", "name": "p"}
        return {"metadata": meta, "spec": {"podSelector": selector, "ingress": list(ingress), **spec}}

    def test_only_those_that_the_policy_names_pass(self) -> None:
        there = [self.pod("10.1", run="a"), self.pod("10.2", run="b"), self.pod("10.3", "other", run="a")]
        own = {"from": [{"podSelector": {"matchLabels": {"run": "a"}}}]}
        established, *found = policies.rules([self.policy(own)], there)
        assert "ESTABLISHED" in established
        assert found == [
            f"-A {policies.CHAIN} -s 10.1/32 -d 10.1/32 -j RETURN",
            f"-A {policies.CHAIN} -d 10.1/32 -j DROP",
        ]

    def test_an_entry_without_peers_lets_all_in(self) -> None:
        _, passed, _ = policies.rules([self.policy({})], [self.pod("10.1", run="a")])
        assert passed == f"-A {policies.CHAIN} -d 10.1/32 -j RETURN"

    def test_what_it_does_not_know_it_refuses(self) -> None:
        unknown = [
            self.policy(policyTypes=["Egress"]),
            self.policy(podSelector={"matchExpressions": []}),
            self.policy({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}),
        ]
        for one in unknown:
            with pytest.raises(TestbedError, match="not known here"):
                policies.rules([one], [self.pod("10.1", run="a")])


class TestDns:
    def test_addresses_are_read_behind_pointers_and_other_records(self) -> None:
        alias = b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 5, 2) + b"\xc0\x0c"
        address = b"\x01a\x00" + struct.pack("!HHIH", 1, 1, 5, 4) + socket.inet_aton("10.96.0.1")
        body = struct.pack("!6H", 7, 0x8180, 1, 2, 0, 0) + b"\x01a\x00\x00\x01\x00\x01" + alias + address
        assert cluster._addresses(body, 7, 12 + 7) == ["10.96.0.1"]

    def test_an_answer_to_another_question_is_none(self) -> None:
        assert cluster._addresses(struct.pack("!6H", 8, 0x8180, 1, 0, 0, 0), 7, 12) == []


class TestObstacles:
    def test_without_root_it_says_so(self, testbed: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        assert "run the tests as root" in testbed.obstacle()

    def test_without_packages_it_names_them(self, testbed: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.geteuid", lambda: 0)
        monkeypatch.setattr("testbeds.apt.missing", lambda packages: ["containerd"])
        assert testbed.obstacle() == "packages are missing (containerd); install them: make k8s-testbed-install"

    def test_without_builds_it_names_them(
        self, testbed: Testbed, place: Layout, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.geteuid", lambda: 0)
        monkeypatch.setattr("testbeds.apt.missing", lambda packages: [])
        programs.programs(place.cache).mkdir(parents=True)
        assert testbed.obstacle() == f"not built yet: {image.store(place.cache)}; build: make k8s-testbed-install"
        image.store(place.cache).mkdir()
        assert testbed.obstacle() == ""

    def test_another_folders_testbed_is_left_alone(
        self, testbed: Testbed, place: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = Layout(tmp_path / "other", place.cache)
        other.kubeconfig("admin").mkdir(parents=True)
        monkeypatch.setattr("testbeds.kubernetes.testbed.states", lambda: {place.state: 1, other.state: 77})
        monkeypatch.setattr(kernel, "remove_remains", lambda: pytest.fail("removed a neighbour's namespaces"))
        with pytest.raises(TestbedError, match=rf"runs in {other.state} \(process 77, say\)"):
            testbed.down()

    @pytest.mark.parametrize("route", ["10.250.0.0/16", "10.250.0.7", "10.0.0.0/8"])
    def test_addresses_of_others_are_refused(self, route: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kernel, "_ip", lambda *_: json.dumps([{"dst": route, "dev": "vpn0"}]))
        with pytest.raises(TestbedError, match="by vpn0 overlaps"):
            kernel.refuse_others()

    def test_the_ways_out_of_the_machine_are_no_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        routes = [{"dst": "default", "dev": "eth0"}, {"dst": "172.24.4.0/24", "dev": "ostb-ex"}]
        monkeypatch.setattr(kernel, "_ip", lambda *_: json.dumps(routes))
        kernel.refuse_others()

    def test_a_mount_in_the_state_folder_is_never_emptied(
        self, testbed: Testbed, place: Layout, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kernel, "mounts_below", lambda folder: [f"{folder}/somewhere"])
        with pytest.raises(TestbedError, match="still mounted"):
            testbed._forget(keep=())
        assert place.tenant_kubeconfig.exists()


class Upstream(BaseHTTPRequestHandler):
    """Counts what it makes; `/watch` is told in two parts, and what asks for another protocol gets an echo."""

    protocol_version = "HTTP/1.1"
    made = 0
    go_on = threading.Event()

    def do_POST(self) -> None:
        type(self).made += 1
        self.send_response(201)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_GET(self) -> None:
        if "Upgrade" in self.headers:
            self.send_response(101)
            self.send_header("Upgrade", "echo")
            self.end_headers()
            self.wfile.write(self.connection.recv(100).upper())
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"first ")
            assert self.go_on.wait(10)
            self.wfile.write(b"second")
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def proxy(place: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    Upstream.made = 0
    Upstream.go_on.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(place.pki / "ca.crt"))
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(place.pki / "fault-proxy.crt", place.pki / "fault-proxy.key")
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    monkeypatch.setattr(fault_proxy, "API_ADDRESS", "127.0.0.1")
    monkeypatch.setattr(fault_proxy, "API_PORT", server.server_port)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
    try:
        with FaultProxy(place, tmp_path) as proxy:
            yield proxy
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def asked(place: Layout, proxy: FaultProxy) -> Iterator[http.client.HTTPSConnection]:
    """A connection to the proxy; each answer ends it, and the next request opens another."""
    url = json.loads(proxy.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    host, port = url.removeprefix("https://").split(":")
    tls = ssl.create_default_context(cafile=str(place.pki / "ca.crt"))
    connection = http.client.HTTPSConnection(host, int(port), timeout=10, context=tls)
    yield connection
    connection.close()


def _status(connection: http.client.HTTPSConnection, method: str, path: str) -> tuple[int, bytes]:
    connection.request(method, path, body=b"{}")
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_a_fault_speaks_as_the_api_server_does(proxy: FaultProxy, asked: http.client.HTTPSConnection) -> None:
    fault = proxy.expect(api_fault("POST", r"/pods$", Refusal(409, "Conflict")))
    assert _status(asked, "POST", "/api/v1/other")[0] == 201
    code, body = _status(asked, "POST", "/api/v1/pods")
    assert (code, json.loads(body)["reason"], json.loads(body)["kind"]) == (409, "Conflict", "Status")
    assert _status(asked, "POST", "/api/v1/pods")[0] == 201
    assert (fault.hits, Upstream.made) == (1, 2)
    assert [status for _, status in proxy.seen] == [201, 409, 201]


def test_a_cut_answer_is_made_and_never_heard(proxy: FaultProxy, asked: http.client.HTTPSConnection) -> None:
    proxy.expect(api_fault("POST", r"/pods$", Cut()))
    with pytest.raises((OSError, http.client.HTTPException)):
        _status(asked, "POST", "/api/v1/pods")
    assert Upstream.made == 1


def test_an_answer_passes_as_it_comes(asked: http.client.HTTPSConnection) -> None:
    asked.request("GET", "/watch")
    answer = asked.getresponse()
    assert answer.read(6) == b"first "
    Upstream.go_on.set()
    assert answer.read() == b"second"


def test_another_protocol_passes_both_ways(asked: http.client.HTTPSConnection) -> None:
    asked.connect()
    door = asked.sock
    door.sendall(b"GET /forward HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += door.recv(1)
    door.sendall(b"hello")
    assert head.startswith(b"HTTP/1.1 101")
    assert door.recv(100) == b"HELLO"
