"""The first thing that runs in a worker's pod: takes the jobs' environment from the run's secret, and becomes Ray.

    python -c <this file> ENV.JSON FOLDER WORD...

Runs `python WORD...` in its own place. Its text stands in the pod, so it imports the standard library alone. The
secret's values are in no pod's specification, which more people may read than secrets.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def usable_home(home: str, folder: str) -> str:
    """`home` when this user can write there, else `folder`: jobs keep caches under HOME."""
    return home if home and os.access(home, os.W_OK) else folder


def environment(path: Path, folder: str) -> dict[str, str]:
    """What Ray's processes find in their environment here; RAY_ADDRESS of an image would lead elsewhere."""
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    secret = json.loads(path.read_text()) if path.exists() else {}
    return {**kept, "HOME": usable_home(kept.get("HOME", ""), folder), **secret}


if __name__ == "__main__":
    os.execve(sys.executable, [sys.executable, *sys.argv[3:]], environment(Path(sys.argv[1]), sys.argv[2]))
