"""Websockets to a pod through the API server. Exec and port-forward speak in channels: each message begins with the
number of its own.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

import certifi
from kubernetes.client import Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.stream.ws_client import get_websocket_url, websocket_proxycare
from websocket import WebSocket, WebSocketBadStatusException, WebSocketException

from dhctl.infra.kubernetes.client import Cluster
from dhctl.infra.kubernetes.raw import Query

PROTOCOL = "v4.channel.k8s.io"
OPEN_S = 15.0
LOST_S = 60.0
"""After this long without any sign that the other end got what was sent, the connection is given up."""

SOCKET_OPTIONS = [(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(LOST_S * 1000))]


def dial(cluster: Cluster, path: str, query: Query, timeout_s: float = OPEN_S) -> WebSocket:
    """A websocket that is open, with the caller's TLS, proxy and credentials. Its socket has `timeout_s`.

    The client's own `kubernetes.stream` does not serve: it patches the client object that it is given, waits for ever
    for a server that does not answer, and its port-forward drops what is under way when one side ends.
    Raises ApiException, and what `client.NO_SERVER` lists.
    """
    settings = cluster.api.configuration
    _, url, headers, *_ = cluster.api.param_serialize(
        "GET", path, query_params=list(query), header_params={}, auth_settings=["BearerToken"]
    )
    options: dict[str, Any] = {"header": [f"sec-websocket-protocol: {PROTOCOL}"], "timeout": timeout_s}
    if "authorization" in headers:
        options["header"].append(f"authorization: {headers['authorization']}")
    if settings.proxy or settings.proxy_headers:
        options = websocket_proxycare(options, settings, url, headers)
    websocket = WebSocket(sslopt=_tls(settings), sockopt=SOCKET_OPTIONS, skip_utf8_validation=True)
    try:
        websocket.connect(get_websocket_url(url), **options)
    except WebSocketBadStatusException as error:
        told = (error.resp_body or b"").decode(errors="replace")
        refused = ApiException(status=error.status_code, reason=told.strip()[:300] or "the websocket is refused")
        refused.body = told
        raise refused from error
    except WebSocketException as error:
        raise ConnectionError(str(error)) from error
    return websocket


def _tls(settings: Configuration) -> dict[str, Any]:
    """As `kubernetes.stream.ws_client` has it, which keeps it to itself."""
    if not settings.verify_ssl:
        found: dict[str, Any] = {"cert_reqs": ssl.CERT_NONE}
    else:
        found = {"cert_reqs": ssl.CERT_REQUIRED, "ca_certs": settings.ssl_ca_cert or certifi.where()}
        if settings.assert_hostname is not None:
            found["check_hostname"] = settings.assert_hostname
    if settings.cert_file:
        found["certfile"] = settings.cert_file
    if settings.key_file:
        found["keyfile"] = settings.key_file
    if settings.tls_server_name:
        found["server_hostname"] = settings.tls_server_name
    return found
