"""Why a server or worker did not come, in the words of nova and of the head's autoscaler."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dhctl.infra.openstack import troubles
from dhctl.infra.openstack.cloud import connect
from dhctl.infra.openstack.kinds import Project
from dhctl.infra.openstack.mark import HEAD, Mark
from dhctl.infra.openstack.section import OpenStackSection
from dhctl.infra.ssh import SshEndpoint, pin_host_key
from unit.fakes import script
from unit.http_cloud import HttpCloud

RUN = "dh-aaaabbbbcc"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC2S0EDdNxCjYiR0WdQGVa3l4bpcSZPbFYoFbYdPeiPN"


def test_a_server_in_error_is_told_with_novas_reason(http_cloud: HttpCloud) -> None:
    mark, other = Mark(RUN), Mark("dh-ddddeeeeff")
    fault = {"message": "No valid host was found."}
    http_cloud.add("servers", "1", name=f"{RUN}-head", status="ERROR", metadata=mark.metadata(HEAD), fault=fault)
    http_cloud.add("servers", "2", name=f"{RUN}-w-1", status="ERROR", metadata=mark.metadata(HEAD))
    http_cloud.add("servers", "3", name=f"{RUN}-w-2", status="ACTIVE", metadata=mark.metadata(HEAD))
    http_cloud.add("servers", "4", name="theirs", status="ERROR", metadata=other.metadata(HEAD), fault=fault)
    assert troubles.of_servers(Project(connect(OpenStackSection())), RUN) == [
        f"server {RUN}-head is in ERROR: No valid host was found.",
        f"server {RUN}-w-1 is in ERROR: nova gives no reason",
    ]


def test_a_nova_that_does_not_answer_explains_nothing(http_cloud: HttpCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dhctl.infra.openstack.cloud.RETRIES", 0)
    project = Project(connect(OpenStackSection()))
    http_cloud.broken["/compute/v2.1/servers"] = [503]
    assert troubles.of_servers(project, RUN) == []


def test_the_heads_events_are_told_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [
        {"kind": "launched", "node": "w-1"},
        {"kind": "failed", "node": "w-1", "reason": "w-1 went to ERROR: no room"},
        {"kind": "refused", "reason": "quota exceeded: cores"},
        {"kind": "refused", "reason": "quota exceeded: cores"},
        {"kind": "left", "node": "w-1", "reason": "released"},
    ]
    lines = "\\n".join([*map(json.dumps, events), '{"kind": "torn'])
    (tmp_path / "key").touch()
    pin_host_key(tmp_path / "known_hosts", "head", KEY)
    head = SshEndpoint("192.0.2.7", "debian", tmp_path / "key", tmp_path / "known_hosts", "head")
    put = script(tmp_path / "bin" / "ssh", f"print({lines!r}.replace(chr(92) + 'n', chr(10)))")
    monkeypatch.setenv("PATH", f"{put.parent}:/usr/bin:/bin")
    assert troubles.of_workers(head) == ["w-1 went to ERROR: no room", "quota exceeded: cores"]
    script(tmp_path / "bin" / "ssh", "import sys; sys.exit(255)")
    assert troubles.of_workers(head) == []
