"""What a testbed raises."""

from __future__ import annotations


class TestbedError(Exception):
    """The testbed cannot be installed, started or stopped; a sentence that says what to do."""

    __test__ = False  # no test class, in spite of its name
