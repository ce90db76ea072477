"""Running the Pulumi CLI so that nothing that happens to us can hurt the state or leave a lock.

The SDK's own way ties the CLI to our pipes and our terminal: at Ctrl-C, SIGTERM or SIGKILL of the parent the CLI dies
of SIGPIPE at its next line, before it unlocks (pulumi#9103). Here it has a session of its own and writes to files; a
request to stop reaches it as one SIGINT, at which it finishes the steps in flight, writes its state and unlocks.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

from pulumi._version import version as sdk_version
from pulumi.automation import CommandResult, PulumiCommand
from pulumi.automation.errors import create_command_error

from dhctl.infra.errors import EngineError
from dhctl.infra.interrupts import Interrupts
from dhctl.infra.processes import ProcessMark

WRITING = ("up", "destroy", "refresh")
"""Operations that write state: only these are told in the ledger and may be asked to stop."""

STOP_GRACE_S = 90.0
"""How long the CLI may take to finish its steps after SIGINT before it is killed."""


class DetachedPulumiCommand(PulumiCommand):
    """The SDK's command runner with sessions and files instead of pipes, a deadline, and forwarded requests to stop."""

    def __init__(
        self,
        binary: Path,
        *,
        logs: Path,
        interrupts: Interrupts | None = None,
        on_start: Callable[[str, ProcessMark], None] = lambda verb, process: None,
        deadline_s: float = 900.0,
    ) -> None:
        """`interrupts` passes the user's first request to stop on to a writing operation; None keeps it away."""
        # not the SDK's way: that wants <root>/bin/pulumi, and starts the CLI once more for a version we know already
        self.command, self.version = str(binary), sdk_version
        self._logs, self._interrupts, self._on_start, self._deadline_s = logs, interrupts, on_start, deadline_s
        self._count = itertools.count(1)

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], object] | None = None,
        on_error: Callable[[str], object] | None = None,
    ) -> CommandResult:
        """Runs one CLI command to its end. Raises CommandError as the SDK does, EngineError at the deadline."""
        verb = next((a for a in args if not a.startswith("-")), "pulumi")
        if "--non-interactive" not in args:
            args.insert(0, "--non-interactive")
        stem = self._logs / f"{time.strftime('%H%M%S')}-{os.getpid()}-{next(self._count):02d}-{verb}"
        outputs = stem.with_suffix(".out"), stem.with_suffix(".err")
        with outputs[0].open("wb") as out, outputs[1].open("wb") as err:
            process = subprocess.Popen(
                [self.command, *args],
                cwd=cwd,
                env=self._environment(additional_env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self._await(process, verb)
        stdout, stderr = (p.read_text(errors="replace") for p in outputs)
        for text, callback in ((stdout, on_output), (stderr, on_error)):
            for line in text.splitlines() if callback else ():
                callback(line)  # type: ignore[misc]
        result = CommandResult(stdout=stdout, stderr=stderr, code=process.returncode)
        if result.code != 0:
            raise create_command_error(result)
        for path in outputs:
            path.unlink()  # only the output of a failed command is worth a file
        return result

    def _environment(self, additional: Mapping[str, str]) -> dict[str, str]:
        """Ours, without the Pulumi settings of the user's own projects, with the CLI's folder first on PATH."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("PULUMI_")}
        env |= {**additional, "PULUMI_AUTOMATION_API": "true"}
        env["PATH"] = os.pathsep.join([str(Path(self.command).parent), env.get("PATH", os.defpath)])
        return env

    def _await(self, process: subprocess.Popen[bytes], verb: str) -> None:
        mark = ProcessMark.of(process.pid)
        if verb in WRITING and mark:
            self._on_start(verb, mark)
        end = time.monotonic() + self._deadline_s
        passing_on = verb in WRITING and self._interrupts
        with passing_on.forwarding(lambda: process.send_signal(signal.SIGINT)) if passing_on else nullcontext():
            while not _ended(process, 0.2) and time.monotonic() < end:
                continue
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            if not _ended(process, STOP_GRACE_S):
                process.kill()
                process.wait()
            raise EngineError(f"`pulumi {verb}` was not done after {self._deadline_s:.0f} s and was stopped")


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
