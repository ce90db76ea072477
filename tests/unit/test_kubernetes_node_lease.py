"""The end of a lease as its pod runs it: one file, an interpreter, and an API server over TLS (a stand-in here)."""

from __future__ import annotations

import ipaddress
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dhctl.infra.kubernetes.mark import EXPIRES_LABEL
from dhctl.infra.kubernetes.node import lease
from unit.pod_fakes import RUN_ID

PATH = f"/api/v1/namespaces/lab/configmaps/{RUN_ID}"


def write_certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stand-in")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    (folder / "ca.crt").write_bytes(made.public_bytes(pem))
    (folder / "key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


class HttpsRun:
    """Stands in for the API server: one run's object, and failures that go first."""

    def __init__(self, account: Path) -> None:
        self.expires: int | None = int(time.time()) - 10
        self.failures: list[int] = []
        self.calls: list[tuple[str, str, Any]] = []
        this = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                this.calls.append((self.command, self.path, json.loads(sent) if sent else None))
                status, told = this.told(self.headers["Authorization"])
                content = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                self.answer()

            def do_DELETE(self) -> None:
                self.answer()

            def log_message(self, *args: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trust.load_cert_chain(account / "ca.crt", account / "key")
        self.server.socket = trust.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)

    def told(self, authorization: str) -> tuple[int, Any]:
        if authorization != "Bearer token":
            return 401, {"message": "Unauthorized"}
        if self.failures:
            return self.failures.pop(0), {"message": "trouble"}
        if self.expires is None:
            return 404, {"message": "not found"}
        return 200, {"metadata": {"uid": "1-2", "labels": {EXPIRES_LABEL: str(self.expires)}}}


@pytest.fixture
def account(tmp_path: Path) -> Path:
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "namespace").write_text("lab")
    (folder / "token").write_text("token\n")
    write_certificate(folder)
    return folder


@pytest.fixture
def api(account: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpsRun]:
    made = HttpsRun(account)
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(made.server.server_address[1]))
    monkeypatch.setenv(lease.ACCOUNT_ENV, str(account))
    monkeypatch.setattr(lease, "PAUSE_S", 0.01)
    monkeypatch.setattr("sys.argv", ["lease.py", RUN_ID])
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join(5)


def test_as_one_file_it_deletes_the_runs_object_in_the_foreground(api: HttpsRun) -> None:
    """By its text alone and without any package, as the pod of the CronJob runs it."""
    command = [sys.executable, "-I", "-S", "-c", Path(lease.__file__).read_text(), RUN_ID]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"run {RUN_ID} is over: its object is being deleted, and all that it owns\n"
    wanted = {"propagationPolicy": "Foreground", "preconditions": {"uid": "1-2"}}
    assert api.calls == [("GET", PATH, None), ("DELETE", PATH, wanted)]


def test_one_that_is_gone_is_success(api: HttpsRun, capsys: pytest.CaptureFixture[str]) -> None:
    api.expires = None
    assert lease.main() == 0
    assert "is gone" in capsys.readouterr().out
    assert [method for method, _, _ in api.calls] == ["GET"]


def test_one_whose_lease_was_made_longer_is_left_alone(api: HttpsRun, capsys: pytest.CaptureFixture[str]) -> None:
    api.expires = int(time.time()) + 100
    assert lease.main() == 0
    assert "is not over: its lease has" in capsys.readouterr().out
    assert [method for method, _, _ in api.calls] == ["GET"]


def test_a_server_in_trouble_is_asked_again(api: HttpsRun) -> None:
    api.failures = [500, 503, 429]
    assert lease.main() == 0
    assert [method for method, _, _ in api.calls] == ["GET", "GET", "GET", "GET", "DELETE"]


def test_not_for_ever(api: HttpsRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(lease, "PATIENCE_S", 0.0)
    api.failures = [500] * 9
    assert lease.main() == 1
    assert "the API server answers 500" in capsys.readouterr().err


def test_missing_rights_do_not_come_back(api: HttpsRun, capsys: pytest.CaptureFixture[str]) -> None:
    api.failures = [403]
    assert lease.main() == 1
    assert len(api.calls) == 1


def test_only_the_clusters_own_certificate_is_trusted(
    api: HttpsRun, account: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lease, "PATIENCE_S", 0.0)
    write_certificate(account)
    assert lease.main() == 1
    assert "cannot be reached" in capsys.readouterr().err
    assert api.calls == []


def test_its_words_are_those_of_the_mark() -> None:
    assert lease.EXPIRES_LABEL == EXPIRES_LABEL
