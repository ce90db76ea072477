"""`python -m testbeds.browser install`: the Debian package of the browser that looks at pages (root, once)."""

from __future__ import annotations

import sys

from testbeds import apt
from testbeds.browser.chromium import PACKAGE, VERB
from testbeds.errors import TestbedError


def main(arguments: list[str]) -> int:
    """Says what was installed."""
    if arguments != ["install"]:
        sys.stderr.write("usage: python -m testbeds.browser install\n")
        return 2
    try:
        new = apt.install([PACKAGE], VERB)
    except TestbedError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"installed {', '.join(new)}\n" if new else "the browser is there\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
