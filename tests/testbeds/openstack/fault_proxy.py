"""The fault proxy (testbeds/faults.py) in front of the testbed's services.

with FaultProxy(layout, tmp_path) as proxy:
    fault = proxy.expect(Fault("compute", "POST", r"/servers$", Cut()))
    ... a client with OS_CLIENT_CONFIG_FILE=proxy.clouds_yaml ...
    assert fault.hits == 1
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
import yaml

from testbeds.faults import HOP_BY_HOP, UPSTREAM_LIMIT_S, Answer, Proxy, Request, unreachable
from testbeds.openstack.layout import ADMIN_CLOUD, CLOUD, ENDPOINTS, TOKEN_CACHE_S, Layout


@dataclass(frozen=True)
class RevokeToken:
    """The token that the request carries is revoked in keystone, in earnest, before the request is passed on: a 401."""

    admin_token: Callable[[], str]

    def __call__(self, request: Request, pass_on: Callable[[], Answer]) -> Answer:
        token = request.headers["x-auth-token"]
        headers = {"X-Auth-Token": self.admin_token(), "X-Subject-Token": token}
        requests.delete(f"{ENDPOINTS['identity']}/auth/tokens", headers=headers, timeout=30).raise_for_status()
        time.sleep(TOKEN_CACHE_S + 1)  # so long a service may believe in it
        return pass_on()


class FaultProxy(Proxy):
    """One listener a service on 127.0.0.1, and a clouds.yaml in `folder` that leads there. A context manager."""

    def __init__(
        self, layout: Layout, folder: Path, services: tuple[str, ...] = ("compute", "network", "identity")
    ) -> None:
        super().__init__(services)
        self._layout = layout
        self.clouds_yaml = self._write_clouds(folder)

    def url(self, service: str) -> str:
        """Where the service is to be asked."""
        port = self._servers[service].server_address[1]
        return f"http://127.0.0.1:{port}{urlsplit(ENDPOINTS[service]).path}"

    def revoke_token(self) -> RevokeToken:
        """The effect RevokeToken with the testbed's administrator."""
        return RevokeToken(lambda: _admin_token(self._layout))

    def ask(self, request: Request) -> Answer:
        """The real service's answer; 502 when it does not answer at all."""
        upstream = urlsplit(ENDPOINTS[request.service])
        connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=UPSTREAM_LIMIT_S)
        try:
            # The Host header stays the client's: links in the answers then lead through the proxy again.
            headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
            connection.request(request.method, request.path, body=request.body or None, headers=headers)
            response = connection.getresponse()
            body = response.read()
            kept = [pair for pair in response.getheaders() if pair[0].lower() not in HOP_BY_HOP]
            return Answer(response.status, kept, body)
        except (OSError, http.client.HTTPException) as trouble:
            return unreachable(request.service, trouble)
        finally:
            connection.close()

    def _write_clouds(self, folder: Path) -> Path:
        clouds = yaml.safe_load(self._layout.clouds_yaml.read_text())
        entry = clouds["clouds"][CLOUD]
        for service in self._servers:
            entry[f"{service}_endpoint_override"] = self.url(service)
        if "identity" in self._servers:
            entry["auth"]["auth_url"] = self.url("identity")
        path = folder / "clouds-through-proxy.yaml"
        path.write_text(yaml.safe_dump(clouds))
        return path


def _admin_token(layout: Layout) -> str:
    auth = yaml.safe_load(layout.clouds_yaml.read_text())["clouds"][ADMIN_CLOUD]["auth"]
    domain = {"name": auth["user_domain_name"]}
    user = {"name": auth["username"], "password": auth["password"], "domain": domain}
    scope = {"project": {"name": auth["project_name"], "domain": {"name": auth["project_domain_name"]}}}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
    answer = requests.post(f"{ENDPOINTS['identity']}/auth/tokens", json=body, timeout=30)
    answer.raise_for_status()
    return answer.headers["X-Subject-Token"]
