"""The real APIs, asked without any comfort: one request, one answer, and the error texts of gophercloud, which the
official plugin passes on. Waiting is done here too, in its words.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from keystoneauth1 import exceptions as auth_errors

if TYPE_CHECKING:
    from openstack.connection import Connection

RETRIED = (409, 500, 502, 503, 504)
"""Answers to a poll after which the official plugin goes on waiting for a server."""

_FIRST_POLL_S, _POLL_S, REQUEST_TIMEOUT_S = 0.1, 0.25, 60.0
"""The official plugin looks less often, and 10 s after a create first: tests need not wait for that."""

_NAMES = {
    "auth_url": "auth_url",
    "user_name": "username",
    "user_id": "user_id",
    "password": "password",
    "token": "token",
    "tenant_id": "project_id",
    "tenant_name": "project_name",
    "user_domain_id": "user_domain_id",
    "user_domain_name": "user_domain_name",
    "project_domain_id": "project_domain_id",
    "project_domain_name": "project_domain_name",
    "application_credential_id": "application_credential_id",
    "application_credential_name": "application_credential_name",
    "application_credential_secret": "application_credential_secret",
}
"""Provider settings that are part of the login, and what openstacksdk calls them."""


_IMPORTING = threading.Lock()


def sdk() -> Any:
    """The package openstacksdk. Its import takes most of a second, in which the engine may ask for what needs no cloud.

    By one thread at a time: its modules import each other, and several threads would meet them half-made.
    """
    with _IMPORTING:
        return importlib.import_module("openstack")


class ApiError(Exception):
    """An answer that was not the expected one, or none. `status` is 0 where there was none."""

    def __init__(self, said: str, status: int = 0) -> None:
        super().__init__(said)
        self.status = status


class Deadline:
    """Until when an operation may take."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """Seconds; 0 when it has passed."""
        return max(0.0, self._at - time.monotonic())


class Cloud:
    """One provider's connection, opened at the first request (the official plugin's `delayed_auth`)."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        """`settings` are the provider's, by Terraform's names; what is not there comes from the environment."""
        self._settings = dict(settings)
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._named: dict[str, threading.Lock] = {}

    @property
    def connection(self) -> Connection:
        """Logged in."""
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            return self._connection

    def _connect(self) -> Connection:
        login = {theirs: self._settings[ours] for ours, theirs in _NAMES.items() if ours in self._settings}
        options: dict[str, Any] = {"auth": login} if login else {}
        for ours, theirs in (("cloud", "cloud"), ("region", "region_name"), ("cacert_file", "cacert")):
            if ours in self._settings:
                options[theirs] = self._settings[ours]
        if self._settings.get("insecure") == "true":
            options["verify"] = False
        if "application_credential_secret" in login:
            options["auth_type"] = "v3applicationcredential"
        try:
            connection = sdk().connect(**options, app_name="stand-in", api_timeout=REQUEST_TIMEOUT_S)
            connection.authorize()
        except (sdk().exceptions.SDKException, auth_errors.ClientException) as error:
            raise ApiError(f"Error creating OpenStack client: {error}") from error
        return connection

    @property
    def region(self) -> str:
        """The region's name, "" where the cloud tells none."""
        return str(self.connection.config.get_region_name() or "")

    @property
    def user_id(self) -> str:
        """Whose credentials these are."""
        return str(self.connection.current_user_id)

    def lock(self, name: str) -> AbstractContextManager[object]:
        """Held by one operation at a time on that router or security group."""
        with self._lock:
            return self._named.setdefault(name, threading.Lock())

    def ask(
        self, service: str, method: str, path: str, body: Any = None, *, ok: tuple[int, ...] = (), version: str = ""
    ) -> Any:
        """The JSON that a service answers ({} for none). `service` is openstacksdk's name, `version` a microversion.

        Raises ApiError for an answer that is not `ok` (gophercloud's expectation by default), and for none.
        """
        expected = ok or _EXPECTED[method]
        options: dict[str, Any] = {"microversion": version} if version else {}
        if body is not None:
            options["json"] = body
        try:
            proxy = getattr(self.connection, service)
            answer = proxy.request(path, method, raise_exc=False, connect_retries=0, **options)
        except (sdk().exceptions.SDKException, auth_errors.ClientException) as error:
            raise ApiError(str(error)) from error
        if answer.status_code not in expected:
            listed = " ".join(map(str, expected))
            raise ApiError(
                f"Expected HTTP response code [{listed}] when accessing [{method} {answer.url}], "
                f"but got {answer.status_code} instead: {answer.text.strip()}",
                answer.status_code,
            )
        return answer.json() if answer.text.strip() else {}


_EXPECTED: Mapping[str, tuple[int, ...]] = {
    "GET": (200,),
    "POST": (201, 202),
    "PUT": (200, 201, 202),
    "DELETE": (202, 204),
}


def wait(
    state: Callable[[], str],
    *,
    target: Collection[str],
    pending: Collection[str] = (),
    deadline: Deadline,
    tolerated: Collection[int] = (),
) -> None:
    """Until `state` gives one of `target`. An empty `pending` means: any other state is waited out.

    Raises ApiError: another state, the deadline, or what `state` raises and is not `tolerated`.
    """
    pause = _FIRST_POLL_S
    while True:
        try:
            found = state()
        except ApiError as error:
            if error.status not in tolerated:
                raise
            found = next(iter(pending), "")
        if found in target:
            return
        if pending and found not in pending:
            wanted = ", ".join(target)
            raise ApiError(f"unexpected state '{found}', wanted target '{wanted}'. last error: %!s(<nil>)")
        if deadline.left_s <= pause:
            time.sleep(deadline.left_s)
            raise ApiError("context deadline exceeded")
        time.sleep(pause)
        pause = _POLL_S


def gone_or(state: Callable[[], str]) -> Callable[[], str]:
    """The same state, DELETED after a 404."""

    def told() -> str:
        try:
            return state()
        except ApiError as error:
            if error.status == 404:
                return "DELETED"
            raise

    return told
