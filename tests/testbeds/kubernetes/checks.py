"""What tests of this testbed share: waiting, and whether a user may do something."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

HTTP_SERVER = ("python", "-m", "http.server", "--directory", "/etc/security", "8000")
READ_PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "create"]}
FORWARD = {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]}
CONFIGMAPS = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "create", "patch", "delete"]}


def until(done: Callable[[], Any], limit_s: float) -> Any:
    """The first true answer of `done`; fails the test after `limit_s`."""
    end = time.monotonic() + limit_s
    while not (answer := done()):
        if time.monotonic() > end:
            pytest.fail(f"not within {limit_s} s")
        time.sleep(0.2)
    return answer


def allowed(ask: Callable[[], Any]) -> bool:
    """Whether the API server lets it be done; it is done then."""
    try:
        ask()
    except ApiException as refused:
        if refused.status != 403:
            raise
        return False
    return True
