"""Driving `dhctl` against the testbed, and looking at the cluster afterwards without trusting it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from dhctl.infra.ray_api import alive_nodes
from dhctl.infra.record import RunRecord
from dhctl.stacks.targets import target_for
from e2e.driver import JOBS, Dhctl
from testbeds.kubernetes.layout import IMAGE
from testbeds.kubernetes.project import PYTHON, project_volumes


def section(namespace: str | None) -> dict[str, Any]:
    """The spec's section for the testbed: this project's environment, mounted from the nodes."""
    volumes, mounts, env = project_volumes()
    return {
        **({"namespace": namespace} if namespace else {}),
        "image": IMAGE,
        "python": PYTHON,
        "head_cpus": "200m",
        "volumes": volumes,
        "volume_mounts": mounts,
        "env": {entry["name"]: entry["value"] for entry in env},
    }


@dataclass
class PodRuns(Dhctl):
    """The command, with a namespace and a bucket for its results."""

    bucket: str = ""
    namespace: str = ""

    def spec(self, script: str, **changes: Any) -> str:
        """Writes a spec of target kubernetes for one of the small jobs in tests/e2e/jobs; its name."""
        body = {
            "name": script,
            "target": "kubernetes",
            "lease": "20m",
            "workers": {"min": 0, "max": 2, "memory": "512MiB", "idle_timeout": "8s"},
            "job": {"folder": str(JOBS), "entrypoint": f"python {script}.py"},
            "output": f"{self.bucket}/{self.folder.name}",
            **changes,
            "kubernetes": {
                **section(self.namespace),
                "head_memory": "2GiB",
                "ray": "pods",
                **changes.get("kubernetes", {}),
            },
        }
        (self.folder / f"{script}.json").write_text(json.dumps(body))  # JSON is YAML
        return f"{script}.json"


def workers(record: RunRecord) -> int:
    """Workers alive in Ray's view, through a port forward of our own."""
    with target_for(record.spec.target).connect(record) as connection:
        return len(alive_nodes(connection)) - 1
