"""Runs a job's command on the cluster: a hard timeout, and output that is always UTF-8. Standard library only.

    python launch.py --timeout SECONDS [--tell-environment] -- COMMAND

Ray reads a driver's log as strict UTF-8 and stops showing it at the first other byte; here such bytes become the
replacement character. The timeout holds also when nobody watches any more. The exit status is the command's; 124 after
the timeout. `--tell-environment` begins the output with a line for dhctl (report.py): versions of Python and packages.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import threading
from typing import IO

TIMED_OUT = 124
GRACE_S = 5.0


def copy_text(source: IO[bytes]) -> None:
    """Copies lines to stdout as they come, bytes that are no UTF-8 replaced."""
    for line in iter(source.readline, b""):
        sys.stdout.write(line.decode("utf-8", errors="replace"))
        sys.stdout.flush()


def signal_group(process: subprocess.Popen[bytes], signum: int) -> None:
    """Signals the command's process group while it has one."""
    try:
        os.killpg(process.pid, signum)
    except ProcessLookupError:
        return


def tell_environment() -> None:
    """Prints which Python and packages this process, and so the job's driver, finds."""
    found = ((one.metadata["Name"], one.version) for one in importlib.metadata.distributions())
    packages = {name: version for name, version in found if name and version}  # a half removed one has neither
    told = {
        "type": "environment",
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": dict(sorted(packages.items())),
    }
    sys.stdout.write(f"@dhctl {json.dumps(told, separators=(',', ':'))}\n")
    sys.stdout.flush()


def run(command: str, timeout_s: float) -> int:
    """Runs a shell command line in a process group of its own."""
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # stdout is a text file here
    process = subprocess.Popen(
        ["/bin/sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
    )
    assert process.stdout is not None
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda received, frame: signal_group(process, received))
    reader = threading.Thread(target=copy_text, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        status = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        told = f"dhctl: the job was not done after {timeout_s:.0f} s (job.timeout) and is stopped\n"
        sys.stdout.write(told)
        sys.stdout.flush()
        signal_group(process, signal.SIGTERM)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        signal_group(process, signal.SIGKILL)  # its children may have ignored the request, and outlive it
        status = TIMED_OUT
    reader.join(timeout=GRACE_S)  # what it started in the background may hold the pipe open for ever
    return 128 - status if status < 0 else status


def main() -> int:
    """Entry point on the cluster."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("--tell-environment", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if args.tell_environment:
        tell_environment()
    return run(args.command[1], args.timeout)


if __name__ == "__main__":
    sys.exit(main())
