"""Work begun beside a wait."""

from __future__ import annotations

import threading

import pytest

from dhctl.infra.early import begin
from dhctl.infra.errors import EngineError


def test_it_goes_on_beside_and_is_waited_for() -> None:
    go = threading.Event()
    answer = begin(lambda: go.wait(10) and threading.current_thread().name)
    go.set()
    assert answer() == answer() == "begun early"


def test_what_it_raises_is_raised_where_it_is_waited_for() -> None:
    def fail() -> None:
        raise EngineError("no way to install it works")

    answer = begin(fail)
    for _ in range(2):
        with pytest.raises(EngineError, match="no way"):
            answer()
