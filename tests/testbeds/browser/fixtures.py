"""Pytest fixture of the browser, for tests to import. Without Chromium they are skipped; in CI they fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbeds.browser.chromium import Browser, browser, missing
from testbeds.sharing import skip


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for all tests of a session."""
    if obstacle := missing():
        skip(obstacle)
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found
