"""Several runs side by side on one machine, and a foreign Ray, do not touch each other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from dhctl.infra.local.nodes import free_ports
from dhctl.infra.processes import wait_until
from e2e.driver import Dhctl, assert_gone


@pytest.fixture
def foreign_ray(tmp_path: Path) -> Iterator[str]:
    """The dashboard's address of a Ray that somebody else started on this machine."""
    ports = free_ports(["gcs", "dashboard", "client", "agent", "metrics"])
    folder = Path(f"/tmp/foreign-{os.getpid()}")  # sockets need a short path
    folder.mkdir()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address", "127.0.5.2", "--temp-dir", str(folder), "--num-cpus", "0"]
    command += ["--port", str(ports["gcs"]), "--dashboard-port", str(ports["dashboard"])]
    command += ["--ray-client-server-port", str(ports["client"]), "--object-store-memory", str(100 * 2**20)]
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "TMPDIR": str(folder)}
    with (tmp_path / "foreign.log").open("wb") as log:
        ray = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{ports['dashboard']}"
    try:
        assert wait_until(lambda: _answers(url), 180, every_s=0.2), (tmp_path / "foreign.log").read_text()
        yield url
        assert ray.poll() is None
        assert _answers(url), "the foreign Ray was hurt"
    finally:
        ray.send_signal(signal.SIGTERM)
        try:
            ray.wait(15)
        except subprocess.TimeoutExpired:
            ray.kill()
        subprocess.run(["pkill", "-9", "-s", str(ray.pid)], check=False)
        shutil.rmtree(folder)


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/api/version", timeout=2).ok
    except requests.RequestException:
        return False


@pytest.mark.thorough
def test_two_runs_and_a_foreign_ray(dhctl: Dhctl, foreign_ray: str) -> None:
    dhctl.env["RAY_ADDRESS"] = "127.0.5.2:1"  # settings for the user's other Ray must not lead a run astray
    specs = [dhctl.spec("pair", name="first", workers={"max": 1, "memory": "512MiB"})]
    first = dhctl("up", specs[0])
    assert first.returncode == 0, first.stdout + first.stderr
    second = dhctl("up", dhctl.spec("pair", name="second", workers={"max": 1, "memory": "512MiB"}))
    assert second.returncode == 0, second.stdout + second.stderr
    records = {r.spec.name: r for r in dhctl.records()}

    assert dhctl("down", "first").returncode == 0
    assert_gone(records["first"])
    time.sleep(1)
    trained = dhctl("train", "second")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert dhctl("down", "second").returncode == 0
    assert_gone(records["second"])
    assert _answers(foreign_ray)
