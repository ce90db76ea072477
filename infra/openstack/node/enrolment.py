"""The head's answer to its workers: code and secrets for who shows the nonce of a worker that the head made.

It listens on the head's address in the run's network; the security group lets only members of the cluster in. A nonce
belongs to one worker, is good for 30 minutes, and once used only for the address that used it first, two minutes long,
so that an answer that got lost can be asked for again. On disk stands its hash alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from dhctl.infra.node.journal import NodeJournal
from dhctl.infra.node.layout import read_json, write_json
from dhctl.infra.openstack.node.layout import ENROLMENT_PORT, ServerFolder

GOOD_FOR_S = 1800.0
AGAIN_S = 120.0
BODY_LIMIT = 16_000
SOCKET_S = 20.0
NONCE = re.compile(r"[0-9a-f]{64}")
NODE = re.compile(r"[a-z0-9-]{1,80}")


class Refusal(Exception):  # noqa: N818 - not an error of the head
    """What a caller is told, with the HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def allow(folder: ServerFolder, node_id: str) -> str:
    """A new nonce for one worker."""
    forget_old(folder)
    nonce = secrets.token_hex(32)
    write_json(_path(folder, nonce), {"node": node_id, "until": time.time() + GOOD_FOR_S})
    return nonce


def forget_old(folder: ServerFolder) -> None:
    """Removes nonces whose time is long over."""
    for path in folder.nonces.glob("[!.]*"):
        if float(read_json(path).get("until", 0)) < time.time() - GOOD_FOR_S:
            path.unlink(missing_ok=True)


def _path(folder: ServerFolder, nonce: str) -> Path:
    return folder.nonces / hashlib.sha256(nonce.encode()).hexdigest()


class Enrolment:
    """Who may enrol. Thread-safe; one process a head."""

    def __init__(self, folder: ServerFolder) -> None:
        self._folder, self._journal = folder, NodeJournal(folder)
        self._lock = threading.Lock()

    def enrol(self, nonce: str, address: str) -> dict[str, Any]:
        """Code and secrets. Raises Refusal."""
        with self._lock:
            told = self._known(nonce)
            now = time.time()
            if self._folder.stopping.exists():
                raise Refusal(410, "the run is being taken down")
            if now > float(told["until"]):
                raise Refusal(403, "the nonce's time is over")
            first = told.get("first")
            if first and (told.get("address") != address or now > float(first) + AGAIN_S):
                raise Refusal(403, "the nonce was used")
            if not first:
                write_json(_path(self._folder, nonce), {**told, "first": now, "address": address})
                self._journal.tell("enrolled", node=told["node"], address=address)
        code = base64.b64encode(self._folder.code.read_bytes()).decode()
        return {"secrets": json.loads(self._folder.secrets.read_text()), "code": code}

    def report(self, nonce: str, reason: str) -> None:
        """Keeps what a worker says of itself: ready (no reason), or what is wrong, and then it is ended by the node
        provider. Raises Refusal.
        """
        node_id, said = str(self._known(nonce)["node"]), reason[:2000]
        body = {"node": node_id, "at": time.time(), "ready": not said, "reason": said}
        write_json(self._folder.reports / f"{node_id}.json", body)
        if said:
            self._journal.tell("trouble", node=node_id, reason=said)
        else:
            self._journal.tell("joined", node=node_id)

    def _known(self, nonce: str) -> dict[str, Any]:
        told = read_json(_path(self._folder, nonce)) if NONCE.fullmatch(nonce) else {}
        if not told or not NODE.fullmatch(str(told.get("node", ""))):
            raise Refusal(403, "no worker of this run has this nonce")
        return told


class EnrolmentServer(ThreadingHTTPServer):
    """Serves one Enrolment."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], enrolment: Enrolment) -> None:
        super().__init__(address, Handler)
        self.enrolment = enrolment


class Handler(BaseHTTPRequestHandler):
    """GET /enrol and POST /report, both with the header X-Dhctl-Nonce."""

    server: EnrolmentServer
    timeout = SOCKET_S

    def do_GET(self) -> None:
        """Code and secrets."""
        self._guarded("/enrol", lambda: self.server.enrolment.enrol(self._nonce(), str(self.client_address[0])))

    def do_POST(self) -> None:
        """How a worker is."""
        self._guarded("/report", self._report)

    def _report(self) -> dict[str, Any]:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= BODY_LIMIT:
            raise Refusal(413, f"send 1 to {BODY_LIMIT} bytes")
        body = json.loads(self.rfile.read(length))
        self.server.enrolment.report(self._nonce(), str(body["reason"]))
        return {}

    def _nonce(self) -> str:
        return str(self.headers.get("X-Dhctl-Nonce") or "")

    def _guarded(self, path: str, made: Callable[[], dict[str, Any]]) -> None:
        try:
            if self.path != path:
                raise Refusal(404, "not found")
            self._answer(200, made())
        except Refusal as refusal:
            self._answer(refusal.status, {"reason": str(refusal)})
        except (ValueError, KeyError, TypeError):
            self._answer(400, {"reason": "not what is asked for"})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
        """Addresses, paths and statuses; never a header."""
        sys.stderr.write(f"{self.address_string()} {format % args}\n")


def main() -> int:
    """Entry point: serves on the address given."""
    with EnrolmentServer((sys.argv[1], ENROLMENT_PORT), Enrolment(ServerFolder.here())) as server:
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
