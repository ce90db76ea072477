"""A job of one's own: cross-validation of a small classifier, one Ray task a fold.

It reads DHCTL_DATA, writes what it needs to go on into DHCTL_OUTPUT, and tells dhctl how far it is. Everything else is
ordinary Ray and NumPy.
"""

import json
import os
from pathlib import Path

import numpy as np
import ray
from model import auc, fit, predict, standardised

from dhctl.ray_jobs import report

PARAMS = json.loads(os.environ["DHCTL_JOB_PARAMS"])
FOLDS = PARAMS.get("folds", 5)
SEED = PARAMS.get("seed", 0)


@ray.remote(num_cpus=1)
def grade_fold(features, labels, held_out):
    """Probabilities for the held-out rows, from a model that has not seen them. Runs on a worker."""
    weights = fit(features[~held_out], labels[~held_out])
    return predict(weights, features[held_out]).tolist()


def main():
    """Every fold that is not in the output yet, then the result."""
    table = np.genfromtxt(Path(os.environ["DHCTL_DATA"], "nuclei.csv"), delimiter=",", skip_header=3)
    features, labels = standardised(table[:, :-1]), table[:, -1]
    fold_of = np.random.default_rng(SEED).permutation(len(labels)) % FOLDS
    output = Path(os.environ["DHCTL_OUTPUT"])
    output.mkdir(parents=True, exist_ok=True)
    done = {k: output / f"fold-{k}-of-{FOLDS}-seed-{SEED}.json" for k in range(FOLDS)}

    ray.init()
    running = {grade_fold.remote(features, labels, fold_of == k): k for k in range(FOLDS) if not done[k].exists()}
    print(f"{FOLDS} folds, {FOLDS - len(running)} of them done by an earlier job", flush=True)
    while running:
        (ready,), _ = ray.wait(list(running))
        fold = running.pop(ready)
        done[fold].write_text(json.dumps(ray.get(ready)))  # the checkpoint of this job
        report.progress("cross-validation", FOLDS - len(running), FOLDS, unit="fold")

    scores = np.empty(len(labels))
    for fold, path in done.items():
        scores[fold_of == fold] = json.loads(path.read_text())
    draws = np.random.default_rng(SEED).integers(0, len(labels), (1000, len(labels)))
    low, high = np.quantile([auc(labels[draw], scores[draw]) for draw in draws], [0.025, 0.975])
    baseline = {"name": "radius alone", "value": round(auc(labels, features[:, 0]), 4)}
    metric = {"name": "auc", "value": round(auc(labels, scores), 4), "ci95": [round(low, 4), round(high, 4)]}
    report.result({"metric": {**metric, "baseline": baseline}, "rows": len(labels), "folds": FOLDS})


main()
