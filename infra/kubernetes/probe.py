"""Whether strangers of the same cluster come in: tried from a pod that is not one of the run's Ray cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dhctl.infra.errors import ClusterError
from dhctl.infra.kubernetes.client import PATIENCE_S, Cluster, api_errors, patiently
from dhctl.infra.kubernetes.discovery import CONFIG_MAPS, PODS
from dhctl.infra.kubernetes.inventory import RAISED
from dhctl.infra.kubernetes.mark import PROBE
from dhctl.infra.kubernetes.objects import RunObjects
from dhctl.infra.kubernetes.pod_files import log_of
from dhctl.infra.kubernetes.pod_objects import Manifest
from dhctl.infra.kubernetes.troubles import of_pod
from dhctl.infra.node.layout import CLIENT_PORT, DASHBOARD_PORT, GCS_PORT

NOTE = "probe.network"
"""Act of the ledger: what the probe found, with the `host` of the cluster."""

DOORS = (GCS_PORT, DASHBOARD_PORT, CLIENT_PORT)
DEADLINE_S = 120.0
"""How long the pod may take, its image's way to the node included."""

LOOK_EVERY_S = 0.5
KNOCK_S, ANSWER_S = 3.5, 20.0
"""A first packet that got lost is sent again after 1 s and 3 s; a dashboard on a busy machine takes its time."""

KNOCK = """
import concurrent.futures, errno, json, os, socket, sys, urllib.request, urllib.error
host, ports, dashboard, knock_s, answer_s = sys.argv[1], json.loads(sys.argv[2]), *map(float, sys.argv[3:])
CLOSED = {errno.ECONNREFUSED: 'refused', errno.ECONNRESET: 'refused', errno.ETIMEDOUT: 'no answer'}
def knock(host, port):
    try:
        socket.create_connection((host, port), knock_s).close()
    except TimeoutError:
        return 'no answer'
    except OSError as error:
        return CLOSED.get(error.errno, 'unreachable')
    return 'open'
def ask(headers):
    url = 'http://%s:%d/api/jobs/' % ('[%s]' % host if ':' in host else host, dashboard)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return str(opener.open(urllib.request.Request(url, headers=headers), timeout=answer_s).status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except Exception as error:
        return type(error).__name__
api = os.environ['KUBERNETES_SERVICE_HOST'], int(os.environ['KUBERNETES_SERVICE_PORT'])
with concurrent.futures.ThreadPoolExecutor(len(ports) + 1) as at_once:
    *outcomes, outside = at_once.map(lambda door: knock(*door), [*((host, port) for port in ports), api])
told = {'doors': dict(zip(ports, outcomes)), 'answers': [], 'outside': outside}
if told['doors'][int(dashboard)] == 'open':
    told['answers'] = [ask({}), ask({'Authorization': 'Bearer ' + '0' * 64})]
print(json.dumps(told))
"""
"""What the pod runs. The API server's address is there for comparison: a pod that reaches nothing proves nothing."""


@dataclass(frozen=True)
class ProbeResult:
    """What a stranger met. `doors` has each port's outcome: open, refused, no answer, unreachable.

    `refuses`: nobody without the token comes in. `enforced`: the cluster keeps strangers from Ray's ports altogether.
    """

    doors: Mapping[int, str]
    refuses: bool
    enforced: bool
    words: str

    @property
    def told(self) -> list[str]:
        """Each door with what happened there."""
        return [f"{port} ({outcome})" for port, outcome in self.doors.items()]

    def to_dict(self) -> dict[str, Any]:
        """For the ledger."""
        return {**asdict(self), "doors": {str(port): outcome for port, outcome in self.doors.items()}}


def run_probe(cluster: Cluster, objects: RunObjects, head_ip: str) -> ProbeResult:
    """Runs a pod of the run, with the image, interpreter and volumes of its other ones, that knocks at the head's.

    Raises ClusterError when Ray lets somebody in without the token, or the doors could not be tried; ClusterApiError.
    """
    with api_errors("try the cluster's doors from a pod outside"):
        owner = patiently(lambda: cluster.call("GET", CONFIG_MAPS.path(objects.namespace, objects.mark.run_id)))
        _remove(cluster, objects)  # of an earlier try
        manifest = probe_pod(objects, owner["metadata"]["uid"], head_ip)
        made = cluster.call("POST", PODS.path(objects.namespace), manifest, query=[("fieldManager", "dhctl")])
        try:
            told = _told(cluster, made)
        finally:
            _remove(cluster, objects)
    found = judge(told)
    if not found.refuses:
        raise ClusterError(f"Ray does not refuse callers without the token: {found.words}", "the run is taken down")
    return found


def probe_pod(objects: RunObjects, owner: str, head_ip: str) -> Manifest:
    """Its manifest: as the lease's pod, which needs nothing but the interpreter either; without an account's rights."""
    base = objects.pods.lease("")
    container, own = base["containers"][0], {volume["name"] for volume in objects.section.volumes}
    numbers = [str(number) for number in (DASHBOARD_PORT, KNOCK_S, ANSWER_S)]
    container = {
        **container,
        "name": PROBE,
        "command": [objects.section.python, "-IS", "-c", KNOCK, head_ip, json.dumps(DOORS), *numbers],
        "volumeMounts": [mount for mount in container["volumeMounts"] if mount["name"] in own],
    }
    spec = {
        **{key: value for key, value in base.items() if key != "serviceAccountName"},
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "activeDeadlineSeconds": int(DEADLINE_S),
        "containers": [container],
        "volumes": [volume for volume in base["volumes"] if volume["name"] in own],
    }
    metadata = {
        **objects.service(owner)["metadata"],  # place and owner are those of all of the run's objects
        "name": objects.mark.name(PROBE),
        "labels": objects.mark.labels(PROBE),
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def judge(told: Mapping[str, Any]) -> ProbeResult:
    """What the pod's line says of the cluster. Raises ClusterError when it is no such line."""
    try:
        doors = {int(port): str(outcome) for port, outcome in told["doors"].items()}
        answers, outside = [str(answer) for answer in told["answers"]], str(told["outside"])
        dashboard = doors[DASHBOARD_PORT]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ClusterError(f"the pod that tries the doors says nothing that makes sense ({error!r})") from error
    wide = [str(port) for port, outcome in doors.items() if outcome == "open"]
    refuses = dashboard != "open" or (bool(answers) and set(answers) <= {"401", "403"})
    listed = ", ".join(f"{port} {outcome}" for port, outcome in doors.items())
    if not refuses:
        words = f"from a pod outside the run, port {DASHBOARD_PORT} answers {' / '.join(answers)} ({listed})"
    elif wide:
        words = (
            f"this cluster does not enforce NetworkPolicy: pods outside the run reach port{'s' * (len(wide) > 1)} "
            f"{', '.join(wide)}; Ray refuses them without the token"
        )
    elif outside != "open":
        words = (
            "whether this cluster enforces NetworkPolicy cannot be told: a pod outside the run reaches neither Ray "
            f"({listed}) nor the API server ({outside})"
        )
    else:
        words = f"NetworkPolicy is enforced: a pod outside the run does not reach Ray ({listed})"
    return ProbeResult(doors, refuses, not wide and outside == "open", words)


def _told(cluster: Cluster, pod: Manifest) -> Mapping[str, Any]:
    """The line that the pod printed. Raises ClusterError with the reason when it printed none."""
    path, until = PODS.path(pod["metadata"]["namespace"], pod["metadata"]["name"]), time.monotonic() + DEADLINE_S + 15
    while (phase := (pod.get("status") or {}).get("phase")) not in ("Succeeded", "Failed"):
        if time.monotonic() > until:
            break
        time.sleep(LOOK_EVERY_S)
        pod = patiently(lambda: cluster.call("GET", path))
    if phase != "Succeeded":
        why = "; ".join(of_pod(cluster, pod)) or f"pod {pod['metadata']['name']} is {phase or 'not started'}"
        raise ClusterError(f"Ray's doors could not be tried from a pod outside: {why}", "try again")
    text = patiently(lambda: log_of(cluster, pod, PROBE, 10)).decode(errors="replace")
    for line in reversed(text.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    raise ClusterError("the pod that tries Ray's doors from outside printed nothing", "try again")


def _remove(cluster: Cluster, objects: RunObjects) -> None:
    """Only the run's own. What is left here is the sweep's."""
    path = PODS.path(objects.namespace, objects.mark.name(PROBE))
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
    try:
        there = cluster.call("GET", path)
        if (there["metadata"].get("labels") or {}).items() >= objects.mark.labels(PROBE).items():
            body = {**options, "preconditions": {"uid": there["metadata"]["uid"]}}
            patiently(lambda: cluster.call("DELETE", path, body), PATIENCE_S / 4)
    except RAISED:
        return
