"""What the stack and the nodes of a run are told: all that they need, the same at each call, and no secret."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from dhctl.infra.home import Home
from dhctl.infra.openstack import bring_up
from dhctl.infra.openstack.choices import Choices
from dhctl.infra.openstack.flavors import FlavorSize
from dhctl.infra.openstack.mark import Mark
from dhctl.infra.openstack.secrets import HeadSecrets
from unit.fake_openstack import cloud_record

CHOICES = Choices("i1", "f-head", "f-worker", FlavorSize("gpu", 8, 32768, 80, 1), "n-out", "public", "", ("member",))
PLACE = ("net-1", "members-1", "key-1", "group-1")


def test_the_mark_is_the_runs_id_and_lease(home: Home) -> None:
    record = cloud_record(home)
    assert bring_up.mark_of(record) == Mark(record.run_id, int(record.expires_at.timestamp()))


def test_nodes_know_the_run_the_workers_and_the_place(home: Home) -> None:
    workers = {"min": 1, "max": 4, "cpus": 3, "gpus": 1, "memory": "4GiB", "idle_timeout": "90s"}
    section = {"boot_volume": "20.5GiB", "volume_type": "ssd", "availability_zone": "az1", "config_drive": True}
    record = cloud_record(home, workers, python="/opt/ray/bin/python", user="ubuntu", **section)
    place = {"network_id": "net-1", "security_group_ids": ["members-1"], "key_name": "key-1", "server_group_id": None}
    made = bring_up.settings_of(record, CHOICES, place)
    assert (made.run_id, made.node_id, made.role) == (record.run_id, f"{record.run_id}-head", "head")
    assert made.expires_at == int(record.expires_at.timestamp())
    assert (made.min_workers, made.max_workers, made.worker_cpus, made.worker_gpus) == (1, 4, 3, 1)
    assert (made.worker_memory_bytes, made.idle_timeout_s) == (4 * 2**30, 90.0)
    assert (made.image_id, made.flavor_id, made.flavor_vcpus, made.flavor_ram_mib) == ("i1", "f-worker", 8, 32768)
    assert (made.boot_volume_gib, made.volume_type, made.availability_zone) == (21, "ssd", "az1")
    assert (made.config_drive, made.python, made.login_user) == (True, "/opt/ray/bin/python", "ubuntu")
    assert (made.network_id, made.security_group_ids, made.key_name) == ("net-1", ("members-1",), "key-1")
    assert made.gpus == 0, "the head trains nothing"
    assert any(wanted.startswith("ray[") and wanted.endswith(made.ray_version) for wanted in made.requirements)


def node_json(user_data: str) -> dict[str, Any]:
    files = json.loads(user_data.partition("\n")[2])["write_files"]
    (content,) = [file["content"] for file in files if file["path"].endswith("node.json")]
    found: dict[str, Any] = json.loads(base64.b64decode(content))
    return found


def test_user_data_holds_what_the_stack_made(home: Home) -> None:
    made = node_json(bring_up.user_data_of(cloud_record(home), CHOICES)(*PLACE))
    assert (made["network_id"], made["security_group_ids"]) == ("net-1", ["members-1"])
    assert (made["key_name"], made["server_group_id"]) == ("key-1", "group-1")
    without = node_json(bring_up.user_data_of(cloud_record(home), CHOICES)(*PLACE[:3], ""))
    assert without["server_group_id"] is None


def test_user_data_is_the_same_at_each_call(home: Home) -> None:
    record = cloud_record(home)
    assert bring_up.user_data_of(record, CHOICES)(*PLACE) == bring_up.user_data_of(record, CHOICES)(*PLACE)


def test_user_data_holds_no_secret(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key-of-the-store")
    monkeypatch.setenv("OS_PASSWORD", "password-of-the-user")
    record = cloud_record(home)
    secrets = HeadSecrets.of(record)
    secrets.make_key()
    user_data = bring_up.user_data_of(record, CHOICES)(*PLACE)
    files = json.loads(user_data.partition("\n")[2])["write_files"]
    told = b"".join(base64.b64decode(file["content"]) for file in files) + user_data.encode()
    private = secrets.key_file.read_text().splitlines()[1]
    for secret in (secrets.token_file.read_text(), private, "key-of-the-store", "password-of-the-user"):
        assert secret.encode() not in told


def test_a_tunnel_carries_what_the_client_asks(home: Home) -> None:
    record = cloud_record(home)
    HeadSecrets.of(record).make_key()
    assert bring_up.forwards("10.77.0.5") == {
        "dashboard": ("127.0.0.1", 8265),
        "gcs": ("10.77.0.5", 6379),
        "raylet": ("10.77.0.5", 20002),
    }
    made = bring_up.connection(record, "10.77.0.5", {"dashboard": 40001, "gcs": 40002, "raylet": 40003})
    assert (made.dashboard_url, made.gcs_address) == ("http://127.0.0.1:40001", "127.0.0.1:40002")
    assert (made.raylet_address, made.head_address) == ("127.0.0.1:40003", "10.77.0.5")
    assert made.token == HeadSecrets.of(record).token_file.read_text()
    assert made.token not in repr(made)


def test_all_doors_of_a_node_must_be_closed_to_the_outside() -> None:
    assert {6379, 8265, 10001, 8099, 20002, 20100, 20999} <= set(bring_up.CLOSED_PORTS)
    assert 22 not in bring_up.CLOSED_PORTS
