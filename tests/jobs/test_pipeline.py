"""The shape that jobs share, on a job that is nearly nothing."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dhctl.ray_jobs.pipeline.command import run
from dhctl.ray_jobs.pipeline.intervals import bootstrap_interval
from dhctl.ray_jobs.pipeline.job import Job
from dhctl.ray_jobs.pipeline.recipe import Recipe
from dhctl.ray_jobs.storage import Store
from dhctl.ray_jobs.training.fit import read_model
from dhctl.ray_jobs.training.settings import TrainingSettings, settings_from
from jobs.sample_task import PROFILES, Sides


@dataclass(frozen=True)
class Cohort:
    """A number of cases."""

    cases: int
    digest: str = "0123456789"
    skipped: tuple[Any, ...] = ()

    def part(self, name: str) -> list[int]:
        return list(range(self.cases if name == "train" else 4))


def phantoms(job: Job[TrainingSettings]) -> Store:
    def fill(store: Store) -> None:
        done = [outcome for _, outcome in job.each("phantoms", "case", str, range(20))]
        store.write("cases.txt", "\n".join(map(str, done)).encode())

    return job.generate(("seed",), "cases.txt", fill)


def prepare(job: Job[TrainingSettings], data: Store) -> Cohort:
    job.shards.write("index.json", str(len(data.read("cases.txt").splitlines())).encode())
    return read_cohort(job)


def read_cohort(job: Job[TrainingSettings]) -> Cohort:
    return Cohort(job.shards.read_json("index.json"))


def evaluate(job: Job[TrainingSettings], cohort: Cohort, state: Mapping[str, Any]) -> dict[str, Any]:
    baseline = {"name": "guessing", "value": 0.5}
    value = float(state["2.weight"].abs().mean())
    metric = {"name": "weight", "value": value, "ci95": [0, 1], "baseline": baseline, "baselines": [baseline]}
    return {"metric": metric, "cases": cohort.cases, "device": job.device.type}


RECIPE = Recipe(
    name="sides",
    summary="Tell sides",
    sample="case",
    what_phantoms_are="generated",
    settings=lambda params: settings_from(TrainingSettings, PROFILES, params),
    phantoms=phantoms,
    prepare=prepare,
    read_cohort=read_cohort,
    task=lambda _, cohort: Sides(samples=cohort.cases),
    evaluate=evaluate,
    predict=lambda job, data: {"layers": len(read_model(job.trained)["model"]), "data": data.root},
)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DHCTL_DATA", "phantoms")
    monkeypatch.setenv("DHCTL_OUTPUT", str(tmp_path / "out"))
    monkeypatch.delenv("DHCTL_JOB_PARAMS", raising=False)


def call(monkeypatch: pytest.MonkeyPatch, *words: str, recipe: Recipe[Any, Any] = RECIPE) -> int:
    monkeypatch.setattr(sys, "argv", ["sides", *words, "--without-ray"])
    return run(recipe)


def test_a_job_from_phantoms_to_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "all") == 0
    assert "weight 0." in capsys.readouterr().out
    found = json.loads((tmp_path / "out/result.json").read_text())
    assert (found["job"], found["data"], found["cases"], found["epochs"]) == ("sides", "generated", 20, 4)
    assert found["best_epoch"] in range(1, 5)
    assert found["workers"]["by_epoch"] == [1, 1, 1, 1]
    assert len(found["validation_accuracy"]) == 4
    assert set(found["seconds"]) == {"phantoms", "prepare", "train", "evaluate"}

    words = ("--output", str(tmp_path / "other"), "--data", "/d", "--param", "stage=predict")
    assert call(monkeypatch, "all", *words) == 1
    assert "set job.params.model_from to the output of a run that trained one" in capsys.readouterr().err
    assert call(monkeypatch, "all", *words, "--param", f"model_from={tmp_path / 'out'}") == 0
    assert '"layers":4,"data":"/d"' in capsys.readouterr().out


def test_a_job_without_prediction_refuses_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = dataclasses.replace(RECIPE, predict=None)
    assert call(monkeypatch, "all", "--param", "stage=predict", recipe=recipe) == 1
    assert "the job sides has no stage predict" in capsys.readouterr().err
    assert call(monkeypatch, "predict", recipe=recipe) == 2


def test_an_interval_resamples_groups_and_leaves_out_undefined_rounds() -> None:
    values = np.array([1.0, 1.0, 5.0, 5.0])
    low, high = bootstrap_interval(["a", "a", "b", "b"], lambda rows: float(values[rows].mean()), seed=0)
    assert (low, high) == (1.0, 5.0)
    low, high = bootstrap_interval(["a", "b"], lambda rows: 3.0 if len(set(rows)) == 2 else float("nan"), seed=0)
    assert (low, high) == (3.0, 3.0)
    assert np.isnan(bootstrap_interval(["a"], lambda _: float("nan"), seed=0)).all()
