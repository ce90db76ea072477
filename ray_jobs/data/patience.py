"""Waiting for a store that is away for a while, and a clear end when it stays away."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from dhctl.ray_jobs import report
from dhctl.ray_jobs.environment import JobStoppedError, RefusedInputError

PATIENCE_ENV = "DHCTL_STORE_PATIENCE_S"
PATIENCE_S = 300.0
LONGEST_PAUSE_S = 10.0

_AWS_CODE = re.compile(r"AWS Error ([A-Z_]+)(?: \(HTTP status (\d{3})\))?")
"""The status stands there for answers without a code that the client knows."""

_LATER = {408, 429}
"""Of the statuses below 500 those that ask to come again."""

_FINAL_CODES = frozenset(
    {
        "ACCESS_DENIED",
        "INVALID_ACCESS_KEY_ID",
        "INVALID_CLIENT_TOKEN_ID",
        "INVALID_SIGNATURE",
        "MISSING_AUTHENTICATION_TOKEN",
        "NO_SUCH_BUCKET",
        "NO_SUCH_KEY",
        "RESOURCE_NOT_FOUND",
        "SIGNATURE_DOES_NOT_MATCH",
        "UNRECOGNIZED_CLIENT",
    }
)
"""Answers that stay the same however often one asks."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Patience:
    """How long a caller goes on asking a store that does not answer. Can be sent to Ray tasks."""

    seconds: float = PATIENCE_S
    """From the first failure of a call on."""
    tell: Callable[[str], None] = report.warning
    """Told once a call, when it fails for the first time."""

    def ask(
        self, call: Callable[[], Answer], where: str, passing: Callable[[BaseException], bool] | None = None
    ) -> Answer:
        """What `call` returns, tried again while the store is away or busy: while `passing` says so of the error, by
        default `is_passing`.

        Raises what `call` raises where that is final (no such file, no right), JobStoppedError when time is over;
        `where` names store and endpoint in its sentence.
        """
        passing = passing or is_passing
        asking = tenacity.Retrying(
            retry=tenacity.retry_if_exception(passing),
            stop=tenacity.stop_after_delay(self.seconds),
            wait=tenacity.wait_exponential(multiplier=0.2, max=LONGEST_PAUSE_S) + tenacity.wait_random(0, 0.2),
            before_sleep=lambda state: self._tell_once(state, where),
            reraise=True,
        )
        try:
            return asking(call)
        except Exception as error:
            if not passing(error):
                raise
            raise JobStoppedError(
                f"{where} does not answer ({_short(error)}), although it was asked again for {self.seconds:.0f} s; "
                "start again when it is back: what is done is kept"
            ) from error

    def _tell_once(self, state: tenacity.RetryCallState, where: str) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            told = _short(state.outcome.exception())
            self.tell(f"{where} does not answer ({told}); it is asked again for up to {self.seconds:.0f} s")


def patience_from(env: Mapping[str, str]) -> Patience:
    """What DHCTL_STORE_PATIENCE_S says, in seconds. Raises RefusedInputError."""
    text = env.get(PATIENCE_ENV, "").strip()
    try:
        seconds = float(text) if text else PATIENCE_S
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise RefusedInputError(f"{PATIENCE_ENV} is '{text}'; set it to a number of seconds, such as 300")
    return Patience(seconds)


def is_passing(error: BaseException) -> bool:
    """Whether asking a store again may help. pyarrow tells all of S3's errors as OSError, with the code in its text."""
    if not isinstance(error, OSError) or error.errno is not None:  # with a number, it is this machine's own
        return False
    found = _AWS_CODE.search(str(error))
    if found is None or found[1] in _FINAL_CODES:
        return False
    return found[2] is None or int(found[2]) >= 500 or int(found[2]) in _LATER


def _short(error: BaseException | None) -> str:
    text = " ".join(str(error).split())
    found = _AWS_CODE.search(text)
    return found[1].lower().replace("_", " ") if found else text[:120]
