"""Ray's autoscaler (ray.autoscaler.v2.monitor) that looks four times a second: Ray's own setting takes whole seconds.

Half of its pause is what a worker waits for on average; see docs/benchmarks-kubernetes.md.
"""

from __future__ import annotations

import runpy

from ray.autoscaler._private import constants

PAUSE_S = 0.25


def main() -> None:
    """Runs Ray's own program with our pause, which it reads from this module of constants when it is imported."""
    constants.AUTOSCALER_UPDATE_INTERVAL_S = PAUSE_S
    runpy.run_module("ray.autoscaler.v2.monitor", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
