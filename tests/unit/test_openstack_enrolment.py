"""Who gets code and secrets from the head, over real HTTP."""

from __future__ import annotations

import base64
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.node.layout import read_json
from dhctl.infra.openstack.node import enrolment
from dhctl.infra.openstack.node.enrolment import Enrolment, EnrolmentServer, Refusal, allow, forget_old
from dhctl.infra.openstack.node.layout import ServerFolder
from unit.node_fakes import RUN_ID, Clock, make_node_folder, told_by

NODE = f"{RUN_ID}-w-0a0b0c0d"


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    return make_node_folder(tmp_path / "node")


@pytest.fixture
def url(folder: ServerFolder) -> Iterator[str]:
    server = EnrolmentServer(("127.0.0.1", 0), Enrolment(folder))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join(5)
    server.server_close()


def ask(url: str, nonce: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"X-Dhctl-Nonce": nonce} if nonce else {})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_a_worker_of_this_head_gets_code_and_secrets(folder: ServerFolder, url: str) -> None:
    status, body = ask(f"{url}/enrol", allow(folder, NODE))
    assert status == 200
    assert base64.b64decode(body["code"]) == b"code"
    assert body["secrets"] == read_json(folder.secrets)
    assert [(e["kind"], e["node"]) for e in told_by(folder)] == [("enrolled", NODE)]


@pytest.mark.parametrize("nonce", ["", "0" * 64, "../secrets", "A" * 64])
def test_strangers_get_nothing(folder: ServerFolder, url: str, nonce: str) -> None:
    allow(folder, NODE)
    for path, body in (("/enrol", None), ("/report", {"node": NODE, "reason": "x"})):
        assert ask(url + path, nonce, body) == (403, {"reason": "no worker of this run has this nonce"})
    assert list(folder.reports.iterdir()) == []


def test_the_nonce_itself_is_not_on_disk(folder: ServerFolder) -> None:
    nonce = allow(folder, NODE)
    (path,) = folder.nonces.iterdir()
    assert nonce not in path.name
    assert nonce not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


def test_an_answer_that_got_lost_can_be_asked_for_again_from_there_only(
    folder: ServerFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(enrolment, "time", clock)
    head, nonce = Enrolment(folder), allow(folder, NODE)
    head.enrol(nonce, "10.77.0.9")
    head.enrol(nonce, "10.77.0.9")
    with pytest.raises(Refusal, match="was used"):
        head.enrol(nonce, "10.77.0.10")
    clock.now += enrolment.AGAIN_S + 1
    with pytest.raises(Refusal, match="was used"):
        head.enrol(nonce, "10.77.0.9")
    assert [e["kind"] for e in told_by(folder)] == ["enrolled"]


def test_a_nonce_is_good_for_half_an_hour(folder: ServerFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(enrolment, "time", clock)
    nonce = allow(folder, NODE)
    clock.now += 1801
    with pytest.raises(Refusal, match="time is over"):
        Enrolment(folder).enrol(nonce, "10.77.0.9")
    forget_old(folder)
    assert len(list(folder.nonces.iterdir())) == 1  # a report may still come
    clock.now += 1801
    forget_old(folder)
    assert list(folder.nonces.iterdir()) == []


def test_a_worker_that_boots_while_down_runs_gets_nothing(folder: ServerFolder, url: str) -> None:
    nonce = allow(folder, NODE)
    folder.stopping.touch()
    assert ask(f"{url}/enrol", nonce) == (410, {"reason": "the run is being taken down"})


def test_reports_are_kept_under_the_nonces_own_node(folder: ServerFolder, url: str) -> None:
    nonce = allow(folder, NODE)
    assert ask(f"{url}/report", nonce, {"node": "another", "reason": "no driver"})[0] == 200
    (path,) = folder.reports.iterdir()
    assert path.name == f"{NODE}.json"
    assert (read_json(path)["ready"], read_json(path)["reason"]) == (False, "no driver")
    assert ask(f"{url}/report", nonce, {"node": NODE, "reason": ""})[0] == 200
    assert read_json(path)["ready"] is True
    assert [e["kind"] for e in told_by(folder)] == ["trouble", "joined"]


def test_what_does_not_fit_is_refused(folder: ServerFolder, url: str) -> None:
    nonce = allow(folder, NODE)
    assert ask(f"{url}/other", nonce)[0] == 404
    assert ask(f"{url}/report", nonce, {"node": NODE})[0] == 400
    assert ask(f"{url}/report", nonce, {"node": NODE, "reason": "x" * 20_000})[0] == 413
    assert list(folder.reports.iterdir()) == []
