"""The line protocol between a job and dhctl."""

from __future__ import annotations

import pytest

from dhctl.ray_jobs import report
from dhctl.ray_jobs.report import Notice, Progress, Result, parse


def test_what_is_reported_is_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    report.progress("train", 2, 5, {"loss": 0.5, "broken": float("nan")})
    report.result({"metric": {"value": 0.9}})
    report.warning("two\nlines")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        '@dhctl {"type":"progress","stage":"train","step":2,"of":5,"unit":"epoch","metrics":{"loss":0.5}}'
    )
    assert [parse(line) for line in lines] == [
        Progress("train", 2, 5, "epoch", {"loss": 0.5}),
        Result({"metric": {"value": 0.9}}),
        Notice("two lines"),
    ]


@pytest.mark.parametrize(
    "prefix",
    [
        "(RayTrainWorker pid=41) ",
        "\x1b[36m(TrainController pid=7, ip=10.0.0.3)\x1b[0m ",
        "(pid=9) ",
    ],
)
def test_a_line_through_rays_log_is_parsed(prefix: str) -> None:
    line = prefix + '@dhctl {"type":"warning","text":"low"}\x1b[32m [repeated 2x across cluster]\x1b[0m'
    assert parse(line) == Notice("low")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "epoch 3",
        "@dhctl",
        "@dhctl {",
        "@dhctl []",
        '@dhctl {"type":"progress","stage":"train"}',
        '@dhctl {"type":"progress","stage":1,"step":1,"of":1}',
        '@dhctl {"type":"later"}',
        'see @dhctl {"type":"warning","text":"quoted"}',
        "@dhctl " + "[" * 100_000,
    ],
)
def test_malformed_lines_are_ordinary_output(line: str) -> None:
    assert parse(line) is None


def test_a_result_must_be_json() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        report.result({"value": float("nan")})
