"""Speaking to a Ray cluster from outside: who may, whether it answers, whether it refuses those without the token."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests

from dhctl.infra.errors import ClusterError

KNOCK_S = 45.0
"""How long a door may take to answer a stranger: a raylet on a busy machine takes its time at first."""

PAUSE_S = 0.2
"""Between tries of a door whose connection broke."""


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


@dataclass(frozen=True)
class Probe:
    """What one door of the cluster did with callers who may not enter."""

    door: str
    without_token: str
    wrong_token: str
    refused: bool


def probe_refusal(connection: Connection) -> list[Probe]:
    """Knocks at the Jobs API, the GCS and a raylet without a token and with a wrong one."""
    with ThreadPoolExecutor(max_workers=3) as doors:
        tries = [
            doors.submit(_probe_jobs_api, connection),
            doors.submit(_probe_grpc, "GCS", connection.gcs_address, "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"),
            doors.submit(_probe_grpc, "raylet", connection.raylet_address, "/ray.rpc.NodeManagerService/GetNodeStats"),
        ]
        return [tried.result() for tried in tries]


def require_refusal(connection: Connection) -> list[Probe]:
    """Raises ClusterError when any door opens without the token, or cannot be tried."""
    probes = probe_refusal(connection)
    open_doors = [p for p in probes if not p.refused]
    if open_doors:
        told = ", ".join(f"{p.door} ({p.without_token} / {p.wrong_token})" for p in open_doors)
        raise ClusterError(f"Ray does not refuse callers without the token: {told}", "the run is taken down")
    return probes


def _probe_jobs_api(connection: Connection) -> Probe:
    answers = []
    for headers in ({}, {"Authorization": "Bearer " + "0" * 64}):
        try:
            answer = requests.get(f"{connection.dashboard_url}/api/jobs/", headers=headers, timeout=KNOCK_S)
            answers.append(str(answer.status_code))
        except requests.RequestException as error:
            answers.append(type(error).__name__)
    return Probe("Jobs API", answers[0], answers[1], answers[0] == "401" and answers[1] in ("401", "403"))


def _probe_grpc(door: str, address: str, method: str) -> Probe:
    """An empty message is valid for any method, so no Ray protocol classes are needed."""
    import grpc  # heavy, and only needed here

    def knock(*metadata: tuple[str, str]) -> str:
        """A connection that breaks is no answer: another one is tried for as long as one knock may take."""
        until = time.monotonic() + KNOCK_S
        while (answer := ask(*metadata)) == "UNAVAILABLE" and time.monotonic() < until:
            time.sleep(PAUSE_S)
        return answer

    def ask(*metadata: tuple[str, str]) -> str:
        with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
            try:
                call(b"", metadata=metadata, timeout=KNOCK_S, wait_for_ready=True)
            except grpc.RpcError as error:
                return str(error.code().name)
        return "OK"

    answers = knock(), knock(("authorization", "Bearer " + "0" * 64))
    return Probe(door, *answers, refused=all(a == "UNAUTHENTICATED" for a in answers))
