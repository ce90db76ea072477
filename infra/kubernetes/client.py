"""The way to a Kubernetes API: the user's kubeconfig as kubectl reads it, errors as sentences, patience with a server
in trouble.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import tenacity
import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException, list_kube_config_contexts, load_incluster_config, load_kube_config

from dhctl.infra.errors import RefusedError
from dhctl.infra.kubernetes.section import KubernetesSection

TROUBLED = (429, 500, 502, 503, 504)
"""Answers of a server that is in trouble for a while."""

PATIENCE_S = 60.0
"""How long a call that can be repeated is repeated while the server is in trouble."""

REQUEST_S = 30.0
NO_SERVER = (urllib3.exceptions.HTTPError, OSError)
"""What the client raises where no answer came."""

T = TypeVar("T")


class ClusterApiError(RefusedError):
    """The API cannot be reached, refuses the caller, or failed for longer than dhctl waits.

    `status` is HTTP's, or 0.
    """

    def __init__(self, what: str, next_step: str = "", status: int = 0) -> None:
        super().__init__(what, next_step)
        self.status = status


@dataclass(frozen=True)
class Cluster:
    """One context of a kubeconfig. `namespace` is the spec's, else the context's own."""

    api: client.ApiClient
    namespace: str
    host: str
    context: str

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """One request, its answer as JSON. `options`: query (list of pairs), content_type, timeout_s.

        Raises ApiException, and what NO_SERVER lists.
        """
        kind = options.get("content_type", "application/json")
        request = self.api.param_serialize(
            method,
            path,
            query_params=list(options.get("query", ())),
            header_params={"Accept": "application/json", "Content-Type": kind},
            body=body if "json" in kind else json.dumps(body),
            auth_settings=["BearerToken"],
        )
        answer = self.api.call_api(*request, _request_timeout=options.get("timeout_s", REQUEST_S))
        content = answer.read() or b"{}"
        if not 200 <= answer.status < 300:
            raise ApiException.from_response(http_resp=answer, body=content.decode(errors="replace"), data=None)
        return json.loads(content)


def connect(section: KubernetesSection) -> Cluster:
    """The cluster that the spec's context names, else the kubeconfig's current one, else the one around this pod.

    No call is made. Raises ClusterApiError.
    """
    files = os.environ.get("KUBECONFIG") or None  # the library reads the variable only when it is imported
    settings = client.Configuration()
    try:
        contexts, active = list_kube_config_contexts(files)
        chosen = next((c for c in contexts if c["name"] == section.context), active if not section.context else None)
        if chosen is None:
            known = ", ".join(sorted(c["name"] for c in contexts)) or "none"
            raise ClusterApiError(
                f"the kubeconfig has no context '{section.context}' (known: {known})", "set kubernetes.context"
            )
        load_kube_config(files, context=chosen["name"], client_configuration=settings)
        own, name = chosen["context"].get("namespace"), chosen["name"]
    except ConfigException as error:
        if section.context:
            raise ClusterApiError(f"no kubeconfig can be read: {error}", "set KUBECONFIG, as for kubectl") from error
        try:
            load_incluster_config(client_configuration=settings)
        except ConfigException:
            raise ClusterApiError(f"no kubeconfig can be read: {error}", "set KUBECONFIG, as for kubectl") from error
        own, name = None, "in-cluster"
    settings.retries = urllib3.Retry(0, connect=0, read=0, redirect=2)
    return Cluster(client.ApiClient(settings), section.namespace or own or "default", settings.host, name)


def reason_of(error: Exception) -> str:
    """What the API server said, without the client's frame around it."""
    if not isinstance(error, ApiException):
        return " ".join(str(error).split())[:300] or type(error).__name__
    try:
        told = json.loads(error.body or "")["message"]
    except (ValueError, TypeError, KeyError):
        told = error.reason or "no reason given"
    return f"{' '.join(str(told).split())[:500]} (HTTP {error.status})"


def status_of(error: Exception) -> int:
    """The HTTP status of an answer that was raised; 0 where there was none."""
    return int(error.status or 0) if isinstance(error, ApiException) else 0


@contextmanager
def api_errors(doing: str) -> Iterator[None]:
    """Turns what the client raises into a ClusterApiError: `cannot <doing>: <reason>; <next step>`."""
    try:
        yield
    except (ApiException, *NO_SERVER) as error:
        status = status_of(error)
        raise ClusterApiError(f"cannot {doing}: {reason_of(error)}", _next_step(status), status) from error


def _next_step(status: int) -> str:
    match status:
        case 401:
            return "log in anew: the credentials of your kubeconfig are refused"
        case 403:
            return "ask the namespace's owner for the Role in docs/kubernetes.md"
        case 0:
            return "is the server of your kubeconfig right, and can it be reached from here (VPN, proxy)?"
        case _:
            return "try again later, or ask the cluster's operator with the text above"


def _in_trouble(error: BaseException) -> bool:
    return isinstance(error, NO_SERVER) or (isinstance(error, ApiException) and error.status in TROUBLED)


def patiently(call: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """The answer of a call that can be repeated, which is repeated while the server is in trouble."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(_in_trouble),
        wait=tenacity.wait_exponential(0.3, max=5),
        stop=tenacity.stop_after_delay(patience_s),
        reraise=True,
    )(call)
