"""The page itself: what is read of a run, drawn and put into the template. Nothing of it is fetched from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import escape

from dhctl.infra.crate.secrets import secrets_of
from dhctl.infra.errors import StateFolderError
from dhctl.infra.record import RunRecord
from dhctl.infra.report_page import reproduce, words
from dhctl.infra.report_page.acts import sentence
from dhctl.infra.report_page.curves import curves_of
from dhctl.infra.report_page.interval_chart import interval_chart
from dhctl.infra.report_page.jobs import chain
from dhctl.infra.report_page.line_chart import line_chart, summary
from dhctl.infra.report_page.nodes import peak
from dhctl.infra.report_page.story import RunStory, read_story
from dhctl.infra.report_page.tariff import Tariff, cost_of
from dhctl.infra.report_page.timeline_chart import Ruler, timeline_of
from dhctl.infra.report_page.troubles import SHOWN
from dhctl.infra.report_page.verdict import Verdict, verdict_of
from dhctl.infra.report_page.workers_chart import Wanted, workers_chart
from dhctl.infra.spec import PHANTOMS

HERE = Path(__file__).parent
RESULT_ROWS = 300


def render(record: RunRecord, tariff: Tariff | None, now: datetime) -> tuple[str, Verdict]:
    """The page, and its verdict. Raises StateFolderError when the record holds neither ledger nor spec."""
    story = read_story(record, now)
    verdict = verdict_of(story)
    templates = _templates()
    body = templates.get_template("body.html.j2").render(_facts(story, verdict, tariff))
    style, script = ((HERE / name).read_text() for name in ("style.css", "comfort.js"))
    page = templates.get_template("page.html.j2").render(
        title=f"{story.name} · {verdict.title}",
        body=withheld(body, record),
        style=style,
        script=script,
        style_hash=_digest(style),
        script_hash=_digest(script),
    )
    return page, verdict


def _templates() -> Environment:
    """Everything that is put in is escaped, unless it was made of elements here."""
    found = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for word in (sentence, words.duration, words.moment, words.value, words.hours, words.money):
        found.filters[word.__name__] = word
    return found


def withheld(body: str, record: RunRecord) -> str:
    """The page without what opens the run or its stores, should a job have printed it."""
    try:
        secrets = secrets_of(record)
    except (StateFolderError, OSError):
        return body  # no spec tells what the secrets of this run are
    for secret, told in sorted(secrets.items(), key=lambda one: -len(one[0])):
        text = secret.decode(errors="replace")
        for form in {text, str(escape(text))}:
            body = body.replace(form, str(escape(f"({told} withheld)")))
    return body


def _digest(text: str) -> str:
    """By which the page's own rules admit exactly this style and this script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _facts(story: RunStory, verdict: Verdict, tariff: Tariff | None) -> Mapping[str, Any]:
    """What the template shows, by the names that it uses."""
    job = story.job
    told = [one for one in reversed(story.jobs) if one.metric]
    metric = told[0].metric if told else None
    rows = reproduce.flat(job.result) if job and job.result else []
    return {
        "story": story,
        "verdict": verdict,
        "job": job,
        "metric": metric,
        "metric_chart": interval_chart(metric) if metric else None,
        "cost": cost_of(story.usage, tariff) if tariff else None,
        "peak": peak(story.nodes),
        "phantoms": story.given.get("data") == PHANTOMS,
        "troubles": story.troubles[:SHOWN],
        "result_rows": rows[:RESULT_ROWS],
        "spec_text": reproduce.spec_text(story),
        "versions": reproduce.versions(story),
        "packages": reproduce.all_packages(story),
        "digests": reproduce.digests(story),
        **_drawn(story),
    }


def _drawn(story: RunStory) -> Mapping[str, Any]:
    """The pictures."""
    ruler, spec = Ruler.of(story.life), story.spec
    curves = curves_of(chain(story.jobs))
    jobs = [phase for phase in story.life.phases if phase.name.startswith("job ")]
    wanted = Wanted(spec.workers.max, spec.job_workers, spec.job_workers_min) if spec else None
    return {
        "timeline": timeline_of(story.life, story.nodes),
        "axis": ruler.axis(),
        "workers": workers_chart(ruler, story.nodes, jobs, wanted),
        "wanted": wanted,
        "seen": any(node.joined for node in story.nodes),
        "curves": curves,
        "charts": [(chart, line_chart(chart), [(s, summary(s)) for s in chart.series]) for chart in curves.charts],
    }
