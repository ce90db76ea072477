"""How a run ended, in a word and a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

from dhctl.infra.errors import InterruptedRunError
from dhctl.infra.record import RunState
from dhctl.infra.report_page.acts import Ending, sentence
from dhctl.infra.report_page.story import RunStory

Tone = Literal["good", "bad", "warn", "busy"]


@dataclass(frozen=True)
class Verdict:
    """What stands at the head of the page. The tone is its colour; the title says the same in words."""

    tone: Tone
    title: str
    sentence: str


def verdict_of(story: RunStory) -> Verdict:
    """From the run's state; of a run that is over, from its job."""
    match story.state:
        case RunState.STARTING:
            return Verdict("busy", "Coming up", "The cluster is being made.")
        case RunState.UP:
            return Verdict("busy", "Up", "The cluster is up, and no job runs on it now.")
        case RunState.TRAINING:
            return Verdict("busy", "Training", "Its job runs, or nobody saw it end.")
        case RunState.RECOVERING:
            return Verdict("busy", "Recovering", "Its head was lost, and another one is brought up.")
        case RunState.STOPPING:
            return Verdict("busy", "Going down", "The run is being taken down.")
        case RunState.FAILED:
            return Verdict("bad", "Did not come up", _why_not_up(story))
        case RunState.LEFTOVERS:
            count = len(story.receipt.leftovers) if story.receipt else 0
            left = (
                f"{count} thing{'s are' if count > 1 else ' is'} left"
                if count
                else "it is not known whether something is left"
            )
            return Verdict("bad", "Not clean", f"{_of_job(story).title}, and {left}: see the receipt.")
        case RunState.CLEAN:
            return _of_job(story)
        case state:
            assert_never(state)


def _of_job(story: RunStory) -> Verdict:
    job = story.job
    if job is None:
        return _of_no_job(story)
    code = "" if job.exit_code in (None, 0) else f" with exit code {job.exit_code}"
    match job.status:
        case "SUCCEEDED":
            return Verdict("good", "Succeeded", "The job is done, and its cluster was taken down.")
        case "STOPPED":
            return Verdict(
                "warn", "Stopped", f"The job was stopped before it was done ({story.reason or 'no reason'})."
            )
        case "":
            return Verdict("warn", "End unknown", f"Nobody saw how the job ended ({story.reason or 'no reason'}).")
        case _:
            return Verdict("bad", "Job failed", f"The job ended{code}: its last lines stand below.")


def _of_no_job(story: RunStory) -> Verdict:
    up = next((phase for phase in story.life.phases if phase.name == "up"), None)
    if up and up.ending is Ending.DONE:
        return Verdict("warn", "No job", f"The cluster was up, and no job was run on it ({story.reason}).")
    if up and up.detail.partition(":")[0] == InterruptedRunError.__name__:
        return Verdict("warn", "Interrupted", "It was stopped while it came up, and taken down.")
    return Verdict("bad", "Did not come up", _why_not_up(story))


def _why_not_up(story: RunStory) -> str:
    failed = [phase.detail for phase in story.life.phases if phase.name == "up" and phase.detail]
    return sentence(failed[-1]) if failed else (story.reason or "The record does not tell why.")
