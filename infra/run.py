"""The whole life of a run: up, job, down, whatever happens in between."""

from __future__ import annotations

from dataclasses import dataclass

from dhctl.infra.down import take_down
from dhctl.infra.errors import HeadLostError, InterruptedRunError, JobFailedError
from dhctl.infra.job import train
from dhctl.infra.job_outcome import JobOutcome
from dhctl.infra.receipt import Receipt
from dhctl.infra.record import RunRecord
from dhctl.infra.spec import RunSpec
from dhctl.infra.up import Tools, bring_up


@dataclass(frozen=True)
class RunEnd:
    """How a run ended. `failure` is why it did not do what was asked, or None."""

    record: RunRecord
    outcome: JobOutcome | None
    receipt: Receipt
    failure: BaseException | None

    def require_success(self) -> None:
        """Raises LeftoverError before anything else, then what went wrong."""
        self.receipt.require_clean(self.failure)
        if self.failure:
            raise self.failure


def run(spec: RunSpec, tools: Tools, given: RunSpec | None = None) -> RunEnd:
    """Up, train, down. Raises only when it did not come up; then all is taken down already. `given` as in bring_up."""
    record = bring_up(spec, tools, given)
    outcome, failure = None, None
    reason = "done"
    try:
        outcome = train(record, tools)
        outcome.require_success(record)
    except Exception as error:  # noqa: BLE001 - told after the teardown, which comes first
        failure, reason = error, _why(error)
    receipt = take_down(record, tools.target, tools.engine_of, tools.report, reason)
    return RunEnd(record, outcome, receipt, failure)


def _why(error: Exception) -> str:
    match error:
        case HeadLostError():
            return "head lost"
        case JobFailedError():
            return "job failed"
        case InterruptedRunError():
            return str(error)
        case _:
            return f"{type(error).__name__}: {error}"
