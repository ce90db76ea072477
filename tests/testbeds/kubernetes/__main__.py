"""`python -m testbeds.kubernetes VERB`, with tests/ on PYTHONPATH.

install  the Debian packages, the programs and the image, as root, once a machine
up       starts it, as root, with an empty cluster; as it is when it runs already
down     stops it
start    one of its services by name, which was killed
operate  starts KubeRay's operator beside it, which DHCTL_TEST_KUBERAY_OPERATOR and _CRDS name
simulate starts kwok beside it, which plays the kubelets of simulated nodes; builds it first, once a machine
status   which services run; exit 1 when it is not up
left     what in the cluster carries a run's mark; exit 1 when there is something
remains  what a testbed that is down has left on this machine; exit 1 when there is something
"""

from __future__ import annotations

import sys
import time

from testbeds.errors import TestbedError
from testbeds.kubernetes.cluster import connect
from testbeds.kubernetes.layout import Layout
from testbeds.kubernetes.leftovers import leftovers
from testbeds.kubernetes.testbed import Testbed

_STARTED = time.monotonic()


def say(text: str) -> None:
    """One line on stderr, with the seconds since the start."""
    sys.stderr.write(f"[{time.monotonic() - _STARTED:6.1f} s] {text}\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> int:  # noqa: C901 - a table of verbs
    """One verb; its exit code."""
    testbed = Testbed(Layout.of_environment(), say)
    try:
        match arguments:
            case ["install"]:
                testbed.install()
            case ["up"]:
                sys.stdout.write("started\n" if testbed.up() else "was up already\n")
            case ["down"]:
                testbed.down()
            case ["start", name]:
                testbed.start(name)
            case ["operate"]:
                testbed.operate()
            case ["simulate"]:
                testbed.simulate()
            case ["status"]:
                return _status(testbed)
            case ["left"]:
                with connect(testbed.layout.admin_kubeconfig) as admin:
                    return _print(leftovers(admin))
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
        say(f"{name:24} {'runs' if mark.alive() else 'ENDED'} as {mark.pid}")
    say("up" if testbed.is_up() else "not up")
    return 0 if testbed.is_up() else 1


def _print(found: list[str]) -> int:
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
