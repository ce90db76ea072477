"""Fits a line by gradient descent, its two halves of the data on two workers; tells the loss of each epoch."""

import time

import ray

from dhctl.ray_jobs import report

EPOCHS = 12


@ray.remote(num_cpus=1)
def slope(weight, rows):
    """Gradient and loss of one half of the data."""
    time.sleep(0.4)
    errors = [weight * x - 3 * x for x in rows]
    return sum(2 * e * x for e, x in zip(errors, rows, strict=True)) / len(rows), sum(e * e for e in errors) / len(rows)


ray.init()
weight = 0.0
for epoch in range(1, EPOCHS + 1):
    (left, loss), (right, validation) = ray.get([slope.remote(weight, [0.5, 1.0]), slope.remote(weight, [0.8, 1.1])])
    weight -= 0.2 * (left + right) / 2
    report.progress("train", epoch, EPOCHS, {"loss": loss, "validation_loss": validation, "weight": weight})
report.warning("the data of this job are <made up>")
metric = {"name": "slope", "value": weight, "ci95": [weight - 0.1, weight + 0.1]}
report.result({"metric": {**metric, "baseline": {"name": "no training", "value": 0.0}}, "seed": 1})
