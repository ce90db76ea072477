"""What can be said of the OpenStack testbed without root and without its packages."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import requests

from dhctl.infra.processes import ProcessMark, wait_until
from testbeds import sharing
from testbeds.errors import TestbedError
from testbeds.faults import Cut, Fault, Status
from testbeds.object_store import object_store
from testbeds.openstack import remains, services
from testbeds.openstack.configuration import TEMPLATES, write_configuration
from testbeds.openstack.fault_proxy import FaultProxy
from testbeds.openstack.layout import ENDPOINTS, EXTERNAL_ADDRESS, LOOPBACK, STATE_ENV, Layout
from testbeds.openstack.testbed import Testbed
from testbeds.services import MARK_ENV, Service, Services


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setattr("shutil.chown", lambda *_, **__: None)  # there may be no user mysql
    layout = Layout(tmp_path / "state")
    write_configuration(layout)
    return layout


def test_every_template_is_filled_in(layout: Layout) -> None:
    written = [path for path in layout.state.rglob("*") if path.is_file()]
    assert len(written) == len(list(TEMPLATES.iterdir())) + 2  # and two policies
    for path in written:
        assert "$" not in path.read_text(), path


def test_every_service_enforces_access_rules_and_forgets_tokens_quickly(layout: Layout) -> None:
    types = {}
    for path in layout.etc.rglob("*.conf"):
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.read_string(path.read_text())
        if parser.has_section("keystone_authtoken"):
            types[path.name] = parser["keystone_authtoken"]["service_type"]
            assert int(parser["keystone_authtoken"]["token_cache_time"]) <= 2
    assert types == {
        "nova.conf": "compute",
        "neutron.conf": "network",
        "glance-api.conf": "image",
        "placement.conf": "placement",
    }


def test_all_listen_on_loopback_or_the_testbeds_own_bridge(layout: Layout) -> None:
    text = "\n".join(path.read_text() for path in layout.etc.rglob("*") if path.is_file())
    commands = [*services.backends(layout), services.identity(layout), *services.apis(layout), *services.agents(layout)]
    text += "\n".join(" ".join(service.command) for service in commands)
    assert "0.0.0.0" not in text
    assert set(re.findall(r"(?:bind_host|listen|metadata_listen) = (\S+)", text)) <= {LOOPBACK, EXTERNAL_ADDRESS}


@pytest.mark.parametrize("name", ["qdhcp-0cb011ef-685d", "qrouter-35b5da8c", "ostb-9b10c29d"])
def test_own_namespaces_are_known(name: str) -> None:
    assert remains._NAMESPACE.fullmatch(name)


@pytest.mark.parametrize("name", ["cni-0cb011ef", "my-qrouter-1", "ostb", "snat-1"])
def test_namespaces_of_others_are_not_ours(name: str) -> None:
    assert not remains._NAMESPACE.fullmatch(name)


@pytest.mark.parametrize("name", ["docker0", "br0", "tap0", "tapestry", "brq", "virbr0", "eth0"])
def test_links_of_others_are_not_ours(name: str) -> None:
    assert not remains._LINK.fullmatch(name)


def test_a_rule_with_a_comment_is_one_argument() -> None:
    assert remains._words('INPUT -m comment --comment "a b" -j neutron-x') == [
        *("INPUT", "-m", "comment", "--comment", "a b", "-j", "neutron-x")
    ]


@pytest.fixture
def sleeper(layout: Layout) -> Iterator[tuple[Services, Service, ProcessMark]]:
    """A service whose child has left its session, as dnsmasq does."""
    script = "import subprocess, time; subprocess.Popen(['sleep', '60'], start_new_session=True); time.sleep(60)"
    service = Service("sleeper", (sys.executable, "-c", script), stop_s=5)
    running = services.services_of(layout)
    running.start(service)
    mark = running.marks()["sleeper"]
    yield running, service, mark
    running.stop([service])
    running.stop_strays()


def test_stops_a_service_and_what_strayed_from_it(sleeper: tuple[Services, Service, ProcessMark]) -> None:
    running, service, mark = sleeper
    assert wait_until(lambda: len(running.strays()) == 2, 10)
    assert running.stop([service]) == []
    assert not mark.alive()
    [stray] = running.strays()
    assert running.stop_strays() == []
    assert not stray.alive()


def test_a_number_that_is_another_process_now_is_left_alone(layout: Layout) -> None:
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        mark = ProcessMark.of(bystander.pid)
        assert mark
        services.services_of(layout).file.write_text(json.dumps({"old": {**mark.to_dict(), "ticks": mark.ticks - 1}}))
        assert services.services_of(layout).stop([Service("old", ("sleep",))]) == []
        assert mark.alive()
    finally:
        bystander.kill()
        bystander.wait(10)


def test_a_service_that_ends_early_is_told_with_its_log(layout: Layout) -> None:
    running = services.services_of(layout)
    service = Service(
        "broken", (sys.executable, "-c", "import time; print('no such option', flush=True); time.sleep(0.5)"), (1,)
    )
    running.start(service)
    with pytest.raises(TestbedError, match=r"broken ended:\nno such option"):
        running.wait_open([service])
    running.stop([service])


def test_the_caller_is_never_a_stray(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STATE_ENV, str(layout.state))
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        assert services.services_of(layout).strays() == []
        assert MARK_ENV != STATE_ENV
    finally:
        bystander.kill()
        bystander.wait(10)


def test_ports_of_others_are_refused_before_anything_is_removed(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Testbed, "obstacle", lambda self: "")
    monkeypatch.setattr(
        "testbeds.openstack.testbed.remove_remains", lambda layout: pytest.fail("removed a neighbour's networks")
    )
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    try:
        taken = Service("keystone", ("true",), (server.server_port,))
        monkeypatch.setattr(services, "identity", lambda layout: taken)
        monkeypatch.setattr(services, "backends", lambda layout: [])
        monkeypatch.setattr(services, "apis", lambda layout: [])
        with pytest.raises(TestbedError, match=r"where keystone would; stop it"):
            Testbed(layout, lambda _: None).up()
        assert layout.clouds_yaml.exists(), "the state of another testbed was removed"
    finally:
        server.server_close()


def test_without_root_it_says_so(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "run the tests as root" in Testbed(layout, lambda _: None).obstacle()


def test_without_packages_it_names_them(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("testbeds.apt.missing", lambda packages: ["keystone"])
    assert (
        Testbed(layout, lambda _: None).obstacle()
        == "packages are missing (keystone); install them: make testbed-install"
    )


def test_tests_are_skipped_with_a_sentence_but_fail_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs root"):
        sharing.skip("needs root")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="never skipped"):
        sharing.skip("needs root")


class Upstream(BaseHTTPRequestHandler):
    """Counts what it makes."""

    made = 0

    def do_POST(self) -> None:
        type(self).made += 1
        self.send_response(201)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def proxy(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    Upstream.made = 0
    server = HTTPServer(("127.0.0.1", 0), Upstream)
    monkeypatch.setitem(ENDPOINTS, "compute", f"http://127.0.0.1:{server.server_port}/v2.1")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
    try:
        with FaultProxy(layout, tmp_path, ("compute",)) as proxy:
            yield proxy
    finally:
        server.shutdown()
        server.server_close()


def test_a_fault_takes_as_many_requests_as_told_and_only_those_that_match(proxy: FaultProxy) -> None:
    fault = proxy.expect(Fault("compute", "POST", r"/servers$", Status(503), times=2))
    url = proxy.url("compute")
    answers = [
        requests.post(f"{url}{path}", timeout=10).status_code for path in ("/x", "/servers", "/servers", "/servers")
    ]
    assert answers == [201, 503, 503, 201]
    assert fault.hits == 2
    assert Upstream.made == 2
    assert [status for _, status in proxy.seen] == answers


def test_a_cut_answer_is_made_and_never_heard(proxy: FaultProxy) -> None:
    proxy.expect(Fault("compute", "POST", r"/servers$", Cut()))
    with pytest.raises(requests.ConnectionError):
        requests.post(f"{proxy.url('compute')}/servers", timeout=10)
    assert Upstream.made == 1


@pytest.mark.e2e
def test_object_store_keeps_objects_and_leaves_nothing(tmp_path: Path) -> None:
    sockets = set(Path("/tmp").glob("seaweedfs-*.sock"))
    with object_store(tmp_path) as store:
        bucket = store.make_bucket("farm").removeprefix("s3://")
        store.client().put_object(Bucket=bucket, Key="a/b", Body=b"12345")
        assert store.objects(bucket, "a/") == {"a/b": 5}
        with pytest.raises(store.client().exceptions.ClientError):
            store.client().put_object(Bucket=bucket, Key="a/b", Body=b"2", IfNoneMatch="*")
    with pytest.raises(requests.ConnectionError):
        requests.get(store.endpoint_url, timeout=5)
    assert set(Path("/tmp").glob("seaweedfs-*.sock")) == sockets
