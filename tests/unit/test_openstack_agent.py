"""The agent of a node: what it keeps running, what it says of it, and how it ends; with scripts in Ray's place."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.node import ray_head, watched
from dhctl.infra.node.journal import NodeJournal
from dhctl.infra.node.layout import read_json
from dhctl.infra.node.ray_head import RayHead
from dhctl.infra.node.site import interface_of
from dhctl.infra.openstack.node import ray_worker, site
from dhctl.infra.openstack.node.agent import PROVIDER
from dhctl.infra.openstack.node.layout import ServerFolder
from dhctl.infra.openstack.node.ray_worker import RayWorker
from dhctl.infra.openstack.node.settings import NodeSettings
from dhctl.infra.openstack.node.site import ServerSite
from unit.node_fakes import HEAD_NAME, RUN_ID, Clock, make_node_folder, make_node_settings, told_by

SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    return make_node_folder(tmp_path / "node")


# --- Ray's head


class Ray:
    """Stands in for Ray's processes: `sleep`, and what the head or worker would answer."""

    def __init__(self) -> None:
        self.answers = True
        self.commands: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.started: list[subprocess.Popen[bytes]] = []

    def spawn(self, command: Sequence[str], env: dict[str, str], log: Path, **_: Any) -> subprocess.Popen[bytes]:
        self.commands.append(list(command))
        self.environments.append(dict(env))
        self.started.append(subprocess.Popen(SLEEP, start_new_session=True))
        return self.started[-1]

    def kill(self, number: int) -> None:
        self.started[number].kill()
        self.started[number].wait(5)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    made = Ray()
    for module in (ray_head, ray_worker, watched):
        monkeypatch.setattr(module, "spawn", made.spawn)
    monkeypatch.setattr(ray_head, "_accepts", lambda address, port: made.answers)
    monkeypatch.setattr(RayHead, "_dashboard_answers", lambda head: made.answers)
    monkeypatch.setattr(RayWorker, "_joined", lambda worker: made.answers)
    monkeypatch.setattr(site, "SOMEWHERE", "127.0.0.1")
    yield made
    for process in made.started:
        process.kill()
        process.wait(5)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (ray_head, ray_worker):
        monkeypatch.setattr(module, "time", made)
    return made


def make_site(folder: ServerFolder, settings: NodeSettings | None = None) -> ServerSite:
    return ServerSite(settings or make_node_settings(), folder, NodeJournal(folder), {"AWS_PROFILE": "lab"})


def make_head(folder: ServerFolder) -> RayHead:
    return RayHead(make_site(folder), {"module": PROVIDER})


def test_a_head_comes_up_with_its_autoscaler(folder: ServerFolder, ray: Ray, clock: Clock) -> None:
    ray.answers = False
    head = make_head(folder)
    head.keep()
    head.keep()
    assert read_json(folder.agent)["state"] == "starting"
    ray.answers = True
    head.keep()
    told = read_json(folder.agent)
    assert (told["state"], told["address"]) == ("ready", "127.0.0.1")
    assert told["monitor"]["pid"] == ray.started[1].pid
    started, monitor = ray.commands
    options = " ".join(started)
    assert "--head --no-monitor --port 6379 --dashboard-host 127.0.0.1 --dashboard-port 8265" in options
    assert "--num-cpus 0 --num-gpus 0" in options
    assert "--node-manager-port 20002" in options
    assert "--min-worker-port 20100 --max-worker-port 20999" in options
    assert "dhctl.infra.node.autoscaler" in monitor
    config = read_json(folder.autoscaling)
    assert config["provider"]["head_id"] == told["head_id"] == ray.environments[0]["RAY_CLOUD_INSTANCE_ID"]
    assert told["head_id"].startswith(f"{HEAD_NAME}-")


def test_rays_environment_has_token_file_tables_and_the_jobs_keys(
    folder: ServerFolder, ray: Ray, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere")
    monkeypatch.setenv("PYTHONPATH", "/opt/dhctl-code")
    make_head(folder).keep()
    (env,) = ray.environments
    assert env["RAY_AUTH_TOKEN_PATH"] == str(folder.token)
    assert (env["RAY_AUTH_MODE"], env["AWS_PROFILE"], env["RAY_gcs_storage"]) == ("token", "lab", "rocksdb")
    assert env["DHCTL_RUN_ID"] == RUN_ID
    assert "RAY_ADDRESS" not in env
    assert "PYTHONPATH" not in env  # a job brings its own code
    assert not any("t" * 64 in word for word in (*ray.commands[0], *env.values()))


def test_a_head_that_died_gets_a_new_id_and_the_autoscaler_follows(
    folder: ServerFolder, ray: Ray, clock: Clock
) -> None:
    (folder.ray_temp / "ray_current_cluster").write_text("old")
    head = make_head(folder)
    head.keep()
    head.keep()
    assert not (folder.ray_temp / "ray_current_cluster").exists()
    first = read_json(folder.agent)["head_id"]
    ray.kill(0)
    head.keep()
    assert ray.started[1].poll() is not None  # never two autoscalers
    head.keep()
    head.keep()
    told = read_json(folder.agent)
    assert (told["state"], told["head_id"] == first) == ("ready", False)
    assert read_json(folder.autoscaling)["provider"]["head_id"] == told["head_id"]
    assert [e["reason"] for e in told_by(folder)] == ["Ray's head ended with status -9", "Ray's head runs again"]
    head.end()


def test_a_head_that_never_answers_fails_with_its_log(folder: ServerFolder, ray: Ray, clock: Clock) -> None:
    ray.answers = False
    (folder.logs / "ray.log").write_text("address already in use")
    head = make_head(folder)
    for _ in range(ray_head.TRIES):
        clock.now += 60
        head.keep()
        clock.now += ray_head.START_S + 1
        head.keep()
    told = read_json(folder.agent)
    assert (told["state"], told["log"]) == ("failed", "address already in use")
    assert told["reason"] == "Ray's head did not answer within 180 s, 3 times"
    clock.now += 1000
    head.keep()
    assert len(ray.started) == ray_head.TRIES


def test_an_autoscaler_that_died_is_started_again(folder: ServerFolder, ray: Ray, clock: Clock) -> None:
    head = make_head(folder)
    head.keep()
    head.keep()
    ray.kill(1)
    end = time.monotonic() + 10
    while len(ray.started) < 3 and time.monotonic() < end:
        head.keep()
        time.sleep(0.05)
    assert read_json(folder.agent)["monitor"]["pid"] == ray.started[2].pid


def test_once_stopping_there_is_no_autoscaler_any_more(folder: ServerFolder, ray: Ray, clock: Clock) -> None:
    head = make_head(folder)
    head.keep()
    head.keep()
    folder.stopping.touch()
    head.keep()
    assert ray.started[1].poll() is not None
    assert read_json(folder.agent)["monitor"] is None
    ray.kill(0)
    for _ in range(4):
        head.keep()
    assert len(ray.started) == 3  # Ray again, for jobs' logs, and no autoscaler


@pytest.mark.parametrize(("stopping", "signum"), [(False, signal.SIGTERM), (True, signal.SIGINT)])
def test_ray_gets_time_to_end_unless_the_run_ends(
    folder: ServerFolder, ray: Ray, monkeypatch: pytest.MonkeyPatch, stopping: bool, signum: signal.Signals
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(ray_head, "stop", lambda process, grace_s, signum: sent.append(signum))
    head = make_head(folder)
    head.keep()
    if stopping:
        folder.stopping.touch()
    head.end()
    assert sent == [signum]


def test_no_ray_starts_after_the_lease(folder: ServerFolder, ray: Ray) -> None:
    RayHead(make_site(folder, make_node_settings(expires_at=1000)), {"module": PROVIDER}).keep()
    assert ray.started == []


# --- Ray's node on a worker


def worker_site(folder: ServerFolder) -> ServerSite:
    settings = make_node_settings().for_worker(f"{RUN_ID}-w-1", "127.0.0.1", "0" * 64, ["--num-cpus", "2"])
    return make_site(folder, settings)


def test_a_worker_joins_with_what_the_autoscaler_asked_for(folder: ServerFolder, ray: Ray, clock: Clock) -> None:
    worker = RayWorker(worker_site(folder))
    worker.keep()
    worker.keep()
    assert read_json(folder.agent)["state"] == "ready"
    assert " ".join(ray.commands[0]).endswith("--address 127.0.0.1:6379 --num-cpus 2")
    assert ray.environments[0]["RAY_CLOUD_INSTANCE_ID"] == f"{RUN_ID}-w-1"
    assert ray.environments[0]["RAY_NODE_TYPE_NAME"] == "worker"
    worker.end()


def test_a_worker_that_had_joined_is_not_started_again(folder: ServerFolder, ray: Ray, clock: Clock) -> None:
    worker = RayWorker(worker_site(folder))
    worker.keep()
    worker.keep()
    ray.kill(0)
    for _ in range(5):
        clock.now += 100
        worker.keep()
    assert len(ray.started) == 1
    assert read_json(folder.agent)["state"] == "ended"


def test_a_worker_tries_a_few_times_to_join(folder: ServerFolder, ray: Ray, clock: Clock) -> None:
    ray.answers = False
    worker = RayWorker(worker_site(folder))
    for number in range(ray_worker.TRIES):
        clock.now += 60
        worker.keep()
        ray.kill(number)
        worker.keep()
    told = read_json(folder.agent)
    assert (told["state"], told["reason"]) == ("failed", "Ray's node ended with status -9, 5 times")


def test_the_dashboard_is_asked_with_the_token(folder: ServerFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            good = self.headers.get("Authorization") == "Bearer " + "t" * 64
            self.send_response(200 if good else 401)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        monkeypatch.setattr(ray_head, "DASHBOARD_PORT", server.server_address[1])
        head = make_head(folder)
        assert head._dashboard_answers()
        folder.token.write_text("wrong")
        assert not head._dashboard_answers()
        assert ray_head._accepts("127.0.0.1", server.server_address[1])
        server.shutdown()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert not ray_head._accepts("127.0.0.1", taken.getsockname()[1])


def test_a_node_finds_the_interface_of_its_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    with pytest.raises(OSError, match=r"192\.0\.2\.77"):
        interface_of("192.0.2.77")
