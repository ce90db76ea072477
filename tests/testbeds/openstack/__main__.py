"""`python -m testbeds.openstack VERB`, with tests/ on PYTHONPATH.

install  the Debian packages, as root, once a machine
up       starts it, as root, with an empty cloud; as it is when it runs already
down     stops it
status   which services run; exit 1 when it is not up
left     what is in the project demo; exit 1 when there is something
remains  what a testbed that is down has left on this machine; exit 1 when there is something
"""

from __future__ import annotations

import sys
import time

from testbeds import apt
from testbeds.errors import TestbedError
from testbeds.openstack import packages
from testbeds.openstack.cloud_setup import connect
from testbeds.openstack.layout import CLOUD, Layout
from testbeds.openstack.leftovers import leftovers
from testbeds.openstack.testbed import Testbed

_STARTED = time.monotonic()


def say(text: str) -> None:
    """One line on stderr, with the seconds since the start."""
    sys.stderr.write(f"[{time.monotonic() - _STARTED:6.1f} s] {text}\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> int:
    """One verb; its exit code."""
    testbed = Testbed(Layout.of_environment(), say)
    try:
        match arguments:
            case ["install"]:
                say(f"installed {len(apt.install(packages.PACKAGES, 'make testbed-install'))} packages")
            case ["up"]:
                sys.stdout.write("started\n" if testbed.up() else "was up already\n")
            case ["down"]:
                testbed.down()
            case ["status"]:
                return _status(testbed)
            case ["left"]:
                return _print(leftovers(connect(testbed.layout, CLOUD)))
            case ["remains"]:
                return _print(testbed.remains())
            case _:
                say(str(__doc__))
                return 2
    except TestbedError as trouble:
        say(str(trouble))
        return 1
    return 0


def _status(testbed: Testbed) -> int:
    for name, mark in testbed.services.marks().items():
        say(f"{name:16} {'runs' if mark.alive() else 'ENDED'} as {mark.pid}")
    say("up" if testbed.is_up() else "not up")
    return 0 if testbed.is_up() else 1


def _print(found: list[str]) -> int:
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
