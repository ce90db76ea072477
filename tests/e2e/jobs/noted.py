"""Trains noted_task on the cluster, and once more in this process without a wait and without anybody who kills it."""

import dataclasses
import os

import ray
from noted_task import Noted

from dhctl.ray_jobs.environment import JobEnvironment
from dhctl.ray_jobs.report import result
from dhctl.ray_jobs.storage import open_store
from dhctl.ray_jobs.training.fit import fit, read_model
from dhctl.ray_jobs.training.runner import TrainingOrder
from dhctl.ray_jobs.training.settings import TrainingSettings

output = open_store(os.environ["DHCTL_OUTPUT"])
env = JobEnvironment.from_env(os.environ, needs_data=False)
settings = TrainingSettings(epochs=8, batch=8, learning_rate=0.05)
order = TrainingOrder("noted", Noted(output, step_s=0.25), settings, env, output)
ray.init()
fit(order, with_ray=True)
model = read_model(output)
quiet = dataclasses.replace(order, task=Noted(output, step_s=0.0), output=output.beneath("undisturbed"))
fit(quiet, with_ray=False)
undisturbed = read_model(quiet.output)
losses = {
    name: found["history"][-1]["validation_loss"] for name, found in (("ray", model), ("undisturbed", undisturbed))
}
result({"epochs": len(model["history"]), **losses})
