"""The proof that Ray refuses callers without the token: each of a head's doors is tried."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import requests

from dhctl.infra.errors import ClusterError
from dhctl.infra.ray_api import Connection

DEADLINE_S = 240.0
"""How long all doors may take together to say whether they refuse: a raylet on a busy machine is slow at first."""

KNOCK_S = 30.0
"""How long one knock may wait for its answer before another one is made, on a connection of its own."""

PAUSE_S = 0.2
"""Between two knocks at a door that gave no answer."""

Headers = tuple[tuple[str, str], ...]
STRANGERS: tuple[Headers, Headers] = ((), (("authorization", "Bearer " + "0" * 64),))
"""Who knocks, by the headers of HTTP or gRPC: a caller without a token, and one with a wrong one."""

SILENT = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
"""Codes of gRPC that come from a connection that broke or a server that is busy, and say nothing of who may enter."""

Knock = Callable[[Headers, float], str]
"""Knocks once, with this much patience in seconds; what the door said. Raises _NoAnswerError."""


@dataclass(frozen=True)
class Probe:
    """What one door of the cluster did with callers who may not enter. `told` says it in words.

    `answered`: it said something of who may enter, to each of them. `refused`: nobody came in.
    """

    door: str
    told: str
    answered: bool
    refused: bool


class _NoAnswerError(Exception):
    """Why a knock was not answered."""


def probe_refusal(connection: Connection, deadline_s: float = DEADLINE_S) -> list[Probe]:
    """Knocks at the Jobs API, the GCS and a raylet without a token and with a wrong one, until each has answered both.

    A door that has not after `deadline_s` is one that neither answered nor refused.
    """
    until = time.monotonic() + deadline_s
    gcs, raylet = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo", "/ray.rpc.NodeManagerService/GetNodeStats"
    with ThreadPoolExecutor(max_workers=3) as doors:
        tries = [
            doors.submit(_probe_jobs_api, connection.dashboard_url, until),
            doors.submit(_probe_grpc, "GCS", connection.gcs_address, gcs, until),
            doors.submit(_probe_grpc, "raylet", connection.raylet_address, raylet, until),
        ]
        return [tried.result() for tried in tries]


def require_refusal(connection: Connection, deadline_s: float = DEADLINE_S) -> list[Probe]:
    """As `probe_refusal`. Raises ClusterError when a door opens without the token, or does not tell in time."""
    probes = probe_refusal(connection, deadline_s)
    wide_open = [f"{p.door} ({p.told})" for p in probes if p.answered and not p.refused]
    silent = [f"{p.door} ({p.told})" for p in probes if not p.answered]
    if wide_open:
        what = f"Ray does not refuse callers without the token: {', '.join(wide_open)}"
        raise ClusterError(what, "the run is taken down")
    if silent:
        what = (
            f"whether Ray refuses callers without the token is not known after {deadline_s:.0f} s: {', '.join(silent)}"
        )
        raise ClusterError(what, "the run is taken down; try again when the machines are less busy")
    return probes


def _probe_jobs_api(url: str, until: float) -> Probe:
    def knock(headers: Headers, patience_s: float) -> str:
        try:
            return str(requests.get(f"{url}/api/jobs/", headers=dict(headers), timeout=patience_s).status_code)
        except requests.RequestException as error:
            raise _NoAnswerError(type(error).__name__) from error

    return _probe("Jobs API", knock, until, lambda first, second: first == "401" and second in ("401", "403"))


def _probe_grpc(door: str, address: str, method: str, until: float) -> Probe:
    """An empty message is valid for any method, so no Ray protocol classes are needed."""
    import grpc  # heavy, and only needed here

    def knock(headers: Headers, patience_s: float) -> str:
        with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
            try:
                call(b"", metadata=headers, timeout=patience_s, wait_for_ready=True)
            except grpc.RpcError as error:
                code = str(error.code().name)
                if code in SILENT:
                    raise _NoAnswerError(f"{code}: {error.details()}"[:200]) from error
                return code
        return "OK"

    return _probe(door, knock, until, lambda *both: set(both) == {"UNAUTHENTICATED"})


def _probe(door: str, knock: Knock, until: float, refuses: Callable[[str, str], bool]) -> Probe:
    """Both strangers in turn, each until it has an answer."""
    answers = list[str]()
    try:
        for headers in STRANGERS:
            answers.append(_persist(knock, headers, until))
    except _NoAnswerError as error:
        return Probe(door, " / ".join([*answers, f"no answer: {error}"]), answered=False, refused=False)
    return Probe(door, " / ".join(answers), answered=True, refused=refuses(*answers))


def _persist(knock: Knock, headers: Headers, until: float) -> str:
    """Its answer. Raises _NoAnswerError with the last reason when none has come by `until`."""
    while True:
        try:
            return knock(headers, max(min(KNOCK_S, until - time.monotonic()), PAUSE_S))
        except _NoAnswerError:
            if time.monotonic() + PAUSE_S > until:
                raise
        time.sleep(PAUSE_S)
