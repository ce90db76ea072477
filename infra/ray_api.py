"""Speaking to a Ray cluster from outside: who may, whether it answers, which nodes it has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import requests

from dhctl.infra.errors import ClusterError


@dataclass(frozen=True)
class Connection:
    """A way to a cluster's dashboard and Jobs API. `token` is a secret and stays out of `repr`."""

    dashboard_url: str
    gcs_address: str
    raylet_address: str
    token: str = field(repr=False)
    head_address: str
    """The head's own address, by which Ray's list of nodes names it."""
    token_file: str = ""
    """Where the run's owner finds the token, which the dashboard asks for."""

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers of an authorised caller."""
        return {"Authorization": f"Bearer {self.token}"}


def dashboard_answers(connection: Connection, timeout_s: float = 2.0) -> bool:
    """Whether the dashboard answers an authorised caller."""
    try:
        answer = requests.get(f"{connection.dashboard_url}/api/version", headers=connection.headers, timeout=timeout_s)
    except requests.RequestException:
        return False
    return bool(answer.ok)


@dataclass(frozen=True)
class RayNode:
    """A node as Ray lists it. `name` is dhctl's, by which the ledger knows it; "" where the node was not told it."""

    address: str
    name: str = ""


def listed_nodes(connection: Connection, timeout_s: float = 5.0) -> dict[str, RayNode]:
    """The nodes alive in Ray's view, by Ray's id. Raises ClusterError when Ray does not answer."""
    body = _get(connection, "/nodes?view=summary", timeout_s)
    found = {}
    for node in body["data"]["summary"]:
        raylet = node.get("raylet", {})
        if raylet.get("state") == "ALIVE":
            # not `ip`, which the node's agent reports and a young node does not have yet
            found[raylet["nodeId"]] = RayNode(raylet["nodeManagerAddress"], raylet.get("instanceId", ""))
    return found


def alive_nodes(connection: Connection, timeout_s: float = 5.0) -> dict[str, str]:
    """Ray's ids of the nodes alive in its view, each with its address. Raises ClusterError when Ray does not answer."""
    return {node: listed.address for node, listed in listed_nodes(connection, timeout_s).items()}


def head_id(connection: Connection) -> str:
    """Ray's own name of the head, another one after each start of it; "" of a head that Ray does not list yet.

    Raises ClusterError when Ray does not answer.
    """
    found = alive_nodes(connection)
    return next((node for node, address in found.items() if address == connection.head_address), "")


def _get(connection: Connection, path: str, timeout_s: float) -> dict[str, Any]:
    try:
        answer = requests.get(connection.dashboard_url + path, headers=connection.headers, timeout=timeout_s)
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise ClusterError(f"Ray's dashboard does not answer ({type(error).__name__})") from error
    return body
