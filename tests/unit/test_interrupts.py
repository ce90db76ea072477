"""Requests to stop: the first in good order, the second at once."""

from __future__ import annotations

import os
import signal

import pytest

from dhctl.infra.errors import ExitCode, InterruptedRunError
from dhctl.infra.interrupts import SIGNALS, Interrupts, StopNow


@pytest.mark.parametrize("signum", SIGNALS)
def test_the_first_request_asks(signum: signal.Signals) -> None:
    sentences: list[str] = []
    with Interrupts(sentences.append) as interrupts:
        interrupts.check()
        os.kill(os.getpid(), signum)
        with pytest.raises(InterruptedRunError, match=f"stopped by {signum.name}") as caught:
            interrupts.check()
    assert caught.value.exit_code is ExitCode.INTERRUPTED
    (sentence,) = sentences
    assert sentence.startswith(f"{signum.name}: ")


def test_the_second_request_stops_now_and_names_the_run() -> None:
    with Interrupts() as interrupts:
        interrupts.subject = "dh-aaaabbbbcc"
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopNow) as caught:
            os.kill(os.getpid(), signal.SIGINT)
    assert str(caught.value) == "SIGINT"
    assert caught.value.subject == "dh-aaaabbbbcc"
    assert not isinstance(caught.value, Exception)  # no recovery may swallow it


@pytest.mark.parametrize("error", [None, ValueError("x")])
def test_handlers_are_given_back(error: Exception | None) -> None:
    before = [signal.getsignal(s) for s in SIGNALS]

    def inside() -> None:
        with Interrupts():
            assert [signal.getsignal(s) for s in SIGNALS] != before
            if error:
                raise error

    if error:
        with pytest.raises(ValueError):
            inside()
    else:
        inside()
    assert [signal.getsignal(s) for s in SIGNALS] == before


def test_a_request_is_passed_on_only_while_asked_for() -> None:
    passed: list[str] = []
    with Interrupts() as interrupts:
        with interrupts.forwarding(lambda: passed.append("outer")):
            with interrupts.forwarding(lambda: passed.append("inner")):
                pass
            os.kill(os.getpid(), signal.SIGINT)
        assert passed == ["outer"]


def test_a_console_that_fails_does_not_lose_the_request() -> None:
    def broken(sentence: str) -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter>")  # a handler that ran in the middle of a print

    passed: list[str] = []
    with Interrupts(broken) as interrupts, interrupts.forwarding(lambda: passed.append("on")):
        os.kill(os.getpid(), signal.SIGINT)
    assert passed == ["on"]
