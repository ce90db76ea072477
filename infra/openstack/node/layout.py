"""Where the files of a server lie beside those of every node. Standard library only, also for the system's Python.

/var/lib/dhctl/node.json      settings       nonces/    one a worker that may enrol
               secrets.json   0600, pushed   reports/   one a worker that works, or said what is wrong
               code.tar       0600, pushed
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dhctl.infra.node.layout import NodeFolder

INSTALLED = "/opt/dhctl"
"""The virtual environment of a node whose image has no fitting Ray."""

ENROLMENT_PORT = 8099


@dataclass(frozen=True)
class ServerFolder(NodeFolder):
    """The folder of a server."""

    @property
    def settings(self) -> Path:
        """NodeSettings."""
        return self.path / "node.json"

    @property
    def secrets(self) -> Path:
        """Token, credential, environment of jobs."""
        return self.path / "secrets.json"

    @property
    def code(self) -> Path:
        """dhctl's modules as a tar file."""
        return self.path / "code.tar"

    @property
    def cacert(self) -> Path:
        """The cloud's own certificates, where it has such."""
        return self.path / "cacert.pem"

    @property
    def nonces(self) -> Path:
        """Workers that may enrol."""
        return self.path / "nonces"

    @property
    def reports(self) -> Path:
        """What workers said of themselves: ready, or what is wrong."""
        return self.path / "reports"

    def make(self) -> None:
        """Makes the folders; those with secrets are root's alone."""
        super().make()
        for private in (self.nonces, self.reports):
            private.mkdir(mode=0o700, exist_ok=True)
