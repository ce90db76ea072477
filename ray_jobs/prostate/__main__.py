"""`python -m dhctl.ray_jobs.prostate`: the whole job, or one stage of it."""

import sys

from dhctl.ray_jobs.pipeline.command import run
from dhctl.ray_jobs.prostate.recipe import RECIPE

if __name__ == "__main__":
    sys.exit(run(RECIPE))
