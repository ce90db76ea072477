"""The floors that dhctl is measured against: the same steps by hand, with nothing around them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests
from pulumi import automation as auto

from dhctl.infra.local import supervisor
from dhctl.infra.local.nodes import AGENT_PORTS, free_ports


class BareRay:
    """`ray start --head` by hand, with a token, an address and a folder of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bare-", dir="/tmp"))  # sockets need a short path
        self.seconds_up = self.seconds_down = 0.0

    def up(self) -> None:
        """Starts it and waits until the dashboard answers."""
        ports = free_ports(["gcs", "dashboard", "client", *AGENT_PORTS])
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        command += ["--node-ip-address", "127.0.7.2", "--temp-dir", str(self.folder), "--port", str(ports["gcs"])]
        command += ["--dashboard-port", str(ports["dashboard"]), "--ray-client-server-port", str(ports["client"])]
        command += ["--num-cpus", "0", "--object-store-memory", str(100 * 2**20)]
        for name, option in AGENT_PORTS.items():
            command += [option, str(ports[name])]
        env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
        started = time.monotonic()
        self.process = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while not self._answers(ports["dashboard"]):
            if self.process.poll() is not None or time.monotonic() - started > 120:
                raise RuntimeError("bare Ray did not come up")
            time.sleep(0.05)
        self.seconds_up = time.monotonic() - started

    @staticmethod
    def _answers(port: int) -> bool:
        headers = {"Authorization": "Bearer " + "0" * 64}
        try:
            return requests.get(f"http://127.0.0.1:{port}/api/version", headers=headers, timeout=2).ok
        except requests.RequestException:
            return False

    def down(self) -> None:
        """SIGTERM, then what is left of its session, until nothing is; then the folder."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        while left := supervisor.members(self.process.pid):
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        shutil.rmtree(self.folder)
        self.seconds_down = time.monotonic() - started


class EmptyPulumi:
    """An inline program without resources, up and destroyed through the stock Automation API."""

    def __init__(self, binary: Path) -> None:
        self._command = auto.PulumiCommand(root=str(binary.parent.parent))
        self.seconds_up = self.seconds_down = 0.0

    def up(self) -> None:
        """Creates the stack and updates it."""
        self.folder = Path(tempfile.mkdtemp(prefix="empty-"))
        (self.folder / "state").mkdir()
        env = {
            "PULUMI_BACKEND_URL": f"file://{self.folder}/state",
            "PULUMI_CONFIG_PASSPHRASE": "",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        options = auto.LocalWorkspaceOptions(
            work_dir=str(self.folder),
            pulumi_home=str(self.folder),
            pulumi_command=self._command,
            project_settings=auto.ProjectSettings("empty", "python"),
            env_vars=env,
        )
        started = time.monotonic()
        self._stack = auto.create_or_select_stack("empty", "empty", lambda: None, opts=options)
        self._stack.up()
        self.seconds_up = time.monotonic() - started

    def down(self) -> None:
        """Destroys and removes the stack."""
        started = time.monotonic()
        self._stack.destroy()
        self._stack.workspace.remove_stack("empty")
        self.seconds_down = time.monotonic() - started
        shutil.rmtree(self.folder)
