"""What lies where in a crate, and the words by which it is known again."""

from __future__ import annotations

from dataclasses import dataclass

METADATA = "ro-crate-metadata.json"
RUN = "run.json"
SPEC = "spec.json"
GIVEN = "spec.given.json"
RECEIPT = "receipt.json"
TIMELINE = "timeline.jsonl"
CODE = "code"
CHECKPOINTS = "checkpoints"

PROCESS_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
"""Process Run Crate; docs/adr/0015 says why not Workflow Run Crate."""

RO_CRATE = "1.1"
"""The version of RO-Crate that the profile builds on."""

TERMS = {
    name: f"https://w3id.org/ro/terms/workflow-run#{name}"
    for name in ("sha256", "containerImage", "ContainerImage", "registry", "tag")
}
"""Terms of the profile, in the crate's own context: a reader needs no second one from the network."""


@dataclass(frozen=True)
class Agent:
    """The person who is told to have started the run, because they said so."""

    name: str
    orcid: str | None = None

    @property
    def id(self) -> str:
        """The ORCID as a URL, else a name inside the crate."""
        return f"https://orcid.org/{self.orcid}" if self.orcid else "#agent"


def code_folder(sha256: str) -> str:
    """Where code of this digest lies, with its slash."""
    return f"{CODE}/{sha256[:12]}/"


def job_file(number: int, name: str) -> str:
    """Where a job's result.json, metrics.jsonl or environment.json lies."""
    return f"jobs/{number}/{name}"
