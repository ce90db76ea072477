"""The boot of a node, run once by cloud-init as root, as a zip file with the system's Python: standard library only.

Finds or installs Ray, checks the GPUs, gets code and secrets, starts the agent and says on the console how far it is.
Ends with status 0 when Ray answers, else with 1 and a sentence.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from dhctl.infra.node.layout import CODE_FOLDER, read_json, write_whole
from dhctl.infra.openstack.node.console import NodeConsole
from dhctl.infra.openstack.node.gpus import require_gpus
from dhctl.infra.openstack.node.layout import ENROLMENT_PORT, ServerFolder
from dhctl.infra.openstack.node.python_for_ray import BootError, find_python
from dhctl.infra.openstack.node.settings import HEAD, NodeSettings

HOST_KEY = Path("/etc/ssh/ssh_host_ed25519_key.pub")
HOST_KEY_S = 120.0
SECRETS_S = 1200.0
READY_S = 600.0
ENROL_TRY_S = 20.0
LOOK_EVERY_S, ENROL_EVERY_S = 0.1, 0.5
"""Between two looks at a file here, and between two requests to the head."""
AGENT = "dhctl.infra.openstack.node.agent"
SYSTEMD = Path("/run/systemd/system")
"""There when systemd is the machine's first process."""

UNIT = Path("/etc/systemd/system/dhctl-node.service")
UNIT_TEXT = """[Unit]
Description=dhctl node {node_id}
After=network-online.target
Wants=network-online.target

[Service]
Environment=PYTHONPATH={code}
ExecStart={python} -u -m {agent}
StandardOutput=append:{log}
StandardError=append:{log}
Restart=always
RestartSec=3
KillMode=control-group
LimitNOFILE=65536
TasksMax=infinity

[Install]
WantedBy=multi-user.target
"""


class Boot:
    """The steps of one node."""

    def __init__(self, settings: NodeSettings, folder: ServerFolder) -> None:
        self._settings, self._folder = settings, folder
        self._console = NodeConsole(settings.node_id)
        self._agent: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """All steps; the exit status. What fails is told on the console, and by a worker to the head too."""
        try:
            self._steps()
        except BootError as error:
            self._fail(error.reason, error.log)
            return 1
        except Exception as error:  # noqa: BLE001 - whatever it was, the console must tell
            self._fail(
                f"the boot failed: {type(error).__name__}: {error}; this is a fault of dhctl", traceback.format_exc()
            )
            return 1
        return 0

    def _steps(self) -> None:
        settings, tell = self._settings, self._console.tell
        tell("booting", role=settings.role)
        self._folder.make()
        tell("hostkey", key=_host_key())
        python = find_python(settings, self._console)
        tell("python", path=python.path, ray=python.ray)
        tell("gpus", want=settings.gpus, have=require_gpus(settings.gpus))
        tell("waiting")
        if settings.role == HEAD:
            _await(self._pushed, SECRETS_S, _not_pushed)
        else:
            _await(self._enrol, SECRETS_S, self._not_enrolled, ENROL_EVERY_S)
        _unpack(self._folder.code)
        tell("starting")
        self._agent = start_agent(settings, self._folder, python.path)
        _await(self._ready, READY_S, self._not_ready)
        tell("ready")
        if settings.role != HEAD:
            send_report(settings)

    def _pushed(self) -> bool:
        """The client writes the secrets last, each file whole or not at all."""
        return self._folder.secrets.exists() and self._folder.code.exists()

    def _enrol(self) -> bool:
        """Asks the head once. Raises BootError when it refuses."""
        url = f"http://{self._settings.head_address}:{ENROLMENT_PORT}/enrol"
        request = urllib.request.Request(url, headers={"X-Dhctl-Nonce": self._settings.nonce or ""})
        try:
            with _direct().open(request, timeout=ENROL_TRY_S) as answer:
                body = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            told = error.read().decode(errors="replace")[:500]
            raise BootError(f"the head refuses this worker: {told}") from error
        except (OSError, ValueError):
            return False  # the head is not there yet, or is starting again
        write_whole(self._folder.code, base64.b64decode(body["code"]))
        write_whole(self._folder.secrets, json.dumps(body["secrets"]).encode())
        return True

    def _not_enrolled(self) -> NoReturn:
        address = f"{self._settings.head_address}:{ENROLMENT_PORT}"
        raise BootError(
            f"the head did not answer at {address} within {SECRETS_S:.0f} s; look whether the head lives, and whether "
            "the site lets members of a security group reach each other"
        )

    def _ready(self) -> bool:
        state = read_json(self._folder.agent)
        if state.get("state") == "failed":
            raise BootError(str(state.get("reason")), str(state.get("log", "")))
        return state.get("state") == "ready"

    def _not_ready(self) -> NoReturn:
        log = self._folder.logs / "ray.log"
        text = log.read_text(errors="replace") if log.exists() else ""
        raise BootError(f"Ray did not answer {READY_S:.0f} s after its start; the log says more", text)

    def _fail(self, reason: str, log: str) -> None:
        self._console.tell("failed", reason=reason, log=log)
        if self._settings.role != HEAD:
            send_report(self._settings, reason)


def send_report(settings: NodeSettings, reason: str = "") -> bool:
    """Tells the head that this worker works, or why it cannot; whether it took it. The console has it too."""
    url = f"http://{settings.head_address}:{ENROLMENT_PORT}/report"
    body = json.dumps({"node": settings.node_id, "reason": reason[:2000]}).encode()
    request = urllib.request.Request(url, body, {"X-Dhctl-Nonce": settings.nonce or ""}, method="POST")
    try:
        with _direct().open(request, timeout=ENROL_TRY_S):
            return True
    except OSError:
        return False


def _direct() -> urllib.request.OpenerDirector:
    """The head is in the same network: never by a proxy of the site."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _await(
    done: Callable[[], bool], seconds: float, give_up: Callable[[], NoReturn], every_s: float = LOOK_EVERY_S
) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            give_up()
        time.sleep(every_s)


def _not_pushed() -> NoReturn:
    raise BootError(
        f"no code and secrets came within {SECRETS_S:.0f} s; look whether `dhctl up` still runs, and whether SSH "
        "reaches the head (openstack.ssh_from, openstack.bastion)"
    )


def _host_key() -> str:
    """cloud-init makes the key in an earlier stage; some images make it on their own a little later."""

    def give_up() -> NoReturn:
        raise BootError(
            f"the image makes no {HOST_KEY} within {HOST_KEY_S:.0f} s; use an image with an SSH server and cloud-init"
        )

    _await(lambda: HOST_KEY.exists() and bool(HOST_KEY.read_text().strip()), HOST_KEY_S, give_up)
    return " ".join(HOST_KEY.read_text().split()[:2])


def _unpack(code: Path) -> None:
    """Our own tar file, made by the client from its own modules."""
    fresh = Path(f"{CODE_FOLDER}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    with tarfile.open(code) as packed:
        for member in packed.getmembers():
            if not member.isfile() or member.name.startswith("/") or ".." in Path(member.name).parts:
                raise BootError(f"code.tar holds {member.name}, which is no plain file below its folder")
        packed.extractall(fresh)  # looked at above: the argument filter= is younger than some systems' Python
    shutil.rmtree(CODE_FOLDER, ignore_errors=True)
    fresh.rename(CODE_FOLDER)


def start_agent(settings: NodeSettings, folder: ServerFolder, python: str) -> subprocess.Popen[bytes] | None:
    """As a systemd unit that comes back after a crash or reboot; where there is no systemd, in a session of its own.

    The process, where it was started here. Raises BootError.
    """
    log = folder.logs / "agent.log"
    if not SYSTEMD.is_dir():
        with log.open("ab") as output:
            return subprocess.Popen(
                [python, "-u", "-m", AGENT],
                env={**os.environ, "PYTHONPATH": CODE_FOLDER},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
            )
    UNIT.write_text(UNIT_TEXT.format(node_id=settings.node_id, code=CODE_FOLDER, python=python, agent=AGENT, log=log))
    for words in (["daemon-reload"], ["enable", "--now", UNIT.name]):
        done = subprocess.run(["systemctl", *words], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise BootError(f"systemctl {words[0]} failed; the log says why", done.stdout + done.stderr)
    return None


def main() -> int:
    """Entry point of the zip file."""
    folder = ServerFolder.here()
    body: dict[str, Any] = json.loads(folder.settings.read_text())
    return Boot(NodeSettings.from_dict(body), folder).run()


if __name__ == "__main__":
    sys.exit(main())
