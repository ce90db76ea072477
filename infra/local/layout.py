"""The run folder of a local cluster: where its parts lie, who made it, and removing exactly it.

<scratch>/<run id>/mark.json     whose it is       tmp/<n>/  Ray's temp-dir of each node
                   token         0600              t/        TMPDIR of everything in the run
                   settings.json                   nodes/    one record a node
                   autoscaling.json                logs/     what supervisors and autoscaler print
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from dhctl.infra.errors import ClusterError
from dhctl.infra.spec import RunSpec

LONGEST_SOCKET = "/dh-aaaaaaaaaa/tmp/aaaaaa/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
SOCKET_PATH_LIMIT = 107
"""Bytes of a Unix socket's path that Linux takes (sun_path less its end); Ray's sockets lie in the run folder."""


def scratch_root(spec: RunSpec) -> Path:
    """The folder in which run folders lie: the spec's, else one of this user's own under /tmp.

    Never by $TMPDIR: a later shell with another value would look for the run in another place.
    """
    return Path(spec.local.scratch or f"/tmp/dhctl-{os.getuid()}")


@dataclass(frozen=True)
class RunFolder:
    """The folder of one living local cluster."""

    root: Path
    run_id: str

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.root / self.run_id

    @property
    def token(self) -> Path:
        """The file with Ray's token."""
        return self.path / "token"

    @property
    def nodes(self) -> Path:
        """One JSON record a node."""
        return self.path / "nodes"

    @property
    def logs(self) -> Path:
        """Logs of supervisors and autoscaler."""
        return self.path / "logs"

    @property
    def settings(self) -> Path:
        """The cluster's settings, read by the autoscaler."""
        return self.path / "settings.json"

    @property
    def temp(self) -> Path:
        """TMPDIR of all processes of the run, so that what a killed job leaves goes with the run folder."""
        return self.path / "t"

    def ray_temp(self, node_id: str) -> Path:
        """Ray's temp-dir of a node; short, because sockets lie deep below it."""
        return self.path / "tmp" / node_id.rpartition("-")[2][:6]

    def create(self) -> None:
        """Makes the folder and marks it. Raises ClusterError when the root belongs to somebody else."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.root.stat().st_uid != os.getuid():
            raise ClusterError(f"{self.root} belongs to another user", "set local.scratch to a folder of yours")
        self.path.mkdir(mode=0o700)
        (self.path / "mark.json").write_text(json.dumps({"run": self.run_id}) + "\n")
        for folder in (self.nodes, self.logs, self.path / "tmp", self.temp):
            folder.mkdir()

    def is_ours(self) -> bool:
        """Whether the folder is there and proves to be this run's: our user's, with its mark, or still empty."""
        if not self.path.is_dir() or self.path.is_symlink() or self.path.stat().st_uid != os.getuid():
            return False
        try:
            marked = json.loads((self.path / "mark.json").read_text())
        except (OSError, ValueError):
            return not any(p.name != "mark.json" for p in self.path.iterdir())  # killed before it was marked
        return bool(marked == {"run": self.run_id})

    def remove(self) -> None:
        """Deletes the folder if it proves to be ours; the root too when it is empty then and was our default."""
        if self.is_ours():
            shutil.rmtree(self.path)
        if self.root.name == f"dhctl-{os.getuid()}" and self.root.is_dir() and not any(self.root.iterdir()):
            self.root.rmdir()
