"""How long training stands still after one of its workers was killed, on target local.

python tests/bench/survival.py [--rounds N]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dhctl.infra.engine_install import ensure_engine
from dhctl.infra.events import ignore
from dhctl.infra.home import default_root
from e2e.driver import Dhctl, clean_environment, end_started
from e2e.losses import at_epoch, kill_node, noted_steps, resumed_s

GOAL_S = 30.0


def resume_s() -> float:
    """Seconds from the end of a worker to the next step, in one run of jobs/noted.py."""
    folder = Path(tempfile.mkdtemp(prefix="dhctl-bench-"))
    dhctl = Dhctl(
        folder / "home", folder, clean_environment(ensure_engine(default_root(), ignore).parent, folder / "home")
    )
    try:
        client = dhctl.start("run", dhctl.spec("noted"))
        record = dhctl.until(at_epoch(4))
        killed_at = time.time()
        kill_node(record, "worker")
        said, _ = client.communicate(timeout=300)
        if client.returncode:
            raise RuntimeError(said)
        return resumed_s(noted_steps(record), killed_at)
    finally:
        end_started(dhctl)
        shutil.rmtree(folder)


def main() -> int:
    """Prints each round's figure; status 1 when one is beyond the goal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    took = [resume_s() for _ in range(parser.parse_args().rounds)]
    print(f"resume after worker kill: {', '.join(f'{seconds:.1f} s' for seconds in took)} (goal {GOAL_S:.0f} s)")
    return int(max(took) > GOAL_S)


if __name__ == "__main__":
    sys.exit(main())
