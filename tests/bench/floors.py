"""The floor that dhctl is measured against: the same cluster by hand, with the stock tools and nothing around them.

    python floors.py up|worker|down FOLDER ENGINE

`up` runs an empty Pulumi program through the stock Automation API and `ray start --head`, and ends when Ray answers;
`worker` joins one worker; `down` ends all of it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import requests
from pulumi import automation as auto

TOKEN = "0" * 64
PORTS = {
    "--dashboard-agent-listen-port": 1,
    "--dashboard-agent-grpc-port": 2,
    "--runtime-env-agent-port": 3,
    "--metrics-export-port": 4,
    "--node-manager-port": 5,
    "--object-manager-port": 6,
}
GCS, DASHBOARD, CLIENT = 29300, 29301, 29302


def stack(folder: Path, engine: Path) -> auto.Stack:
    """A stack without resources, its state in the folder."""
    (folder / "state").mkdir(parents=True, exist_ok=True)
    options = auto.LocalWorkspaceOptions(
        work_dir=str(folder),
        pulumi_home=str(folder),
        pulumi_command=auto.PulumiCommand(root=str(engine.parent.parent)),
        project_settings=auto.ProjectSettings("empty", "python"),
        env_vars={
            "PULUMI_BACKEND_URL": f"file://{folder}/state",
            "PULUMI_CONFIG_PASSPHRASE": "",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        },
    )
    return auto.create_or_select_stack("empty", "empty", lambda: None, opts=options)


def start(folder: Path, name: str, first_port: int, *options: str) -> None:
    """`ray start --block` in a session of its own."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    command += ["--temp-dir", str(folder / name), "--object-store-memory", str(100 * 2**20), *options]
    for option, offset in PORTS.items():
        command += [option, str(first_port + offset)]
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    (folder / f"{name}.pid").write_text(str(process.pid))


def up(folder: Path, engine: Path) -> None:
    """Pulumi, then Ray, until the dashboard answers."""
    stack(folder, engine).up()
    start(
        folder,
        "h",
        29310,
        *("--head", "--node-ip-address", "127.0.7.2", "--port", str(GCS), "--num-cpus", "0"),
        *("--dashboard-port", str(DASHBOARD), "--ray-client-server-port", str(CLIENT)),
    )
    wait_for_answer()


def wait_for_answer() -> None:
    """Until the dashboard answers."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            url = f"http://127.0.0.1:{DASHBOARD}/api/version"
            if requests.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=2).ok:
                return
        except requests.RequestException:
            time.sleep(0.05)
    raise TimeoutError("bare Ray did not come up")


def worker(folder: Path) -> None:
    """One worker, given a few seconds to join."""
    start(folder, "w", 29320, "--node-ip-address", "127.0.7.3", "--address", f"127.0.7.2:{GCS}", "--num-cpus", "1")
    time.sleep(8)


def session(leader: int) -> list[int]:
    """Pids of a session."""
    found = subprocess.run(["pgrep", "-s", str(leader)], capture_output=True, text=True, check=False).stdout
    return [int(pid) for pid in found.split()]


def down(folder: Path, engine: Path) -> None:
    """SIGTERM to both nodes, what is left of their sessions after 3 s is killed, then Pulumi, then the folder."""
    leaders = [int(path.read_text()) for path in folder.glob("*.pid")]
    for leader in leaders:
        os.kill(leader, signal.SIGTERM)
    end = time.monotonic() + 3
    while any(session(leader) for leader in leaders):
        if time.monotonic() > end:
            for pid in [pid for leader in leaders for pid in session(leader)]:
                with suppress(ProcessLookupError):  # it went meanwhile
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    left = stack(folder, engine)
    left.destroy()
    left.workspace.remove_stack("empty")
    shutil.rmtree(folder)


if __name__ == "__main__":
    verb, place, cli = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    match verb:
        case "up":
            up(place, cli)
        case "worker":
            worker(place)
        case "down":
            down(place, cli)
