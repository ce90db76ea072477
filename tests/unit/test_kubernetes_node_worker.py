"""A worker's pod: what is filled into the template, and what its first process does."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.kubernetes.node.worker_pod import ray_words, worker_pod
from dhctl.infra.node.layout import NodeFolder
from dhctl.infra.node.ray_head import AFTER_LEASE_S
from unit.pod_fakes import OWNER, RUN_ID, TEMPLATE, make_pod_settings

NODE = f"{RUN_ID}-w-0a0a0a0a"
FOLDER = NodeFolder(Path("/var/lib/dhctl"))


def made(options: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    settings = make_pod_settings(**changes)
    return worker_pod(settings, NODE, "request-1", [OWNER], ray_words(settings, FOLDER, "10.244.0.5", options or []))


def env_of(pod: dict[str, Any]) -> dict[str, Any]:
    entries = pod["spec"]["containers"][0]["env"]
    assert len({e["name"] for e in entries}) == len(entries)
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in entries}


def test_it_has_name_mark_and_owner_from_its_first_moment() -> None:
    before = copy.deepcopy(TEMPLATE)
    metadata = made()["metadata"]
    assert (metadata["name"], metadata["namespace"], metadata["ownerReferences"]) == (NODE, "lab", [OWNER])
    assert metadata["labels"] == {
        "team": "pathology",
        "dhctl/run": RUN_ID,
        "dhctl/expires": "4000000000",
        "dhctl/role": "worker",
        "dhctl/cluster": RUN_ID,
        "dhctl/node": NODE,
    }
    assert before == TEMPLATE


def test_ray_finds_identity_and_token_and_the_specs_environment() -> None:
    env = env_of(made())
    assert (env["RAY_CLOUD_INSTANCE_ID"], env["RAY_NODE_TYPE_NAME"]) == (NODE, "worker")
    assert (env["RAY_AUTH_MODE"], env["RAY_AUTH_TOKEN_PATH"]) == ("token", "/etc/dhctl/secret/token")
    assert (env["OMP_NUM_THREADS"], env["DHCTL_RUN_ID"]) == ("1", RUN_ID)
    assert env["POD_IP"] == {"fieldRef": {"fieldPath": "status.podIP"}}


def test_its_command_starts_ray_at_the_pods_own_address() -> None:
    asked = ["--num-cpus", "2", "--resources", '{"a$(b)": 1}']
    container = made(asked, python="/venv/bin/python")["spec"]["containers"][0]
    words = container["command"]
    assert (words[0], container["args"]) == ("/venv/bin/python", [])
    options = " ".join(words[6:])
    assert "start --block --disable-usage-stats --node-ip-address $(POD_IP) --temp-dir /var/lib/dhctl/ray" in options
    assert "--node-manager-port 20002" in options
    # to the kubelet $$( is $(, which would name a variable
    assert options.endswith('--address 10.244.0.5:6379 --num-cpus 2 --resources {"a$$(b)": 1}')


def test_it_ends_after_the_lease_and_never_starts_again() -> None:
    spec = made(expires_at=int(time.time()) + 1000)["spec"]
    assert AFTER_LEASE_S + 990 < spec["activeDeadlineSeconds"] <= AFTER_LEASE_S + 1000
    assert (spec["restartPolicy"], spec["terminationGracePeriodSeconds"]) == ("Never", 2)
    assert spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize("secret", [{"AWS_ACCESS_KEY_ID": "key"}, None])
def test_its_first_process_takes_the_secrets_environment_and_becomes_ray(
    tmp_path: Path, secret: dict[str, str] | None
) -> None:
    """With a script in Ray's place."""
    words = made()["spec"]["containers"][0]["command"]
    path = tmp_path / "env.json"
    if secret:
        path.write_text(json.dumps(secret))
    code = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ), os.getpid()]))"
    command = [sys.executable, *words[1:4], str(path), str(tmp_path), "-c", code, "start"]
    env = {"PATH": os.defpath, "HOME": "/nowhere", "RAY_ADDRESS": "elsewhere", "OWN": "1"}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    told, _ = process.communicate(timeout=30)
    arguments, found, pid = json.loads(told)
    assert (process.returncode, arguments, pid) == (0, ["start"], process.pid)
    assert (found["OWN"], found["HOME"], "RAY_ADDRESS" in found) == ("1", str(tmp_path), False)
    assert found.get("AWS_ACCESS_KEY_ID") == ("key" if secret else None)
