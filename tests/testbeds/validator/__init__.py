"""roc-validator, of the version that is pinned here, in an environment of its own (`.tools/roc-validator`).

It is made by uv when a session first needs it, and anew when requirements.txt changes. It checks without a network:
what it would fetch, the JSON-LD context of RO-Crate 1.1, comes out of a package (check.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import filelock

HERE = Path(__file__).parent
REPO = HERE.parents[2]
REQUIREMENTS = HERE / "requirements.txt"
INSTALL_S, CHECK_S = 180.0, 60.0


@dataclass(frozen=True)
class Report:
    """What the validator says. `checks` counts those that were made; `issues` are its sentences."""

    passed: bool
    profiles: list[str]
    checks: int
    issues: list[str]


def environment() -> Path:
    """The environment's Python, installed first if need be."""
    folder = REPO / ".tools" / "roc-validator"
    python = folder / "bin" / "python"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    folder.parent.mkdir(exist_ok=True)
    with filelock.FileLock(folder.with_suffix(".lock"), timeout=INSTALL_S):
        done = folder / "installed"
        if not done.exists() or done.read_text() != wanted:
            uv = shutil.which("uv") or str(REPO / ".tools" / "bin" / "uv")
            _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
            _run([uv, "pip", "install", "--quiet", "--python", str(python), "--requirements", str(REQUIREMENTS)])
            done.write_text(wanted)
    return python


def validate(crate: Path, work: Path, profile: str = "process-run-crate", severity: str = "REQUIRED") -> Report:
    """Checks a crate, a folder or a zip file, against a profile and those below it; `work` is an empty folder."""
    command = [str(environment()), "-I", str(HERE / "check.py"), str(crate), str(work), profile, severity]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_S, check=False, cwd=work)
    assert done.returncode == 0, done.stderr
    return Report(**json.loads(done.stdout.splitlines()[-1]))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False, env=os.environ)
    assert done.returncode == 0, f"roc-validator cannot be installed: {done.stderr}"
