"""Counts epochs of half a second and keeps how far it is in its output: it goes on from there when it is sent again.

Each step of an epoch leaves an object in the output, so that a test sees what was done twice or never. One worker takes
part, so that there is one that the head's loss concerns.
"""

import os
import secrets
import time

import ray

from dhctl.ray_jobs.report import progress, result
from dhctl.ray_jobs.storage import open_store

EPOCHS, STEPS, STEP_S = 16, 5, 0.1
CHECKPOINT = "checkpoint.json"


@ray.remote(num_cpus=1)
class Worker:
    """Does a step's work."""

    def step(self, number: int) -> int:
        """Takes its time."""
        time.sleep(STEP_S)
        return number


output = open_store(os.environ["DHCTL_OUTPUT"])
done = output.read_json(CHECKPOINT)["epochs"] if output.exists(CHECKPOINT) else 0
print(f"begins after epoch {done}", flush=True)
for epoch in range(1, done + 1):  # what was told to a client that was lost with the head, or to none
    progress("train", epoch, EPOCHS, {"loss": 1 / epoch})
ray.init(log_to_driver=False)
worker = Worker.remote()
for epoch in range(done + 1, EPOCHS + 1):
    for step in range(STEPS):
        ray.get(worker.step.remote(step))
        output.write(f"steps/{epoch}-{step}-{secrets.token_hex(4)}", b"")
    output.write_json(CHECKPOINT, {"epochs": epoch})
    progress("train", epoch, EPOCHS, {"loss": 1 / epoch})
result({"epochs": EPOCHS, "began_after": done})
