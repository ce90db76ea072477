"""From the head's first boot to Ray, with stand-ins for the cloud's API and for OpenSSH's client."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.errors import ClusterError, InterruptedRunError, RefusedError
from dhctl.infra.events import Event, Noted
from dhctl.infra.home import Home
from dhctl.infra.interrupts import Interrupts
from dhctl.infra.ledger import last
from dhctl.infra.openstack import head_start
from dhctl.infra.openstack.cloud import connect
from dhctl.infra.openstack.head_start import HeadStart
from dhctl.infra.openstack.secrets import HeadSecrets
from dhctl.infra.record import RunRecord
from dhctl.infra.ssh import SshEndpoint
from dhctl.infra.target import StackOutputs
from unit.fake_openstack import cloud_record
from unit.fakes import script
from unit.http_cloud import HANGS_UP, HttpCloud

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC2S0EDdNxCjYiR0WdQGVa3l4bpcSZPbFYoFbYdPeiPN"
OUTPUTS = StackOutputs({"head_server": "s1", "credential_id": "c1"}, {"credential_secret": "narrow"})
CONSOLE, SERVER = "POST /compute/v2.1/servers/s1/action", "GET /compute/v2.1/servers/s1"
BOOTED = [("booting", {}), ("hostkey", {"key": KEY}), ("installing", {"what": "ray"}), ("waiting", {})]

STAND_IN = """
# Stand-in for OpenSSH's client: stores what `push_files` sends under the last parts of the paths, and notes the words.
import shlex, sys
from pathlib import Path
folder = Path(__file__).parent
with (folder / "words").open("a") as words:
    words.write(" ".join(sys.argv[1:]).replace("\\n", " ") + "\\n")
command = shlex.split(sys.argv[-1])
if "store" in command:
    sizes = command[command.index("store") + 2 :]
    for path, size in zip(sizes[::2], sizes[1::2]):
        (folder / Path(path).name).write_bytes(sys.stdin.buffer.read(int(size)))
"""


def lines(*events: tuple[str, dict[str, Any]]) -> str:
    """A console: the kernel's words, then the node's."""
    told = [json.dumps({"at": at, "node": "head", "state": state, **more}) for at, (state, more) in enumerate(events)]
    return "[    0.000000] Linux version 6.1\n" + "".join(f"@dhctl-node {line}\n" for line in told)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_start, "BOOT_S", 5.0)
    monkeypatch.setattr(head_start, "LOOK_EVERY_S", 0.01)


@pytest.fixture
def run(home: Home) -> RunRecord:
    record = cloud_record(home)
    HeadSecrets.of(record).make_key()
    return record


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder into which files are pushed."""
    folder = script(tmp_path / "node" / "ssh", STAND_IN).parent
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def starting(http_cloud: HttpCloud, run: RunRecord, told: list[Event]) -> Callable[[], None]:
    secrets = HeadSecrets.of(run)
    endpoint = SshEndpoint("192.0.2.7", "debian", secrets.key_file, secrets.known_hosts, run.run_id)
    cloud = connect(run.spec.openstack)
    return lambda: HeadStart(run, cloud, endpoint, told.append, Interrupts()).run(OUTPUTS)


def says(there: HttpCloud, console: str | Callable[[], str]) -> None:
    there.answers[CONSOLE] = lambda: {"output": console if isinstance(console, str) else console()}


def test_the_head_gets_code_and_secrets_and_starts(
    http_cloud: HttpCloud, run: RunRecord, node: Path, starting: Callable[[], None], told: list[Event]
) -> None:
    says(http_cloud, lambda: lines(*BOOTED, *([("ready", {})] if (node / "secrets.json").exists() else [])))
    starting()
    assert HeadSecrets.of(run).known_hosts.read_text() == f"{run.run_id} {KEY}\n"
    pushed = json.loads((node / "secrets.json").read_text())
    assert pushed["token"] == HeadSecrets.of(run).token_file.read_text()
    assert pushed["credential"] == {
        "application_credential_id": "c1",
        "application_credential_secret": "narrow",
        "auth_url": f"{http_cloud.url}/identity/v3",
        "region_name": "here",
        "interface": "public",
        "cacert": None,
        "verify": True,
    }
    with tarfile.open(fileobj=BytesIO((node / "code.tar").read_bytes())) as code:
        assert "dhctl/infra/openstack/node/settings.py" in code.getnames()
    noted = [event.text for event in told if isinstance(event, Noted)]
    assert noted == ["head booting", "head installing ray", "head waiting", "head ready"]
    for act in ("head.boot", "head.ray"):
        assert last(run.ledger.entries(), act, "done") is not None


def test_no_secret_is_in_a_command_line_or_in_the_ledger(
    http_cloud: HttpCloud, run: RunRecord, node: Path, starting: Callable[[], None]
) -> None:
    says(http_cloud, lambda: lines(*BOOTED, *([("ready", {})] if (node / "secrets.json").exists() else [])))
    starting()
    told = (node / "words").read_text() + run.ledger.path.read_text()
    for secret in ("narrow", HeadSecrets.of(run).token_file.read_text()):
        assert secret not in told


def test_nothing_is_sent_before_the_host_key_is_known(
    http_cloud: HttpCloud, run: RunRecord, node: Path, starting: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_start, "BOOT_S", 0.1)
    says(http_cloud, lines(("booting", {})))
    with pytest.raises(ClusterError, match="the head was not 'hostkey' 0 s after its boot"):
        starting()
    assert not (node / "words").exists()
    assert (run.logs_dir / "head-console.log").read_text() == lines(("booting", {}))


def test_a_head_that_failed_is_quoted(
    http_cloud: HttpCloud, run: RunRecord, node: Path, starting: Callable[[], None]
) -> None:
    failed = ("failed", {"reason": "no GPU driver is on this image", "log": "modprobe: nvidia\nnot found"})
    says(http_cloud, lines(*BOOTED[:2], failed))
    with pytest.raises(ClusterError) as caught:
        starting()
    told = str(caught.value)
    assert told.startswith("the head did not start: no GPU driver is on this image")
    assert "modprobe: nvidia\n    not found" in told
    assert str(run.logs_dir / "head-console.log") in told
    failed_act = last(run.ledger.entries(), "head.boot", "failed")
    assert failed_act is not None


def test_a_failure_without_a_log_quotes_the_console(
    http_cloud: HttpCloud, run: RunRecord, node: Path, starting: Callable[[], None]
) -> None:
    says(http_cloud, lines(("failed", {"reason": "no Python"})))
    with pytest.raises(ClusterError, match="Linux version"):
        starting()


def test_a_server_in_error_tells_novas_reason(
    http_cloud: HttpCloud, run: RunRecord, node: Path, starting: Callable[[], None]
) -> None:
    http_cloud.broken["/compute/v2.1/servers/s1/action"] = [409]
    fault = {"code": 500, "message": "No valid host was found.", "created": "2026-01-01T00:00:00Z"}
    http_cloud.answers[SERVER] = {"server": {"id": "s1", "status": "ERROR", "fault": fault}}
    with pytest.raises(ClusterError, match="the head's server is in error: No valid host was found"):
        starting()


def test_a_console_that_cannot_be_read_now_is_read_again(
    http_cloud: HttpCloud, run: RunRecord, node: Path, starting: Callable[[], None]
) -> None:
    http_cloud.broken["/compute/v2.1/servers/s1/action"] = [404, 409, 200]
    http_cloud.answers[SERVER] = {"server": {"id": "s1", "status": "BUILD"}}
    says(http_cloud, lambda: lines(*BOOTED, *([("ready", {})] if (node / "secrets.json").exists() else [])))
    starting()


@pytest.mark.parametrize("trouble", [503, HANGS_UP])
def test_a_cloud_that_does_not_answer_any_more_is_a_sentence(
    http_cloud: HttpCloud, run: RunRecord, node: Path, starting: Callable[[], None], trouble: int
) -> None:
    http_cloud.broken["/compute"] = [trouble]
    with pytest.raises(RefusedError, match="cannot look at the head's server on OpenStack"):
        starting()


def test_ctrl_c_ends_the_wait(
    http_cloud: HttpCloud, run: RunRecord, node: Path, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    says(http_cloud, lines(("booting", {})))
    secrets = HeadSecrets.of(run)
    endpoint = SshEndpoint("192.0.2.7", "debian", secrets.key_file, secrets.known_hosts, run.run_id)
    interrupts = Interrupts()
    interrupts.reason = "SIGINT"
    with pytest.raises(InterruptedRunError, match="SIGINT"):
        HeadStart(run, connect(run.spec.openstack), endpoint, told.append, interrupts).run(OUTPUTS)
