"""What differs between the run of a crate and another one: what can be known before, and what is known after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from platform import python_version
from typing import Any, Literal

from dhctl.infra.crate.digests import digest_data
from dhctl.infra.crate.facts import JobFacts, RunFacts
from dhctl.infra.crate.read import Crate
from dhctl.infra.crate.rebuild import Rebuilt
from dhctl.infra.spec import TargetName

Verdict = Literal["same", "differs", "not known"]

SHOWN_PACKAGES = 15


@dataclass(frozen=True)
class Row:
    """One thing that was compared. `crate` and `here` are for people."""

    what: str
    crate: str
    here: str
    verdict: Verdict

    @classmethod
    def of(cls, what: str, crate: Any, here: Any) -> Row:
        """Nothing on either side is not known."""
        known = crate not in (None, "") and here not in (None, "")
        return cls(what, _text(crate), _text(here), ("same" if crate == here else "differs") if known else "not known")


def _text(value: Any) -> str:
    return "-" if value in (None, "") else str(value)


def before(crate: Crate, rebuilt: Rebuilt) -> list[Row]:
    """What can be told without a run."""
    run, spec = crate.run, rebuilt.spec
    local = spec.target is TargetName.LOCAL
    data = digest_data(spec.data)
    rows = [
        Row.of("target", run["target"], spec.target.value),
        Row("code", run_code(crate), f"{rebuilt.code_sha256[:12]} ({rebuilt.code})", "same"),
        Row.of("dhctl", run["dhctl"], metadata.version("dhctl")),
        Row.of("engine: pulumi", run["engine"].get("pulumi"), metadata.version("pulumi")),
        _data_row(run["data"], data.to_dict()),
    ]
    if run["residency"]:
        verdict: Verdict = "same" if [spec.site] == run["residency"] else "differs"
        rows.append(Row("site of the data", ", ".join(run["residency"]), spec.site or "-", verdict))
    if run["resumed"]:
        rows.append(Row("begun", "from an earlier run's checkpoint", "from the start", "differs"))
    rows += packages(crate.environment, here_environment() if local else {})
    return rows


def run_code(crate: Crate) -> str:
    """The code that ran, for people."""
    return str(crate.job["code"]["sha256"])[:12]


def _data_row(crate: Mapping[str, Any], here: Mapping[str, Any]) -> Row:
    """Digests of another kind say nothing of each other."""
    if crate.get("kind") != here.get("kind"):
        return Row("data", _text(crate.get("kind")), _text(here.get("kind")), "not known")
    return Row.of("data", str(crate.get("sha256", ""))[:12], str(here.get("sha256", ""))[:12])


def here_environment() -> dict[str, Any]:
    """What a job on this machine would find, as the launcher tells it."""
    found = {one.metadata["Name"]: one.version for one in metadata.distributions() if one.metadata["Name"]}
    return {"python": python_version(), "packages": found}


def packages(crate: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[Row]:
    """Python, then the packages that differ; one row for all where none does."""
    yield Row.of("python", crate.get("python"), here.get("python"))
    then, now = crate.get("packages", {}), here.get("packages", {})
    if not then or not now:
        yield Row("packages", f"{len(then)} known", f"{len(now)} known", "not known")
        return
    differ = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    for name in differ[:SHOWN_PACKAGES]:
        yield Row(f"package {name}", then.get(name, "not there"), now.get(name, "not there"), "differs")
    rest = len(differ) - SHOWN_PACKAGES
    if rest > 0:
        yield Row("packages", f"{rest} more", f"{rest} more", "differs")
    if not differ:
        yield Row("packages", f"{len(then)}", f"{len(now)}", "same")


def after(crate: Crate, facts: RunFacts) -> list[Row]:
    """What the new run's own record tells."""
    run, now = crate.run, facts.body
    rows = [
        Row.of("target", run["target"], now["target"]),
        Row.of("dhctl", run["dhctl"], now["dhctl"]),
        Row.of("workers at most", crate.spec["workers"].get("max"), facts.admitted["workers"].get("max")),
        _data_row(run["data"], now["data"]),
        *(
            Row.of(f"engine: {name}", run["engine"].get(name), now["engine"].get(name))
            for name in sorted(run["engine"])
        ),
    ]
    rows += _images(run["images"], now["images"])
    job = facts.told_job
    if job:
        rows += _job_rows(crate, job)
    rows.append(Row.of("worker seconds", run["worker_seconds"], now["worker_seconds"]))
    return rows


def _images(crate: list[Mapping[str, Any]], here: list[Mapping[str, Any]]) -> Iterator[Row]:
    if crate or here:
        told = [", ".join(sorted({str(image.get("digest", ""))[:19] for image in images})) for images in (crate, here)]
        yield Row.of("image", *told)


def _job_rows(crate: Crate, job: JobFacts) -> Iterator[Row]:
    then, now = crate.result, job.result
    yield Row.of("code", run_code(crate), job.code_sha256[:12])
    yield from packages(crate.environment, job.environment)
    for name in sorted({*then.get("digests", {}), *now.get("digests", {})}):
        yield Row.of(f"digest: {name}", *(str(one.get("digests", {}).get(name, ""))[:12] for one in (then, now)))
    yield Row.of("metric", metric_text(then), metric_text(now))
    yield Row.of("job, seconds", crate.job.get("seconds"), job.outcome.get("seconds"))
    yield Row.of("time to model, seconds", crate.job.get("time_to_model_s"), job.outcome.get("time_to_model_s"))


def metric_text(result: Mapping[str, Any]) -> str:
    """Name, value and interval; "" where there is none."""
    metric = result.get("metric") or {}
    if "value" not in metric:
        return ""
    interval = f" ({metric['ci95'][0]:.4g} to {metric['ci95'][1]:.4g})" if _interval(metric) else ""
    return f"{metric.get('name', 'metric')} {metric['value']:.4g}{interval}"


def _interval(metric: Mapping[str, Any]) -> tuple[float, float] | None:
    match metric.get("ci95"):
        case [int() | float() as low, int() | float() as high]:
            return low, high
        case _:
            return None


@dataclass(frozen=True)
class Judgement:
    """Whether the metric was reproduced, as a sentence."""

    reproduced: bool
    sentence: str


def judge(crate: Crate, facts: RunFacts) -> Judgement:
    """The new metric must lie within the old one's 95 % interval, its ends included."""
    then = crate.result.get("metric") or {}
    now = (facts.told_job.result.get("metric") or {}) if facts.told_job else {}
    bounds = _interval(then)
    if bounds is None:
        return Judgement(False, "the crate tells no metric with a 95 % interval, so nothing can be judged")
    if then.get("name") != now.get("name") or "value" not in now:
        return Judgement(False, f"the new run tells no {then.get('name')}, so nothing can be judged")
    low, high = bounds
    inside = low <= now["value"] <= high
    told = f"{then.get('name')} {now['value']:.4g} lies {'within' if inside else 'outside'} {low:.4g} to {high:.4g}"
    return Judgement(inside, f"{told}, the interval of the crate's {then['value']:.4g}")
