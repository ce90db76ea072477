"""The connection to an OpenStack cloud, with the credentials that every OpenStack tool uses: `clouds.yaml`, `OS_CLOUD`,
`OS_*`. They are never written anywhere. What the SDK raises becomes a sentence with a next step.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openstack
import tenacity
from keystoneauth1 import exceptions as auth_errors
from openstack import exceptions as sdk_errors
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from dhctl.infra.errors import RefusedError
from dhctl.infra.openstack.answers import reason_of, status_of
from dhctl.infra.openstack.section import OpenStackSection

TROUBLED = (500, 502, 503, 504)
"""Answers of an API that is in trouble for a while. Asked again: what this connection is used for can be repeated."""

RETRIES = 5
"""How often keystoneauth repeats such a request, after 0.5, 1, 2, 4 and 8 s."""

LOGIN_WAIT_S = 30.0
"""How long a keystone in trouble is asked for a token."""

REQUEST_TIMEOUT_S = 60.0
CONFIG_ENV = "OS_CLIENT_CONFIG_FILE"
RAISED = (sdk_errors.SDKException, auth_errors.ClientException)
"""What calls to the cloud raise: the second where no answer came at all, or the login has ended."""


class CloudError(RefusedError):
    """The cloud cannot be reached, refuses the credentials, or failed for longer than dhctl waits."""


def connect(section: OpenStackSection) -> Connection:
    """A connection that is logged in. Raises CloudError.

    A clouds.yaml that was found is named in the environment too: the engine and the lease keeper, which work in other
    folders, then read the same.
    """
    for chatty in ("openstack", "keystoneauth"):  # what the catalog lacks is no news; what matters is raised
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with cloud_errors("log in"):
        config = OpenStackConfig()
        if config.config_filename and Path(config.config_filename).is_file():
            os.environ.setdefault(CONFIG_ENV, str(Path(config.config_filename).absolute()))
        region = config.get_one(
            cloud=section.cloud,
            app_name="dhctl",
            status_code_retries=RETRIES,
            retriable_status_codes=list(TROUBLED),
            connect_retries=RETRIES,
            api_timeout=REQUEST_TIMEOUT_S,
        )
        connection = openstack.connection.Connection(config=region)
        _log_in(connection)
    return connection


def _log_in(connection: Connection) -> None:
    """Keystone is asked again while it is in trouble; a wrong password is told at once."""
    troubled = (auth_errors.HttpServerError, auth_errors.ConnectFailure)
    tenacity.retry(
        retry=tenacity.retry_if_exception_type(troubled),
        wait=tenacity.wait_exponential(0.5, max=8),
        stop=tenacity.stop_after_delay(LOGIN_WAIT_S),
        reraise=True,
    )(connection.session.get_token)()


@contextmanager
def cloud_errors(doing: str) -> Iterator[None]:
    """Turns what openstacksdk and keystoneauth raise into a CloudError: `cannot <doing>: <reason>; <next step>`."""
    try:
        yield
    except RAISED as error:
        raise CloudError(f"cannot {doing} on OpenStack: {reason_of(error)}", _next_step(error)) from error


def _next_step(error: Exception) -> str:
    match error:
        case sdk_errors.ConfigException() | auth_errors.MissingRequiredOptions() | auth_errors.MissingAuthPlugin():
            return "set OS_CLOUD or openstack.cloud to an entry of your clouds.yaml, or source the project's RC file"
        case _ if status_of(error) == 401:
            return "check user, password and project, or whether the application credential has expired"
        case auth_errors.ConnectFailure() | auth_errors.DiscoveryFailure() | auth_errors.ConnectionError():
            return "check auth_url, VPN and proxy settings"
        case _:
            return "try again later, or ask the cloud's operator with the text above"


def node_access(connection: Connection) -> dict[str, Any]:
    """How a node reaches the same cloud: all but the credential itself. `cacert` is the certificates' text."""
    config = connection.config
    verify, cacert = config.config.get("verify", True), config.config.get("cacert")
    return {
        "auth_url": str(config.config["auth"]["auth_url"]),
        "region_name": config.get_region_name(),
        "interface": config.get_interface() or "public",
        "cacert": Path(cacert).read_text() if cacert else None,
        "verify": bool(verify),
    }
