"""`python -m dhctl.ray_jobs.nodules`: the whole job, or one stage of it."""

from __future__ import annotations

import sys

from dhctl.ray_jobs.nodules.recipe import RECIPE
from dhctl.ray_jobs.pipeline.command import run

if __name__ == "__main__":
    sys.exit(run(RECIPE))
