"""The main process of a head's pod: what it tells Ray's processes, and how it ends; with scripts in Ray's place."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dhctl.infra.kubernetes.node import head
from dhctl.infra.kubernetes.node.head import PodSite, site_here
from dhctl.infra.kubernetes.node.settings import SECRET_ENV, SETTINGS_ENV
from dhctl.infra.node import ray_head
from dhctl.infra.node.layout import HOME_ENV, NodeFolder, read_json
from dhctl.infra.node.ray_head import RayHead, object_store_bytes
from dhctl.infra.node.stop import start_ticks
from dhctl.infra.openstack.userdata import code_tar
from unit.pod_fakes import HEAD_NAME, RUN_ID, make_pod_settings

Start = Callable[..., "subprocess.Popen[bytes]"]
Eventually = Callable[..., None]

RAY = """
import json, os, signal, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
class Dashboard(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.headers["Authorization"] == "Bearer secret" else 401); self.end_headers()
    def log_message(self, *args): pass
if "--head" in sys.argv:
    HTTPServer.allow_reuse_address = True
    for port in map(int, os.environ["PORTS"].split()):
        Thread(target=HTTPServer(("127.0.0.1", port), Dashboard).serve_forever, daemon=True).start()
with open(os.environ["NOTES"], "a") as notes:
    notes.write(json.dumps([os.getpid(), sys.argv, dict(os.environ)]) + "\\n")
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the worst that can be
time.sleep(120)
"""
"""Stands in for `ray start --head` and the autoscaler's monitor: answers where Ray does, and does not end itself."""


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeFolder:
    """A head's pod as Kubernetes makes it, and its folder."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "token").write_text("secret\n")
    (secret / "env.json").write_text(json.dumps({"AWS_PROFILE": "lab"}))
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(make_pod_settings().to_dict()))
    given = {HOME_ENV: tmp_path / "node", SECRET_ENV: secret, SETTINGS_ENV: settings, "POD_IP": "127.0.0.1"}
    for name, value in given.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv(head.CODE_ENV, "/code")
    return NodeFolder(tmp_path / "node")


def test_rays_environment_has_the_jobs_keys_and_the_images_path(
    pod: NodeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/code:/image/site-packages")
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere")
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.9")
    monkeypatch.setenv("HOME", "/nowhere")
    site = site_here()
    env = site.ray_env("id", "head")
    assert (env["RAY_AUTH_MODE"], env["AWS_PROFILE"], env["DHCTL_RUN_ID"]) == ("token", "lab", RUN_ID)
    assert env["RAY_AUTH_TOKEN_PATH"].endswith("/secret/token")
    assert (env["PYTHONPATH"], env["HOME"]) == ("/image/site-packages", str(pod.path))
    assert (env["RAY_memory_usage_threshold"], "RAY_ADDRESS" in env) == ("0.9", False)
    assert site.own_env()["PYTHONPATH"] == "/code:/image/site-packages"
    monkeypatch.setenv("PYTHONPATH", "/code")
    assert "PYTHONPATH" not in site.ray_env("id", "head")  # a job brings its own code


def test_the_object_store_is_a_tenth_of_the_containers_memory(pod: NodeFolder) -> None:
    site = site_here()
    assert site.memory_bytes == 2 * 2**30
    assert object_store_bytes(site.memory_bytes) <= 2**31 // 10


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda pod: os.environ.pop("POD_IP"), "the head's pod has no POD_IP"),
        (lambda pod: Path(os.environ[SECRET_ENV], "token").write_text(" "), "the run's secret holds no token"),
        (lambda pod: Path(os.environ[SECRET_ENV], "token").unlink(), "the run's secret cannot be read"),
    ],
)
def test_a_head_that_was_not_told_all_says_what_is_missing(
    pod: NodeFolder, monkeypatch: pytest.MonkeyPatch, change: Callable[[NodeFolder], object], reason: str
) -> None:
    monkeypatch.setattr("sys.argv", ["head"])
    change(pod)
    assert head.main() == 1
    told = read_json(pod.agent)
    assert told["state"] == "failed"
    assert told["reason"].startswith(reason)


def run_head(tmp_path: Path) -> list[str]:
    """The real main process, its loop and supervisor, with a script in place of Ray's modules."""
    script = tmp_path / "ray.py"
    script.write_text(RAY)
    code = "import os, sys; from dhctl.infra.kubernetes.node import head; sys.argv = ['head']; "
    code += "from dhctl.infra.node import ray_head; "
    code += "ray_head.DASHBOARD_PORT, ray_head.RAYLET_PORT = map(int, os.environ['PORTS'].split()); "
    code += f"head.PodSite.python_module = lambda site, module: [sys.executable, {str(script)!r}, module]; "
    code += "sys.exit(head.main())"
    return [sys.executable, "-c", code]


def free_ports() -> str:
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
        return f"{first.getsockname()[1]} {second.getsockname()[1]}"


def notes_of(path: Path) -> list[tuple[int, list[str], dict[str, str]]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [(pid, words, env) for pid, words, env in map(json.loads, lines)]


def test_it_keeps_ray_running_and_ends_all_of_it_within_five_seconds(
    pod: NodeFolder, tmp_path: Path, start: Start, eventually: Eventually
) -> None:
    notes = tmp_path / "notes"
    process = start(*run_head(tmp_path), env={"NOTES": str(notes), "PORTS": free_ports()})
    eventually(lambda: read_json(pod.agent).get("monitor"), 30)
    (ray, words, env), *_ = notes_of(notes)
    first = read_json(pod.agent)
    assert (first["state"], first["address"], first["pid"]) == ("ready", "127.0.0.1", process.pid)
    assert "--num-cpus 0" in " ".join(words)
    assert env["RAY_CLOUD_INSTANCE_ID"] == first["head_id"]
    assert first["head_id"].startswith(f"{HEAD_NAME}-")
    provider = read_json(pod.autoscaling)["provider"]
    assert (provider["module"], provider["head_address"]) == (head.PROVIDER, "127.0.0.1")

    os.kill(ray, signal.SIGKILL)
    eventually(lambda: read_json(pod.agent)["head_id"] != first["head_id"], 30)
    eventually(lambda: read_json(pod.agent)["monitor"], 30)
    assert read_json(pod.autoscaling)["provider"]["head_id"] == read_json(pod.agent)["head_id"]
    eventually(lambda: len(notes_of(notes)) == 4, 30)

    began = time.monotonic()
    process.terminate()
    assert process.wait(10) == 0
    assert time.monotonic() - began < 5
    assert [pid for pid, _, _ in notes_of(notes) if start_ticks(pid)] == []


NODE_MODULES = ("fleet", "head", "lease", "node_provider", "pods", "settings", "worker", "worker_pod")


def test_the_code_that_pods_get_is_whole(tmp_path: Path) -> None:
    """Every module that runs in a pod is imported from the unpacked tar file and takes nothing of dhctl elsewhere."""
    with tarfile.open(fileobj=io.BytesIO(code_tar())) as packed:
        packed.extractall(tmp_path, filter="data")
    code = "import sys, importlib\n"
    code += "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f).lower()]\n"
    code += f"[importlib.import_module('dhctl.infra.kubernetes.node.' + m) for m in {NODE_MODULES!r}]\n"
    code += "files = [m.__file__ for n, m in sys.modules.items() if n.startswith('dhctl.') and m.__file__]\n"
    code += (
        f"print([f for f in files if not f.startswith({str(tmp_path)!r})], len(files) > 15, 'tenacity' in sys.modules)"
    )
    assert printed_by(code, {"PYTHONPATH": str(tmp_path)}) == "[] True False"  # no image has it for Ray's sake


def test_the_main_process_loads_only_the_standard_library() -> None:
    """It takes its memory away from jobs."""
    code = "import sys, dhctl.infra.kubernetes.node.head\n"
    code += "print([m for m in ('ray', 'kubernetes', 'urllib3', 'pydantic', 'psutil') if m in sys.modules])"
    assert printed_by(code, {}) == "[]"


def printed_by(code: str, env: dict[str, str]) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_ray_starts_after_the_lease(pod: NodeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(ray_head, "spawn", lambda *words, **options: started.append(words))
    site = site_here()
    late = PodSite(make_pod_settings(expires_at=1000), site.folder, site.journal, {})
    RayHead(late, {"module": head.PROVIDER}).keep()
    assert started == []
