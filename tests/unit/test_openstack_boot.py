"""The boot of a node, with scripts for interpreters, nvidia-smi and uv, and a package index over real HTTP."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.node.layout import read_json, write_json
from dhctl.infra.openstack.node import boot, console, package_index, python_for_ray
from dhctl.infra.openstack.node.boot import Boot
from dhctl.infra.openstack.node.console import NodeConsole, console_events
from dhctl.infra.openstack.node.enrolment import Enrolment, EnrolmentServer, allow
from dhctl.infra.openstack.node.gpus import require_gpus
from dhctl.infra.openstack.node.layout import ServerFolder
from dhctl.infra.openstack.node.python_for_ray import BootError, Found, find_python, look_at
from dhctl.infra.openstack.node.settings import NodeSettings
from unit.node_fakes import HEAD_NAME, RUN_ID, make_node_folder, make_node_settings

WORKER = f"{RUN_ID}-w-0a0b0c0d"
Script = Callable[[str, str], Path]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Writes a shell script that is found on PATH before all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def write(name: str, body: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine itself is looked at or written."""
    key = tmp_path / "host_key.pub"
    key.write_text("ssh-ed25519 AAAAkey root@node\n")
    monkeypatch.setattr(boot, "HOST_KEY", key)
    monkeypatch.setattr(boot, "CODE_FOLDER", str(tmp_path / "code"))
    monkeypatch.setattr(boot, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(boot, "ENROL_EVERY_S", 0.01)
    monkeypatch.setattr(python_for_ray, "BAKED", ())
    monkeypatch.setattr(python_for_ray, "INSTALLED", str(tmp_path / "installed"))
    monkeypatch.setattr(console, "CONSOLE", tmp_path / "no" / "console")


# --- interpreters


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("""echo '["2.60.0", [3, 11]]'""", ""),
        ("""echo '["2.59.1", [3, 11]]'""", "has Ray 2.59.1, not 2.60.0"),
        ("""echo '["2.60.0", [3, 10]]'""", "is Python 3.10, older than 3.11"),
        ("echo \"ModuleNotFoundError: No module named 'ray'\" >&2; exit 1", "No module named 'ray'"),
        ("exit 7", "ended with status 7"),
    ],
)
def test_an_interpreter_says_itself_whether_it_fits(script: Script, body: str, problem: str) -> None:
    found = look_at(str(script("some-python", body)), "2.60.0")
    assert problem in found.problem
    assert bool(found.problem) == bool(problem)


def test_one_that_is_not_there_does_not_fit() -> None:
    assert "No such file" in look_at("/nowhere/python", "2.60.0").problem


def test_the_given_interpreter_must_fit(script: Script) -> None:
    path = str(script("old", """echo '["2.59.1", [3, 11]]'"""))
    with pytest.raises(BootError, match=r"openstack\.python does not fit: .*has Ray 2\.59\.1"):
        find_python(make_node_settings(python=path), NodeConsole("n"))


def test_baked_ones_come_before_that_of_the_path(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = """echo '["2.60.0", [3, 11]]'"""
    on_path, baked = script("python3", fits), script("baked", fits)
    assert find_python(make_node_settings(), NodeConsole("n")).path == str(on_path)
    monkeypatch.setattr(python_for_ray, "BAKED", (str(baked),))
    assert find_python(make_node_settings(), NodeConsole("n")).path == str(baked)


# --- installing

UV = """#!/bin/sh
# stands in for uv: `uv venv ... FOLDER` and `uv pip install ...`
echo "$@" >> "{log}"
if [ "$1" = venv ]; then
  for last; do :; done
  mkdir -p "$last/bin"
  printf '#!/bin/sh\\necho %s\\n' "'[\\"2.60.0\\", [3, 12]]'" > "$last/bin/python"
  chmod +x "$last/bin/python"
fi
{then}
"""


class Index:
    """A package index with one wheel of uv."""

    def __init__(self, log: Path) -> None:
        self.log, self.then, self.digest, self.machine = log, "", "", "x86_64"

    @property
    def wheel(self) -> bytes:
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as packed:
            packed.writestr("uv-0.data/scripts/uv", UV.format(log=self.log, then=self.then))
        return target.getvalue()

    def page(self) -> bytes:
        name = f"uv-{package_index.UV_VERSION}-py3-none-manylinux_2_17_{self.machine}.whl"
        digest = self.digest or hashlib.sha256(self.wheel).hexdigest()
        old = '<a href="../../f/uv-0.0.1-py3-none-manylinux_2_17_x86_64.whl#sha256=00">old</a>'
        return f'<html>{old}<a href="../../f/{name}#sha256={digest}">uv</a></html>'.encode()


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path / "uv.log")


@pytest.fixture
def index_url(index: Index, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = {"/simple/uv/": index.page}.get(self.path, lambda: index.wheel)()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/simple"
    server.shutdown()
    thread.join(5)
    server.server_close()


@pytest.fixture
def bare(script: Script) -> NodeSettings:
    """A node without Ray and without uv."""
    script("python3", "echo \"ModuleNotFoundError: No module named 'ray'\" >&2; exit 1")
    return make_node_settings(requirements=("ray[default,train]==2.60.0", "openstacksdk==4.22.0"))


def settings_with(settings: NodeSettings, **changes: Any) -> NodeSettings:
    return NodeSettings.from_dict({**settings.to_dict(), **changes})


def test_where_no_python_fits_one_is_installed_by_the_indexs_uv(
    bare: NodeSettings, index: Index, index_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = find_python(settings_with(bare, package_index=index_url), NodeConsole("n"))
    assert found == Found(f"{tmp_path}/installed/bin/python", "2.60.0")
    venv, install = index.log.read_text().splitlines()
    assert venv.startswith("venv --clear --python ")
    assert f"--index-url {index_url} ray[default,train]==2.60.0 openstacksdk==4.22.0" in install
    (event,) = console_events(capsys.readouterr().out)
    assert (event["state"], "No module named 'ray'" in event["what"]) == ("installing", True)


def test_uv_of_the_image_is_used_where_there_is_one(bare: NodeSettings, script: Script, index: Index) -> None:
    script("uv", UV.format(log=index.log, then="").partition("\n")[2])
    assert not find_python(bare, NodeConsole("n")).problem


def test_a_wheel_of_another_content_is_not_run(bare: NodeSettings, index: Index, index_url: str) -> None:
    index.digest = "0" * 64
    with pytest.raises(BootError, match=r"its hash tells of; bake an image .* or set openstack\.package_index"):
        find_python(settings_with(bare, package_index=index_url), NodeConsole("n"))
    assert not index.log.exists()


def test_an_index_without_the_wheel_is_named(bare: NodeSettings, index: Index, index_url: str) -> None:
    index.machine = "aarch64"
    with pytest.raises(BootError, match=r"127\.0\.0\.1 has no wheel of uv .* for x86_64"):
        find_python(settings_with(bare, package_index=index_url), NodeConsole("n"))


def test_an_index_that_does_not_answer_is_named(bare: NodeSettings) -> None:
    with pytest.raises(BootError, match=r"uv could not be fetched: 127\.0\.0\.1 does not answer .*refused"):
        find_python(settings_with(bare, package_index="http://127.0.0.1:9/simple"), NodeConsole("n"))


def test_an_install_that_fails_quotes_its_end(bare: NodeSettings, index: Index, index_url: str) -> None:
    index.then = '[ "$1" = venv ] || { echo "no solution found"; exit 2; }'
    with pytest.raises(BootError, match="cannot install Ray: uv ended with status 2") as caught:
        find_python(settings_with(bare, package_index=index_url), NodeConsole("n"))
    assert caught.value.log == "no solution found\n"


# --- GPUs


def test_without_gpus_nothing_is_asked(script: Script) -> None:
    script("nvidia-smi", "exit 1")
    assert require_gpus(0) == 0


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("printf '0\\n'", "workers.gpus is 2 and the flavor gives 1"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", "finds no working driver or no GPU"),
    ],
)
def test_too_few_gpus_are_told(script: Script, body: str, told: str) -> None:
    script("nvidia-smi", body)
    with pytest.raises(BootError, match=told):
        require_gpus(2)


def test_a_missing_driver_is_told(script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BootError, match="the image has no NVIDIA driver"):
        require_gpus(1)


def test_enough_gpus_fit(script: Script) -> None:
    script("nvidia-smi", "printf '0\\n1\\n'")
    assert require_gpus(2) == 2


# --- the console


def test_events_are_found_between_other_lines(capsys: pytest.CaptureFixture[str]) -> None:
    NodeConsole("n").tell("booting", role="head")
    NodeConsole("n").tell("failed", reason="a: b\nc", log="x" * 10)
    first, second = capsys.readouterr().out.splitlines()
    text = (
        f'[ 1.0] kernel\r\n{first}\r\ncloud-init: {second} trailing\r\n@dhctl-node {{"torn": \r\n{first}\n@dhctl-node 7'
    )
    assert [e["state"] for e in console_events(text)] == ["booting", "failed"]
    assert console_events(text)[1]["reason"] == "a: b\nc"
    assert console_events("") == []


# --- the whole boot


@pytest.fixture
def fits(script: Script) -> str:
    return str(script("fits", """echo '["2.60.0", [3, 11]]'"""))


def code_tar(name: str = "dhctl/infra/thing.py") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as packed:
        member = tarfile.TarInfo(name)
        member.size = 2
        packed.addfile(member, io.BytesIO(b"#\n"))
    return target.getvalue()


def agent_that_says(state: str, **detail: Any) -> Callable[[NodeSettings, ServerFolder, str], None]:
    def start(settings: NodeSettings, folder: ServerFolder, python: str) -> None:
        write_json(folder.agent, {"state": state, **detail})

    return start


def states(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return console_events(capsys.readouterr().out)


def test_a_head_boots(
    fits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_node_folder(tmp_path / "node")
    folder.code.write_bytes(code_tar())
    monkeypatch.setattr(boot, "start_agent", agent_that_says("ready"))
    assert Boot(make_node_settings(python=fits), folder).run() == 0
    events = states(capsys)
    told = ["booting", "hostkey", "python", "gpus", "waiting", "starting", "ready"]
    assert [e["state"] for e in events] == told
    assert events[1]["key"] == "ssh-ed25519 AAAAkey"
    assert {e["node"] for e in events} == {HEAD_NAME}
    assert (tmp_path / "code" / "dhctl" / "infra" / "thing.py").exists()


def test_a_head_that_gets_no_secrets_says_so(
    fits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ServerFolder(tmp_path / "node")
    monkeypatch.setattr(boot, "SECRETS_S", 0.05)
    assert Boot(make_node_settings(python=fits), folder).run() == 1
    assert states(capsys)[-1]["reason"].startswith("no code and secrets came within")


def test_a_ray_that_does_not_come_up_is_quoted(
    fits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_node_folder(tmp_path / "node")
    folder.code.write_bytes(code_tar())
    monkeypatch.setattr(boot, "start_agent", agent_that_says("failed", reason="Ray's head ended", log="port taken"))
    assert Boot(make_node_settings(python=fits), folder).run() == 1
    last = states(capsys)[-1]
    assert (last["state"], last["reason"], last["log"]) == ("failed", "Ray's head ended", "port taken")


@pytest.mark.parametrize("name", ["/etc/evil", "../evil", "a/../../evil"])
def test_code_stays_below_its_folder(fits: str, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_node_folder(tmp_path / "node")
    folder.code.write_bytes(code_tar(name))
    assert Boot(make_node_settings(python=fits), folder).run() == 1
    assert "no plain file below its folder" in states(capsys)[-1]["reason"]


def test_a_host_key_that_is_not_made_is_told(
    fits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(boot, "HOST_KEY", tmp_path / "never.pub")
    monkeypatch.setattr(boot, "HOST_KEY_S", 0.05)
    assert Boot(make_node_settings(python=fits), ServerFolder(tmp_path / "node")).run() == 1
    assert "use an image with an SSH server" in states(capsys)[-1]["reason"]


def test_a_fault_of_ours_is_told_too(fits: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_node_folder(tmp_path / "node")  # its code.tar is none
    assert Boot(make_node_settings(python=fits), folder).run() == 1
    last = states(capsys)[-1]
    assert "this is a fault of dhctl" in last["reason"]
    assert "ReadError" in last["log"]


# --- workers


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerFolder]:
    """A head that enrols."""
    folder = make_node_folder(tmp_path / "head")
    folder.code.write_bytes(code_tar())
    server = EnrolmentServer(("127.0.0.1", 0), Enrolment(folder))
    monkeypatch.setattr(boot, "ENROLMENT_PORT", server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield folder
    server.shutdown()
    thread.join(5)
    server.server_close()


def worker(python: str, nonce: str, **changes: Any) -> NodeSettings:
    made = make_node_settings(python=python, **changes)
    return made.for_worker(WORKER, "127.0.0.1", nonce, ["--num-cpus", "1"])


def test_a_worker_gets_all_it_needs_from_the_head_and_says_it_is_ready(
    fits: str, head: ServerFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(boot, "start_agent", agent_that_says("ready"))
    folder = ServerFolder(tmp_path / "worker")
    assert Boot(worker(fits, allow(head, WORKER)), folder).run() == 0
    assert read_json(folder.secrets) == read_json(head.secrets)
    assert folder.secrets.stat().st_mode & 0o077 == 0
    assert read_json(head.reports / f"{WORKER}.json")["ready"] is True
    assert states(capsys)[-1]["state"] == "ready"


def test_a_worker_without_its_gpus_tells_the_head(
    fits: str, head: ServerFolder, script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script("nvidia-smi", "printf '0\\n'")
    settings = worker(fits, allow(head, WORKER), worker_gpus=2)
    assert Boot(settings, ServerFolder(tmp_path / "worker")).run() == 1
    assert "the flavor gives 1" in read_json(head.reports / f"{WORKER}.json")["reason"]
    assert states(capsys)[-1]["state"] == "failed"


def test_a_worker_that_is_refused_gives_up_at_once(
    fits: str, head: ServerFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nonce = allow(head, WORKER)
    head.stopping.touch()
    assert Boot(worker(fits, nonce), ServerFolder(tmp_path / "worker")).run() == 1
    assert "the run is being taken down" in states(capsys)[-1]["reason"]


def test_a_worker_waits_for_a_head_that_is_not_there_yet(
    fits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(boot, "ENROLMENT_PORT", 9)
    monkeypatch.setattr(boot, "SECRETS_S", 0.1)
    assert Boot(worker(fits, "0" * 64), ServerFolder(tmp_path / "worker")).run() == 1
    assert "the head did not answer at 127.0.0.1:9" in states(capsys)[-1]["reason"]


# --- starting the agent


def test_with_systemd_the_agent_is_a_unit_that_comes_back(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "SYSTEMD", tmp_path)
    monkeypatch.setattr(boot, "UNIT", tmp_path / "dhctl-node.service")
    script("systemctl", f'echo "$@" >> {tmp_path}/calls')
    folder = make_node_folder(tmp_path / "node")
    boot.start_agent(make_node_settings(), folder, "/opt/ray/bin/python")
    assert (tmp_path / "calls").read_text().splitlines() == ["daemon-reload", "enable --now dhctl-node.service"]
    unit = (tmp_path / "dhctl-node.service").read_text()
    assert f"ExecStart=/opt/ray/bin/python -u -m {boot.AGENT}\n" in unit
    assert f"Environment=PYTHONPATH={tmp_path}/code\n" in unit
    assert "Restart=always\n" in unit
    script("systemctl", "echo 'unit is masked' >&2; exit 1")
    with pytest.raises(BootError, match="systemctl daemon-reload failed") as caught:
        boot.start_agent(make_node_settings(), folder, "/opt/ray/bin/python")
    assert caught.value.log == "unit is masked\n"


def test_without_systemd_it_runs_in_a_session_of_its_own(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "SYSTEMD", tmp_path / "none")
    python = script("agent", 'echo "$@ with $PYTHONPATH, session $(ps -o sid= -p $$) of $$"')
    folder = make_node_folder(tmp_path / "node")
    process = boot.start_agent(make_node_settings(), folder, str(python))
    assert process
    assert process.wait(10) == 0
    words = (folder.logs / "agent.log").read_text().replace(",", "").split()
    assert words[:5] == ["-u", "-m", boot.AGENT, "with", f"{tmp_path}/code"]
    assert words[-3] == words[-1]
