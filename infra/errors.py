"""Errors a user can meet, each one a sentence with its next step, and the exit codes of every verb.

DhctlError                      exit code
|- UsageError                   2   the spec file or the command line is wrong; nothing was touched
|  |- SpecError                     a key, value or unit in the spec
|  |- TariffError                   a key or price in a tariff
|  `- UnknownRunError               no run of that id or name
|- RefusedError                 1   the request is well formed, but this place cannot serve it now
|  |- AdmissionError                one or more checks before the first write failed
|  |- EngineError                   the Pulumi CLI is missing, of another version, or failed
|  |- StateFolderError              dhctl's own folder cannot be used
|  |- RunBusyError                  another dhctl works on this run
|  |- NotUpError                    the verb needs a cluster that is up
|  `- ClusterError                  the cluster did not come up, or is open to strangers
|- JobFailedError               4   the job failed, hung, or was stopped
|  `- HeadLostError                 its head is lost, and the job with it, until another is brought up
|- LeftoverError                5   something of the run is left, or could not be looked for
`- InterruptedRunError        130   Ctrl-C or SIGTERM, and all was taken down
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """What a verb's exit status says (docs/reference.md has the same table)."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    BUG = 3
    JOB_FAILED = 4
    LEFTOVER = 5
    INTERRUPTED = 130


class DhctlError(Exception):
    """Base of all errors that are shown to the user as a sentence, without a traceback."""

    exit_code: ExitCode = ExitCode.REFUSED

    def __init__(self, what: str, next_step: str = "") -> None:
        """`what` is the sentence; `next_step` says what the user can do about it."""
        joint = "\n  " if "\n" in what else "; "
        super().__init__(f"{what}{joint}{next_step}" if next_step else what)
        self.what = what
        self.next_step = next_step


def _listed(heading: str, problems: Sequence[str]) -> str:
    """One problem goes on in the line; several have a line each."""
    return heading + (problems[0] if len(problems) == 1 else "".join(f"\n  - {problem}" for problem in problems))


class UsageError(DhctlError):
    """The command line or the spec is wrong; nothing was touched."""

    exit_code = ExitCode.USAGE


class SpecError(UsageError):
    """One or more keys or values of a spec file are wrong; each problem is a sentence."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__(_listed(f"{source}: ", self.problems), "`dhctl schema` prints every key")


class TariffError(UsageError):
    """One or more keys or prices of a tariff are wrong; each problem is a sentence."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        super().__init__(_listed(f"{source}: ", problems), 'docs/report.md, "Cost", shows a tariff')


class UnknownRunError(UsageError):
    """No run has this id, id prefix or name."""

    def __init__(self, wanted: str, known: Sequence[str]) -> None:
        listed = ", ".join(known[:5]) or "none"
        super().__init__(f"no run matches '{wanted}' (known: {listed})", "`dhctl list` shows them all")


class RefusedError(DhctlError):
    """The request is well formed, but cannot be served here and now."""


class AdmissionError(RefusedError):
    """One or more checks before the first write failed; nothing was made."""

    def __init__(self, target: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(_listed(f"target {target} cannot take this run: ", self.problems))


class EngineError(RefusedError):
    """The Pulumi CLI is missing, of another version, or one of its operations failed."""


class StateFolderError(RefusedError):
    """dhctl's own folder is not writable, full, or written by a newer dhctl."""


class RunBusyError(RefusedError):
    """Another dhctl process is changing this run, and did not finish in time."""


class NotUpError(RefusedError):
    """The verb needs a cluster that is up."""


class ClusterError(RefusedError):
    """The cluster did not come up, cannot be reached, or answers callers without its token."""


class JobFailedError(DhctlError):
    """The job crashed, hung past its timeout, or was stopped."""

    exit_code = ExitCode.JOB_FAILED


class HeadLostError(JobFailedError):
    """The head is gone, or was started anew, and the job with it."""

    def __init__(self, what: str, next_step: str = "", *, answers: bool = False) -> None:
        """`answers`: whether a new head is there already, such as after a server's reboot."""
        super().__init__(what, next_step)
        self.answers = answers


class LeftoverError(DhctlError):
    """The receipt names something that is left, or that could not be looked for."""

    exit_code = ExitCode.LEFTOVER


class InterruptedRunError(DhctlError):
    """The user or the system asked to stop, and everything was taken down."""

    exit_code = ExitCode.INTERRUPTED
