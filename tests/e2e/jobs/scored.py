"""Scores a rule on a small table, on a worker, and hands over a metric with an interval and a model."""

import json
import os
from pathlib import Path

import ray

ray.init(log_to_driver=False)


@ray.remote(num_cpus=1)
def scores(folder: str) -> list[int]:
    """1 for each row of the table that the rule gets right."""
    rows = [line.split(",") for line in Path(folder, "table.csv").read_text().splitlines()[1:]]
    return [int((float(value) > 0.5) == bool(int(label))) for _, value, label in rows]


right = ray.get(scores.remote(os.environ["DHCTL_DATA"]))
share = sum(right) / len(right)
print('@dhctl {"type":"progress","stage":"score","step":1,"of":1,"metrics":{"accuracy":%f}}' % share)
output = Path(os.environ["DHCTL_OUTPUT"])
output.mkdir(parents=True, exist_ok=True)
(output / "model.pt").write_bytes(b"x > 0.5")
metric = {"name": "accuracy", "value": share, "ci95": [share - 0.1, share + 0.1]}
result = {"metric": {**metric, "baseline": {"name": "most frequent", "value": 0.5}}, "rows": len(right)}
print("@dhctl " + json.dumps({"type": "result", "result": result}), flush=True)
