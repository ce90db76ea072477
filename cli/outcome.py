"""How a job's end is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dhctl.cli.console import Console
from dhctl.infra.job_outcome import JobOutcome
from dhctl.infra.record import RunRecord


def show_outcome(console: Console, record: RunRecord, outcome: JobOutcome | None) -> None:
    """Status, metric where the result has one, time to model, and where everything lies."""
    if outcome is None:
        console.say(f"no job outcome; the record is {record.folder}", run=record.run_id, status=None)
        return
    folder = record.job_dir(outcome.number)
    lines = [f"job {outcome.status} in {outcome.seconds:.0f} s, {outcome.time_to_model_s:.0f} s after the run's start"]
    lines += metric_lines(outcome.result or {})
    lines.append(f"log, metrics and result: {folder}; checkpoints: {record.output}")
    console.say(
        "\n".join(lines),
        run=record.run_id,
        status=outcome.status,
        exit_code=outcome.exit_code,
        time_to_model_s=outcome.time_to_model_s,
        result=outcome.result,
        folder=str(folder),
        output=record.output,
    )


def metric_lines(result: Mapping[str, Any]) -> list[str]:
    """The metric with its interval and its baseline, in the shape of our own jobs (CONTRIBUTING, "Add a job")."""
    match result.get("metric"):
        case {
            "name": str(name),
            "value": int() | float() as value,
            "ci95": [int() | float() as low, int() | float() as high],
            "baseline": {"name": str(base), "value": int() | float() as against},
        }:
            return [f"{name} {value:.3f} (95 % CI {low:.3f} to {high:.3f}); {base} baseline {against:.3f}"]
        case None:
            return []
        case other:
            return [f"metric {json.dumps(other)}"]
