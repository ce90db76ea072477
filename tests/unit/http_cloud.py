"""A small cloud over HTTP on 127.0.0.1, for the real openstacksdk: keystone's login, lists and deletions of all kinds,
a server's console. Nothing more: what a test needs else it puts into `answers`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

USER, PROJECT = "user-1", "project-1"
SERVICES = {
    "compute": "/compute/v2.1",
    "network": "/network/v2.0",
    "block-storage": "/volume/v3",
    "image": "/image/v2",
    "load-balancer": "/balancer/v2.0",
    "identity": "/identity/v3",
}
KINDS = {
    "servers": "/compute/v2.1/servers",
    "os-keypairs": "/compute/v2.1/os-keypairs",
    "os-server-groups": "/compute/v2.1/os-server-groups",
    "volumes": "/volume/v3/volumes",
    "snapshots": "/volume/v3/snapshots",
    "application_credentials": f"/identity/v3/users/{USER}/application_credentials",
    "loadbalancers": "/balancer/v2.0/lbaas/loadbalancers",
    **{
        name: f"/network/v2.0/{name.replace('_', '-')}"
        for name in ("networks", "subnets", "routers", "ports", "floatingips", "security_groups")
    },
}
"""Name of a listing, and its path."""

Refusal = tuple[int, str]
HANGS_UP = 0
"""For `broken`: the connection ends without an answer."""


@dataclass
class HttpCloud:
    """What is there, and how it behaves. `refuses` answers a deletion of this id, `broken` any call below this path."""

    things: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in KINDS})
    refuses: dict[str, Refusal] = field(default_factory=dict)
    broken: dict[str, list[int]] = field(default_factory=dict)
    """Statuses by the beginning of a path, one an answer; the last one stays."""
    stays: set[str] = field(default_factory=set)
    """Ids that are listed on after their deletion was taken."""
    answers: dict[str, Any] = field(default_factory=dict)
    """Bodies by method and path, or what makes one."""
    services: dict[str, str] = field(default_factory=lambda: dict(SERVICES))
    roles: tuple[str, ...] = ("member", "reader")
    asked: list[str] = field(default_factory=list)
    """Method and path of each call, without discovery."""
    url: str = ""

    def add(self, kind: str, ident: str, **values: Any) -> None:
        self.things[kind].append({"id": ident, "project_id": PROJECT, "name": "", **values})

    def ids(self, kind: str) -> list[str]:
        return [thing["id"] for thing in self.things[kind]]

    @property
    def deleted(self) -> list[str]:
        """Last parts of the paths of all deletions, in order."""
        return [call.rpartition("/")[2] for call in self.asked if call.startswith("DELETE ")]

    @contextmanager
    def serving(self) -> Iterator[HttpCloud]:
        handler = type("Handler", (_Handler,), {"cloud": self})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            thread = threading.Thread(target=lambda: server.serve_forever(0.02))
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def write_config(self, folder: Path, name: str = "small", password: str = "right", **settings: Any) -> Path:
        """A clouds.yaml (JSON is YAML) with one entry for this cloud."""
        auth = {"auth_url": f"{self.url}/identity/v3", "username": "anna", "password": password}
        auth |= {"project_name": "trial", "user_domain_id": "default", "project_domain_id": "default"}
        path = folder / "clouds.yaml"
        path.write_text(json.dumps({"clouds": {name: {"auth": auth, "region_name": "here", **settings}}}))
        return path

    def answer(self, method: str, target: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        """Status, body, headers."""
        parts = urlsplit(target)
        path = parts.path.rstrip("/")
        if method == "GET" and path in self.services.values():
            return 200, self._version(path), {}
        self.asked.append(f"{method} {path}")
        for below, statuses in self.broken.items():
            if path.startswith(below):
                status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
                if status == HANGS_UP:
                    raise ConnectionResetError
                if status != 200:
                    return status, {"error": {"message": "out of order"}}, {}
        if f"{method} {path}" in self.answers:
            told = self.answers[f"{method} {path}"]
            return 200, told() if callable(told) else told, {}
        if path == "/identity/v3/auth/tokens":
            return self._token(body)
        if method == "PUT" and path.endswith("/remove_router_interface"):
            self.things["ports"] = [p for p in self.things["ports"] if p["id"] != body["port_id"]]
            return 200, {}, {}
        return self._listed(method, path, dict(parse_qsl(parts.query)))

    def _listed(self, method: str, path: str, query: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        for kind, below in KINDS.items():
            if method == "GET" and path in (below, f"{below}/detail"):
                return 200, self._listing(kind, query), {}
            if path.startswith(f"{below}/"):
                return self._one(method, kind, path.rpartition("/")[2])
        return 404, {"error": {"message": f"no {path}"}}, {}

    def _one(self, method: str, kind: str, ident: str) -> tuple[int, Any, dict[str, str]]:
        found = [thing for thing in self.things[kind] if ident == thing["id"]]
        if not found:
            return 404, {"error": {"message": f"no {ident}"}}, {}
        if method == "GET":
            return 200, {kind.removesuffix("s"): found[0]}, {}
        if ident in self.refuses:
            status, told = self.refuses[ident]
            return status, {"NeutronError": {"message": told, "type": "InUse", "detail": ""}}, {}
        if ident not in self.stays:
            self.things[kind].remove(found[0])
        return 204, None, {}

    def _listing(self, kind: str, query: dict[str, str]) -> dict[str, Any]:
        named = kind.removeprefix("os-").replace("-", "_")
        found = [thing for thing in self.things[kind] if all(_fits(thing, key, value) for key, value in query.items())]
        wrapped = [{"keypair": thing} for thing in found] if named == "keypairs" else found
        return {named: wrapped}

    def _version(self, path: str) -> dict[str, Any]:
        version = path.rpartition("/")[2]
        links = [{"rel": "self", "href": f"{self.url}{path}/"}]
        told = {"id": version, "status": "CURRENT", "links": links, "min_version": "2.1", "version": "2.90"}
        return {"version": {**told, "status": "stable"} if "identity" in path else told}

    def _token(self, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        if body["auth"]["identity"]["password"]["user"]["password"] != "right":
            return 401, {"error": {"message": "The request you have made requires authentication."}}, {}
        catalog = [
            {
                "type": kind,
                "name": kind,
                "id": kind,
                "endpoints": [{"interface": "public", "region": "here", "region_id": "here", "url": self.url + path}],
            }
            for kind, path in self.services.items()
        ]
        domain = {"id": "default", "name": "Default"}
        token = {
            "methods": ["password"],
            "expires_at": "2099-01-01T00:00:00.000000Z",
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "user": {"id": USER, "name": "anna", "domain": domain},
            "project": {"id": PROJECT, "name": "trial", "domain": domain},
            "roles": [{"id": role, "name": role} for role in self.roles],
            "catalog": catalog,
        }
        return 201, {"token": token}, {"X-Subject-Token": "t0"}


def _fits(thing: dict[str, Any], key: str, value: str) -> bool:
    """Neutron's and nova's filters, as far as dhctl uses them; others, such as limits of a page, do not filter."""
    if key == "fixed_ips":
        return any(f"subnet_id={fixed['subnet_id']}" == value for fixed in thing["fixed_ips"])
    if key == "router:external":
        return str(thing.get(key)) == value
    return key not in thing or str(thing[key]) == value


class _Handler(BaseHTTPRequestHandler):
    cloud: HttpCloud
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    """Head and body in one packet, else each answer takes 40 ms."""

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        try:
            status, told, headers = self.cloud.answer(self.command, self.path, body)
        except ConnectionResetError:
            self.close_connection = True
            return
        content = b"" if told is None else json.dumps(told).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Quiet."""
