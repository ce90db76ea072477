"""The main process of the head's container: keeps Ray's head and the autoscaler running, as any user but root. Standard
library only.

A head whose Ray died gets a new one with a new id, which finds its workers again by the tables on the pod's volume; so
does one whose container is started again.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhctl.infra.kubernetes.node.settings import IP_ENV, PodSettings, secret_folder
from dhctl.infra.kubernetes.node.worker import usable_home
from dhctl.infra.mark import RUN_ENV
from dhctl.infra.node.agent import Agent
from dhctl.infra.node.journal import NodeJournal
from dhctl.infra.node.layout import CODE_FOLDER, NodeFolder, read_json, write_json
from dhctl.infra.node.ray_head import RayHead
from dhctl.infra.node.site import NodeSite

PROVIDER = "dhctl.infra.kubernetes.node.node_provider.PodNodeProvider"
CODE_ENV = "DHCTL_NODE_CODE"
"""Names the folder in which dhctl's code was unpacked; by default CODE_FOLDER."""

GRACE_S = 1.5
"""For Ray's head to end by itself: with the autoscaler's end before, all is over within 5 s."""

PACE = {"AUTOSCALER_MAX_CONCURRENT_LAUNCHES": "200", "AUTOSCALER_MAX_LAUNCH_BATCH": "25"}
"""Workers asked for in one round, and by each of its threads: a pod takes the API milliseconds, and Ray's own 10 of 5
are meant for machines, which take a cloud seconds."""


@dataclass(frozen=True)
class PodSite(NodeSite):
    """The head's pod."""

    settings: PodSettings

    @property
    def address(self) -> str:
        """The pod's."""
        return os.environ[IP_ENV]

    @property
    def token(self) -> Path:
        """In the run's secret."""
        return secret_folder() / "token"

    @property
    def memory_bytes(self) -> int:
        """The container's limit, not the machine's memory."""
        return self.settings.head_memory_bytes

    @property
    def python_path(self) -> str:
        """The image's own, behind dhctl's code: Ray itself may lie on it."""
        return os.pathsep.join(filter(None, [_code(), _image_path()]))

    def own_env(self) -> dict[str, str]:
        """For dhctl's own processes: what spec and image say, and dhctl's code."""
        kept = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
        return {**kept, "PATH": path, "PYTHONPATH": self.python_path, RUN_ENV: self.settings.run_id}

    def job_base(self) -> dict[str, str]:
        """What jobs inherit of it: dhctl's code is not on their path."""
        env = {k: v for k, v in self.own_env().items() if k != "PYTHONPATH"}
        env["HOME"] = usable_home(env.get("HOME", ""), str(self.folder.path))
        return {**env, "PYTHONPATH": _image_path()} if _image_path() else env


def _code() -> str:
    return os.environ.get(CODE_ENV, CODE_FOLDER)


def _image_path() -> str:
    """PYTHONPATH as spec and image have it."""
    return os.pathsep.join(p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != _code())


def site_here() -> PodSite:
    """This pod. Raises OSError, ValueError and TypeError when it was told nothing, or nothing whole."""
    folder = NodeFolder.here()
    folder.make()
    job_env: dict[str, Any] = read_json(secret_folder() / "env.json")
    return PodSite(PodSettings.here(), folder, NodeJournal(folder), {k: str(v) for k, v in job_env.items()})


def main() -> int:
    """Entry point."""
    site = site_here()
    write_json(site.folder.agent, {"state": "starting", "pid": os.getpid()}, 0o644)
    reason = _missing(site)
    if reason:
        write_json(site.folder.agent, {"state": "failed", "reason": f"{reason}; this is a fault of dhctl"}, 0o644)
        return 1
    Agent([RayHead(site, {"module": PROVIDER}, GRACE_S, PACE)]).run()
    return 0


def _missing(site: PodSite) -> str:
    if not os.environ.get(IP_ENV):
        return f"the head's pod has no {IP_ENV}"
    try:
        return "" if site.token.read_text().strip() else "the run's secret holds no token"
    except OSError as error:
        return f"the run's secret cannot be read ({error})"


if __name__ == "__main__":
    sys.exit(main())
