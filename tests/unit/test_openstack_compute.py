"""The calls that nodes make to nova: what is sent, what is taken for the run's, what is raised."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import requests
from keystoneauth1 import exceptions as auth_errors
from openstack.connection import Connection

from dhctl.infra.openstack.node.compute import NovaCompute, connect
from dhctl.infra.openstack.node.layout import ServerFolder
from dhctl.infra.openstack.node.rights import ACCESS_RULES
from dhctl.infra.openstack.node.servers import ComputeError
from unit.node_fakes import RUN_ID

OURS = {"dhctl_run": RUN_ID, "dhctl_role": "worker", "dhctl_node": f"{RUN_ID}-w-1", "dhctl_launch": "r"}


def server(number: int, metadata: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    fixed = {"addr": f"10.77.0.{number}", "version": 4, "OS-EXT-IPS:type": "fixed"}
    floating = {"addr": "172.24.4.9", "version": 4, "OS-EXT-IPS:type": "floating"}
    return {
        "id": f"id-{number}",
        "name": f"{RUN_ID}-w-{number}",
        "status": "ACTIVE",
        "created": "2026-01-02T03:04:05Z",
        "metadata": OURS if metadata is None else metadata,
        "addresses": {"net": [floating, fixed]},
        **changes,
    }


class Nova:
    """Stands in for `connection.compute`: prepared answers, and what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.answers: list[tuple[int, Any] | Exception] = []

    @property
    def compute(self) -> Nova:
        return self

    def request(self, path: str, method: str, **options: Any) -> requests.Response:
        self.asked.append((method, path, json.loads(json.dumps(options))))
        prepared = self.answers.pop(0)
        if isinstance(prepared, Exception):
            raise prepared
        made = requests.Response()
        made.status_code, body = prepared
        made._content = json.dumps(body).encode() if body is not None else b""
        made.headers["Content-Type"] = "application/json"
        made.url = f"http://nova{path}"
        return made


@pytest.fixture
def nova() -> Nova:
    return Nova()


@pytest.fixture
def compute(nova: Nova) -> NovaCompute:
    return NovaCompute(nova, RUN_ID)  # type: ignore[arg-type]


def test_only_what_carries_the_mark_is_the_runs(nova: Nova, compute: NovaCompute) -> None:
    foreign = server(2, {})
    other_run = server(3, {**OURS, "dhctl_run": "dh-zzzzzzzzzz"})
    nova.answers = [(200, {"servers": [server(1), foreign, other_run]})]
    (found,) = compute.servers()
    assert (found.id, found.name, found.role, found.address) == ("id-1", f"{RUN_ID}-w-1", "worker", "10.77.0.1")
    assert (found.created_at, found.launch, found.ending) == (1767323045.0, "r", False)
    assert nova.asked[0][2]["params"] == {"name": f"^{RUN_ID}-"}


def test_all_pages_are_read(nova: Nova, compute: NovaCompute) -> None:
    more = {"servers_links": [{"rel": "next", "href": "..."}]}
    nova.answers = [(200, {"servers": [server(1)], **more}), (200, {"servers": [server(2)]})]
    assert [s.id for s in compute.servers()] == ["id-1", "id-2"]
    assert nova.asked[1][2]["params"]["marker"] == "id-1"


@pytest.mark.parametrize("changes", [{"status": "DELETED"}, {"OS-EXT-STS:task_state": "deleting"}])
def test_deletion_under_way_is_seen(nova: Nova, compute: NovaCompute, changes: dict[str, str]) -> None:
    nova.answers = [(200, {"servers": [server(1, **changes)]})]
    assert compute.servers()[0].ending


def test_deleting_what_is_gone_is_silent(nova: Nova, compute: NovaCompute) -> None:
    nova.answers = [(404, {"itemNotFound": {"message": "gone", "code": 404}}), (204, None)]
    compute.delete("id-1")
    compute.delete("id-1")
    nova.answers = [(409, {"conflictingRequest": {"message": "locked", "code": 409}})]
    with pytest.raises(ComputeError, match="locked") as caught:
        compute.delete("id-1")
    assert caught.value.status == 409


def test_novas_own_words_are_kept(nova: Nova, compute: NovaCompute) -> None:
    nova.answers = [(403, {"forbidden": {"message": "Quota exceeded for cores: Requested 2", "code": 403}})]
    with pytest.raises(ComputeError, match="Quota exceeded for cores: Requested 2"):
        compute.create({"server": {}})
    nova.answers = [auth_errors.ConnectFailure("no route")]
    with pytest.raises(ComputeError, match="no route") as caught:
        compute.servers()
    assert caught.value.status == 0


def test_a_volume_type_needs_a_newer_nova(nova: Nova, compute: NovaCompute) -> None:
    nova.answers = [(202, {"server": {"id": "id-9"}})] * 2
    assert compute.create({"server": {"block_device_mapping_v2": [{"volume_type": "fast"}]}}) == "id-9"
    compute.create({"server": {"block_device_mapping_v2": [{}]}})
    assert [options["microversion"] for _, _, options in nova.asked] == ["2.67", "2.52"]


def test_the_fault_is_asked_for(nova: Nova, compute: NovaCompute) -> None:
    nova.answers = [(200, {"server": {"fault": {"message": "No valid host was found."}}}), (200, {"server": {}})]
    assert [compute.fault("id-1"), compute.fault("id-1")] == ["No valid host was found.", ""]


def test_every_call_is_within_the_credentials_rights(nova: Nova, compute: NovaCompute) -> None:
    nova.answers = [(200, {"servers": []}), (200, {"server": {}}), (202, {"server": {"id": "x"}}), (204, None)]
    compute.servers()
    compute.fault("id-1")
    compute.create({"server": {}})
    compute.delete("id-1")
    asked = {(method, path) for method, path, _ in nova.asked} | {("GET", "/limits")}
    for prefix in ("/v2.1", "/compute/v2.1", "/v2.1/0123456789abcdef"):
        for method, path in asked:
            assert any(r["method"] == method and _matches(prefix + path, r["path"]) for r in ACCESS_RULES), path
    for method, path in (("GET", "/flavors"), ("POST", "/servers/id-1/action"), ("PUT", "/servers/id-1")):
        assert not any(r["method"] == method and _matches("/v2.1" + path, r["path"]) for r in ACCESS_RULES), path


def _matches(path: str, pattern: str) -> bool:
    """As keystonemiddleware does it."""
    words = re.split(r"(\*\*|\*)", pattern)
    return bool(re.fullmatch("".join({"**": ".*", "*": r"[^/]+"}.get(w, re.escape(w)) for w in words), path))


def test_a_connection_takes_nothing_from_the_nodes_own_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_CLOUD", "nobody")
    monkeypatch.setenv("OS_AUTH_URL", "http://elsewhere")
    credential = {
        "auth_url": "https://keystone.example/v3",
        "application_credential_id": "id",
        "application_credential_secret": "secret",
        "region_name": "here",
        "interface": "internal",
        "cacert": "-----BEGIN",
        "verify": True,
        "endpoint_overrides": {"compute": "https://nova.example/v2.1"},
    }
    made: Connection = connect(credential, ServerFolder(tmp_path))
    config = made.config
    assert config.config["auth"]["auth_url"] == "https://keystone.example/v3"
    assert (config.get_region_name(), config.get_interface("compute")) == ("here", "internal")
    assert config.get_endpoint("compute") == "https://nova.example/v2.1"
    assert config.get_requests_verify_args()[0] == str(tmp_path / "cacert.pem")
    assert (tmp_path / "cacert.pem").read_text() == "-----BEGIN"
