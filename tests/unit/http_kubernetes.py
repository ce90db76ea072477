"""A small Kubernetes API server over HTTP on 127.0.0.1, for the real client: discovery, objects in a dict, create,
server-side apply, merge patch, label and field selectors, deletion with owners and finalizers, access reviews,
injected failures.

How to use it:

    with HttpKubernetes().serving() as server:
        server.log_in(monkeypatch, tmp_path)   # KUBECONFIG with context "small", namespace "lab"
        cluster = connect(KubernetesSection())
        server.add({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "lab"}})
        server.get("pods", "p"); server.names("pods"); server.asked; server.writes

or `client.ApiClient(server.configuration())` for the official client's own classes (CoreV1Api and so on).

What there is to set, before or while it serves:
- `add(manifest)` puts an object as if it had always been there; `patch(plural, name, body)` changes one behind
  everybody's back, such as a pod's status; `pod_runs`, `pod_fails`, `pod_pends` do that for a pod; `drop` takes one
  away.
- `new_pods`: "Running" (then a new pod is ready and has an address at once) or "Pending".
- `broken["GET /api/v1/namespaces/lab/pods"] = [500, 429, 200]`: answers to what begins so, one a call; 200 serves as
  usual, the last one stays. HANGS_UP ends the connection before the act, LOST after it.
- `refuses["DELETE p"] = (403, "webhook says no")`: answers to a method on an object of this name.
- `forbidden.add(("create", "pods"))`: no right to it; access reviews say so and calls are answered with 403.
- `lingering.add("pods")`: deleted objects of this plural, or of this name, stay with a deletionTimestamp until
  `let_go(plural, name)`. Finalizers hold an object just so, until a patch takes them off.
- `resources.append(Resource("ray.io/v1", "rayclusters", "RayCluster"))`: one more kind.
- `logs["p"] = "text"`: a pod's log.

Not there: watch, exec, port-forward, defaults of fields, validation of objects.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from kubernetes import client

Thing = dict[str, Any]
Answer = tuple[int, Any]

TOKEN = "right"
HANGS_UP, LOST = 0, -1
"""For `broken`: the connection ends without an answer, before the act or after it."""

READS = {"GET"}
ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
FOREGROUND = "foregroundDeletion"


@dataclass(frozen=True)
class Resource:
    """One kind, as discovery tells it. `api` is v1 or group/version."""

    api: str
    plural: str
    kind: str
    namespaced: bool = True
    verbs: tuple[str, ...] = ALL_VERBS

    @property
    def base(self) -> str:
        return f"/api/{self.api}" if "/" not in self.api else f"/apis/{self.api}"

    @property
    def group(self) -> str:
        return self.api.rpartition("/")[0]


CORE = ("pods Pod", "configmaps ConfigMap", "secrets Secret", "services Service", "serviceaccounts ServiceAccount")
CORE += ("persistentvolumeclaims PersistentVolumeClaim", "resourcequotas ResourceQuota", "limitranges LimitRange")
CORE += ("events Event", "endpoints Endpoints")
OTHERS = ("batch/v1 cronjobs CronJob", "batch/v1 jobs Job", "networking.k8s.io/v1 networkpolicies NetworkPolicy")
OTHERS += ("rbac.authorization.k8s.io/v1 roles Role", "rbac.authorization.k8s.io/v1 rolebindings RoleBinding")
CLUSTER_WIDE = ("v1 namespaces Namespace", "v1 nodes Node", "v1 persistentvolumes PersistentVolume")
CLUSTER_WIDE += ("storage.k8s.io/v1 storageclasses StorageClass", "scheduling.k8s.io/v1 priorityclasses PriorityClass")
CLUSTER_WIDE += ("node.k8s.io/v1 runtimeclasses RuntimeClass",)


def _usual() -> list[Resource]:
    return [
        *(Resource("v1", *row.split()) for row in CORE),
        *(Resource(*row.split()) for row in OTHERS),
        *(Resource(*row.split(), namespaced=False) for row in CLUSTER_WIDE),
        Resource("authorization.k8s.io/v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False, ("create",)),
        Resource("authorization.k8s.io/v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", False, ("create",)),
    ]


class _RefusalError(Exception):
    """An answer that is a Status."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": details,
            "code": code,
        }


@dataclass(frozen=True)
class _Call:
    """One request, taken apart."""

    method: str
    path: str
    query: dict[str, str]
    resource: Resource
    namespace: str
    name: str
    part: str
    """The subresource, or ""."""
    body: Any
    content_type: str

    @property
    def dry(self) -> bool:
        return self.query.get("dryRun") == "All" or (isinstance(self.body, dict) and bool(self.body.get("dryRun")))


@dataclass
class HttpKubernetes:
    """What is there, and how it behaves; see the module."""

    version: str = "v1.36.3"
    resources: list[Resource] = field(default_factory=_usual)
    new_pods: str = "Running"
    broken: dict[str, list[int]] = field(default_factory=dict)
    refuses: dict[str, tuple[int, str]] = field(default_factory=dict)
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    lingering: set[str] = field(default_factory=set)
    rules: list[Thing] = field(
        default_factory=lambda: [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
    )
    """What SelfSubjectRulesReview tells while nothing is forbidden."""
    logs: dict[str, str] = field(default_factory=dict)
    on_create: Callable[[Thing], None] | None = None
    """Called with each new object before it is stored: may change it."""
    asked: list[str] = field(default_factory=list)
    """Method and path of each call, ` ?dryRun` after those that only try."""
    delete_options: list[tuple[str, Thing]] = field(default_factory=list)
    """Name and DeleteOptions of each object that was asked to go."""
    url: str = ""

    def __post_init__(self) -> None:
        self._objects: dict[tuple[str, str, str, str], Thing] = {}
        self._owners: dict[str, dict[str, set[str]]] = {}
        self._count = itertools.count(1)
        self._lock = threading.RLock()
        for name in ("default", "kube-system", "lab"):
            self.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    # For tests

    def add(self, manifest: Thing, manager: str = "kubectl") -> Thing:
        """Puts an object; what it had under this name is gone. The stored object, with uid."""
        with self._lock:
            resource = self._of_kind(manifest)
            thing = self._fresh(resource, copy.deepcopy(manifest), manifest["metadata"].get("namespace", "lab"))
            self._own(thing, manager, _leaves(manifest))
            self._objects[self._key(thing)] = thing
            return copy.deepcopy(thing)

    def get(self, plural: str, name: str, namespace: str = "lab") -> Thing | None:
        """A copy of an object, or None."""
        with self._lock:
            resource = self._named(plural)
            found = self._objects.get((resource.api, plural, namespace if resource.namespaced else "", name))
            return copy.deepcopy(found)

    def names(self, plural: str) -> list[str]:
        """Names of all objects of this plural, in all namespaces, in order of their making."""
        with self._lock:
            return [key[3] for key in self._objects if key[1] == plural]

    def patch(self, plural: str, name: str, body: Thing, namespace: str = "lab") -> None:
        """Merges into an object, as a controller would."""
        with self._lock:
            resource = self._named(plural)
            thing = self._objects[resource.api, plural, namespace if resource.namespaced else "", name]
            self._changed(thing, _merged(thing, body))

    def drop(self, plural: str, name: str, namespace: str = "lab") -> None:
        """Takes an object away as if it never was; what it owns goes too."""
        with self._lock:
            resource = self._named(plural)
            self._objects.pop((resource.api, plural, namespace if resource.namespaced else "", name), None)
            self._collect()

    def let_go(self, plural: str, name: str, namespace: str = "lab") -> None:
        """Ends the lingering of an object that is being deleted."""
        self.drop(plural, name, namespace)

    def pod_runs(self, name: str, namespace: str = "lab", address: str = "") -> None:
        """The pod is scheduled, has an address, and is ready."""
        with self._lock:
            address = address or f"10.244.0.{next(self._count) % 250 + 1}"
        ready = [_container(c, True, {"running": {}}) for c in self._containers(name, namespace)]
        conditions = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Initialized", "Ready")]
        status = {"phase": "Running", "podIP": address, "conditions": conditions, "containerStatuses": ready}
        self.patch("pods", name, {"status": status}, namespace)

    def pod_pends(self, name: str, message: str, namespace: str = "lab") -> None:
        """The scheduler finds no node for the pod and says why; with an event."""
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        self.patch("pods", name, {"status": {"phase": "Pending", "conditions": [condition]}}, namespace)
        self.add_event(name, "FailedScheduling", message, namespace)

    def pod_fails(self, name: str, reason: str, code: int = 1, namespace: str = "lab", message: str = "") -> None:
        """The pod's first container ended: reason OOMKilled or Error; or the whole pod was Evicted."""
        status: Thing = {"phase": "Failed", "reason": None, "message": message or None}
        if reason == "Evicted":
            status["reason"] = reason
        else:
            ended = {"terminated": {"reason": reason, "exitCode": code, "message": message}}
            first = self._containers(name, namespace)[0]
            status["containerStatuses"] = [_container(first, False, ended)]
        self.patch("pods", name, {"status": status}, namespace)

    def _containers(self, pod: str, namespace: str) -> list[Thing]:
        found = (self.get("pods", pod, namespace) or {}).get("spec", {}).get("containers")
        return found or [{"name": "main"}]

    def add_event(self, about: str, reason: str, message: str, namespace: str = "lab", kind: str = "Pod") -> None:
        """An event about an object."""
        named = self.get("pods", about, namespace) or {}
        uid = named.get("metadata", {}).get("uid", "")
        about_what = {"kind": kind, "name": about, "namespace": namespace, "uid": uid}
        body = {"involvedObject": about_what, "reason": reason, "message": message, "type": "Warning"}
        body |= {"lastTimestamp": _now(), "count": 1}
        metadata = {"name": f"{about}.{next(self._count):x}", "namespace": namespace}
        self.add({"apiVersion": "v1", "kind": "Event", "metadata": metadata, **body})

    @property
    def writes(self) -> list[str]:
        """Calls that change something: no reads, no access reviews, no dry runs."""
        return [
            call
            for call in self.asked
            if call.split()[0] not in READS and "selfsubject" not in call and not call.endswith("?dryRun")
        ]

    @property
    def deleted(self) -> list[str]:
        """Last parts of the paths of all deletions, in order."""
        return [call.rpartition("/")[2] for call in self.writes if call.startswith("DELETE ")]

    @contextmanager
    def serving(self) -> Iterator[HttpKubernetes]:
        handler = type("Handler", (_Handler,), {"cluster": self})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            server.daemon_threads = True
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            thread = threading.Thread(target=lambda: server.serve_forever(0.02))
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def write_kubeconfig(
        self, folder: Path, context: str = "small", namespace: str = "lab", token: str = TOKEN
    ) -> Path:
        """A kubeconfig (JSON is YAML) with one context for this server."""
        body = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "clusters": [{"name": "one", "cluster": {"server": self.url}}],
            "users": [{"name": "anna", "user": {"token": token}}],
            "contexts": [{"name": context, "context": {"cluster": "one", "user": "anna", "namespace": namespace}}],
        }
        path = folder / "kubeconfig"
        path.write_text(json.dumps(body))
        return path

    def log_in(self, monkeypatch: pytest.MonkeyPatch, folder: Path, **options: str) -> Path:
        """Makes this server the one of the environment's kubeconfig."""
        path = self.write_kubeconfig(folder, **options)
        monkeypatch.setenv("KUBECONFIG", str(path))
        # which the client reads once, when it is imported
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        return path

    def configuration(self) -> client.Configuration:
        """For `client.ApiClient`, without a kubeconfig."""
        settings = client.Configuration(host=self.url)
        settings.api_key = {"authorization": f"Bearer {TOKEN}", "BearerToken": f"Bearer {TOKEN}"}
        return settings

    # For the handler

    def answer(self, method: str, target: str, body: Any, headers: dict[str, str]) -> Answer:
        """Status and body. Raises ConnectionResetError where the connection ends."""
        parts = urlsplit(target)
        path, query = parts.path.rstrip("/"), {k: v[-1] for k, v in parse_qs(parts.query).items()}
        with self._lock:
            dry = query.get("dryRun") == "All"
            self.asked.append(f"{method} {path}{' ?dryRun' if dry else ''}")
            status = self._trouble(f"{method} {path}")
        if status == HANGS_UP:
            raise ConnectionResetError
        if status not in (200, LOST):
            return status, _RefusalError(status, "Injected", "out of order").body
        try:
            if headers.get("authorization") != f"Bearer {TOKEN}":
                raise _RefusalError(401, "Unauthorized", "Unauthorized")
            with self._lock:
                served = self._served(method, path, query, body, headers.get("content-type", ""))
                told = copy.deepcopy(served)  # what is told is written when others change things already
        except _RefusalError as error:
            told = (error.code, error.body)
        if status == LOST:
            raise ConnectionResetError
        return told

    def _trouble(self, call: str) -> int:
        for begins, statuses in self.broken.items():
            if call.startswith(begins):
                return statuses.pop(0) if len(statuses) > 1 else statuses[0]
        return 200

    def _served(self, method: str, path: str, query: dict[str, str], body: Any, content_type: str) -> Answer:
        told = self._discovery(path) if method == "GET" else None
        if told is not None:
            return 200, told
        call = self._taken_apart(method, path, query, body, content_type)
        if call.resource.plural.startswith("selfsubject"):
            return 201, self._review(call)
        self._require_right(call)
        if f"{method} {call.name}" in self.refuses and call.name:
            code, message = self.refuses[f"{method} {call.name}"]
            raise _RefusalError(code, "Refused", message)
        return self._done(call)

    def _done(self, call: _Call) -> Answer:
        match call.method, bool(call.name):
            case "GET", True:
                return self._read(call)
            case "GET", False:
                return 200, self._listed(call)
            case "POST", False:
                return self._create(call)
            case "PATCH" | "PUT", True:
                return self._patch(call)
            case "DELETE", True:
                return self._delete(call, self._must(call))
            case "DELETE", False:
                for thing in self._selected(call):
                    self._delete(call, thing)
                return 200, self._listed(call)
        raise _RefusalError(405, "MethodNotAllowed", f"no {call.method} on {call.path}")

    def _discovery(self, path: str) -> Thing | None:
        if path == "/version":
            major, minor = re.findall(r"\d+", self.version)[:2]
            return {"gitVersion": self.version, "major": major, "minor": minor}
        if path in ("/healthz", "/readyz", "/livez"):
            return {}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        groups = sorted({r.api for r in self.resources if "/" in r.api})
        if path == "/apis":
            rows = []
            for group in dict.fromkeys(api.partition("/")[0] for api in groups):
                versions = [
                    {"groupVersion": api, "version": api.partition("/")[2]}
                    for api in groups
                    if api.startswith(f"{group}/")
                ]
                rows.append({"name": group, "versions": versions, "preferredVersion": versions[0]})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": rows}
        told = [r for r in self.resources if r.base == path]
        if not told:
            return None
        rows = [
            {
                "name": r.plural,
                "singularName": r.kind.lower(),
                "namespaced": r.namespaced,
                "kind": r.kind,
                "verbs": list(r.verbs),
            }
            for r in told
        ]
        if path == "/api/v1":
            rows.append({"name": "pods/log", "singularName": "", "namespaced": True, "kind": "Pod", "verbs": ["get"]})
        return {"kind": "APIResourceList", "groupVersion": told[0].api, "resources": rows}

    def _taken_apart(self, method: str, path: str, query: dict[str, str], body: Any, content_type: str) -> _Call:
        for resource in self.resources:
            if not path.startswith(f"{resource.base}/"):
                continue
            rest = path.removeprefix(f"{resource.base}/").split("/")
            namespace = ""
            if len(rest) > 2 and rest[0] == "namespaces" and resource.namespaced:
                namespace, rest = rest[1], rest[2:]
            if rest[0] == resource.plural and (namespace or not resource.namespaced or len(rest) == 1):
                name, part = [*rest[1:], "", ""][:2]
                return _Call(method, path, query, resource, namespace, name, part, body, content_type)
        raise _RefusalError(404, "NotFound", "the server could not find the requested resource")

    def _require_right(self, call: _Call) -> None:
        verb = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}.get(
            call.method, "get" if call.name else "list"
        )
        if call.method == "DELETE" and not call.name:
            verb = "deletecollection"
        resource = f"{call.resource.plural}/{call.part}" if call.part else call.resource.plural
        if (verb, resource) in self.forbidden:
            where = f' in the namespace "{call.namespace}"' if call.namespace else " at the cluster scope"
            named = f' "{call.name}"' if call.name else ""
            told = f'{resource}{named} is forbidden: User "anna" cannot {verb} resource "{resource}" in API group '
            raise _RefusalError(403, "Forbidden", f'{told}"{call.resource.group}"{where}')

    def _review(self, call: _Call) -> Thing:
        if call.resource.kind == "SelfSubjectRulesReview":
            rules = [] if self.forbidden else self.rules
            return {**call.body, "status": {"resourceRules": rules, "nonResourceRules": [], "incomplete": False}}
        wanted = call.body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (wanted["resource"], wanted.get("subresource"))))
        allowed = (wanted["verb"], resource) not in self.forbidden
        return {**call.body, "status": {"allowed": allowed, "reason": "" if allowed else "no RBAC policy matched"}}

    def _read(self, call: _Call) -> Answer:
        thing = self._must(call)
        return 200, self.logs.get(call.name, "") if call.part == "log" else thing

    def _must(self, call: _Call) -> Thing:
        found = self._objects.get((call.resource.api, call.resource.plural, call.namespace, call.name))
        if found is None:
            raise _RefusalError(404, "NotFound", f'{call.resource.plural} "{call.name}" not found')
        return found

    def _selected(self, call: _Call) -> list[Thing]:
        found = []
        for (api, plural, namespace, _), thing in self._objects.items():
            if (api, plural) != (call.resource.api, call.resource.plural) or call.namespace not in ("", namespace):
                continue
            labels = thing["metadata"].get("labels") or {}
            if _selects(call.query.get("labelSelector", ""), labels.get) and _selects(
                call.query.get("fieldSelector", ""), lambda path, of=thing: _at(of, path)
            ):
                found.append(thing)
        return found

    def _listed(self, call: _Call) -> Thing:
        found = self._selected(call)
        start = int(call.query.get("continue") or 0)
        limit = int(call.query.get("limit") or 0) or len(found)
        metadata: Thing = {"resourceVersion": str(next(self._count))}
        if start + limit < len(found):
            metadata["continue"] = str(start + limit)
        kind = f"{call.resource.kind}List"
        return {"kind": kind, "apiVersion": call.resource.api, "metadata": metadata, "items": found[start:][:limit]}

    def _create(self, call: _Call) -> Answer:
        metadata = call.body.setdefault("metadata", {})
        if "generateName" in metadata:
            metadata.setdefault("name", f"{metadata['generateName']}{next(self._count):05x}")
        key = (call.resource.api, call.resource.plural, call.namespace, metadata["name"])
        if f"POST {metadata['name']}" in self.refuses:
            code, message = self.refuses[f"POST {metadata['name']}"]
            raise _RefusalError(code, "Refused", message)
        if key in self._objects:
            raise _RefusalError(409, "AlreadyExists", f'{call.resource.plural} "{metadata["name"]}" already exists')
        return 201, self._made(call, call.body, call.query.get("fieldManager", "unknown"))

    def _made(self, call: _Call, body: Thing, manager: str) -> Thing:
        if call.resource.namespaced:
            place = self._objects.get(("v1", "namespaces", "", call.namespace))
            if place is None:
                raise _RefusalError(404, "NotFound", f'namespaces "{call.namespace}" not found')
            if place["metadata"].get("deletionTimestamp"):
                raise _RefusalError(403, "Forbidden", f"namespace {call.namespace} is being terminated")
        thing = self._fresh(call.resource, copy.deepcopy(body), call.namespace)
        if call.dry:
            return thing
        if self.on_create:
            self.on_create(thing)
        self._own(thing, manager, _leaves(body))
        self._objects[self._key(thing)] = thing
        if call.resource.plural == "pods" and self.new_pods == "Running":
            self.pod_runs(thing["metadata"]["name"], call.namespace)
        return self._objects[self._key(thing)]

    def _patch(self, call: _Call) -> Answer:
        found = self._objects.get((call.resource.api, call.resource.plural, call.namespace, call.name))
        manager = call.query.get("fieldManager", "unknown")
        if call.content_type.startswith("application/apply-patch"):
            if not call.query.get("fieldManager"):
                raise _RefusalError(422, "Invalid", "fieldManager: Required value: is required for apply patch")
            if found is None:
                return 201, self._made(call, call.body, manager)
            return 200, self._applied(call, found, manager)
        if found is None:
            raise _RefusalError(404, "NotFound", f'{call.resource.plural} "{call.name}" not found')
        changed = call.body if call.method == "PUT" else _merged(found, call.body)
        if call.method == "PUT":
            kept = ("uid", "creationTimestamp", "deletionTimestamp")
            changed["metadata"] |= {k: found["metadata"][k] for k in kept if k in found["metadata"]}
        if not call.dry:
            self._own(found, manager, _leaves(call.body))
            self._changed(found, changed)
            self._collect()
        return 200, changed

    def _applied(self, call: _Call, found: Thing, manager: str) -> Thing:
        """Server-side apply, with lists as one value."""
        uid, wanted = found["metadata"]["uid"], _leaves(call.body)
        if call.body["metadata"].get("uid", uid) != uid:
            raise _RefusalError(
                409, "Conflict", f"Precondition failed: UID in precondition: {call.body['metadata']['uid']}"
            )
        owners, has = self._owners.setdefault(uid, {}), _leaves(found)
        causes = []
        for path, value in wanted.items():
            for other in sorted(owners.get(path, set()) - {manager}):
                if has.get(path) != value and call.query.get("force") != "true":
                    told = f'conflict with "{other}" using {found["apiVersion"]}'
                    causes.append({"reason": "FieldManagerConflict", "message": told, "field": path})
        if causes:
            listed = "\n".join(f"{cause['message']}: {cause['field']}" for cause in causes)
            told = f"Apply failed with {len(causes)} conflict{'s' * (len(causes) > 1)}: {listed}"
            raise _RefusalError(409, "Conflict", told, causes=causes)
        changed = _merged(found, call.body)
        gone = [path for path, who in owners.items() if who == {manager} and path not in wanted]
        for path in gone:
            _remove(changed, path)
        if not call.dry:
            for path in gone:
                del owners[path]
            self._own(found, manager, wanted)
            if _spec(changed) != _spec(found):
                self._changed(found, changed)
        return changed

    def _delete(self, call: _Call, thing: Thing) -> Answer:
        options = call.body if isinstance(call.body, dict) else {}
        metadata = thing["metadata"]
        self.delete_options.append((metadata["name"], options))
        for name, value in (options.get("preconditions") or {}).items():
            if value is not None and metadata[name] != value:
                told = f"the {name} in the precondition ({value}) does not match the {name} in record"
                raise _RefusalError(409, "Conflict", f"{told} ({metadata[name]})")
        if call.dry:
            return 200, thing
        policy = options.get("propagationPolicy") or call.query.get("propagationPolicy") or "Background"
        metadata.setdefault("deletionTimestamp", _now())
        if policy == "Foreground":
            metadata["finalizers"] = [*dict.fromkeys([*metadata.get("finalizers", []), FOREGROUND])]
        metadata["resourceVersion"] = str(next(self._count))
        answer = copy.deepcopy(thing)
        self._collect()
        return 200, answer

    def _collect(self) -> None:
        """The garbage collector, until nothing changes any more."""
        changed = True
        while changed:
            changed = False
            for key, thing in list(self._objects.items()):
                metadata = thing["metadata"]
                if not metadata.get("deletionTimestamp"):
                    if self._orphaned(thing):
                        metadata["deletionTimestamp"], changed = _now(), True
                    continue
                if metadata.get("finalizers") == [FOREGROUND] and not self._dependents(thing):
                    metadata["finalizers"], changed = [], True
                if not metadata.get("finalizers") and not self._held(key):
                    del self._objects[key]
                    changed = True

    def _held(self, key: tuple[str, str, str, str]) -> bool:
        if self.lingering & {key[1], key[3]}:
            return True
        return key[1] == "namespaces" and any(other[2] == key[3] for other in self._objects)

    def _orphaned(self, thing: Thing) -> bool:
        """Its namespace goes, or it has owners and each is gone or goes in the foreground."""
        place = self._objects.get(("v1", "namespaces", "", thing["metadata"].get("namespace", "")))
        if place is not None and place["metadata"].get("deletionTimestamp"):
            return True
        owners = [owner["uid"] for owner in thing["metadata"].get("ownerReferences") or ()]
        there = {
            t["metadata"]["uid"]
            for t in self._objects.values()
            if FOREGROUND not in (t["metadata"].get("finalizers") or ())
        }
        return bool(owners) and not there & set(owners)

    def _dependents(self, thing: Thing) -> bool:
        uid = thing["metadata"]["uid"]
        return any(
            owner["uid"] == uid and owner.get("blockOwnerDeletion")
            for other in self._objects.values()
            for owner in other["metadata"].get("ownerReferences") or ()
        )

    def _of_kind(self, thing: Thing) -> Resource:
        return next(r for r in self.resources if (r.api, r.kind) == (thing["apiVersion"], thing["kind"]))

    def _named(self, plural: str) -> Resource:
        return next(r for r in self.resources if r.plural == plural)

    def _key(self, thing: Thing) -> tuple[str, str, str, str]:
        metadata, resource = thing["metadata"], self._of_kind(thing)
        return resource.api, resource.plural, metadata.get("namespace", ""), metadata["name"]

    def _fresh(self, resource: Resource, thing: Thing, namespace: str) -> Thing:
        count = next(self._count)
        thing.setdefault("apiVersion", resource.api)
        thing.setdefault("kind", resource.kind)
        made = {"uid": f"00000000-0000-4000-8000-{count:012x}", "creationTimestamp": _now()}
        thing["metadata"] = {**made, **thing["metadata"], "resourceVersion": str(count)}
        if resource.namespaced:
            thing["metadata"]["namespace"] = namespace
        if resource.plural == "pods":
            thing.setdefault("status", {"phase": "Pending"})
        if resource.plural == "namespaces":
            thing.setdefault("status", {"phase": "Active"})
        return thing

    def _own(self, thing: Thing, manager: str, paths: dict[str, Any]) -> None:
        owners = self._owners.setdefault(thing["metadata"]["uid"], {})
        for path in paths:
            owners.setdefault(path, set()).add(manager)
        names = sorted({name for who in owners.values() for name in who})
        thing["metadata"]["managedFields"] = [{"manager": name, "operation": "Apply"} for name in names]

    def _changed(self, thing: Thing, now: Thing) -> None:
        """In place, because the dict is the one that is stored."""
        now = copy.deepcopy(now)
        thing.clear()
        thing.update(now)
        thing["metadata"]["resourceVersion"] = str(next(self._count))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _container(container: Thing, ready: bool, state: Thing) -> Thing:
    image = container.get("image", "image")
    told = {"name": container["name"], "ready": ready, "state": state, "image": image, "imageID": "", "restartCount": 0}
    return {**told, "started": ready}


def _spec(thing: Thing) -> Thing:
    left_out = {"managedFields", "resourceVersion"}
    return {**thing, "metadata": {k: v for k, v in thing["metadata"].items() if k not in left_out}}


IDENTITY = {".apiVersion", ".kind", ".metadata.name", ".metadata.namespace", ".metadata.uid"}


def _leaves(thing: Thing, at: str = "") -> dict[str, Any]:
    """Values by path as the API server writes it; dots within a key are quoted away."""
    found: dict[str, Any] = {}
    for key, value in thing.items():
        path = f"{at}.{key}" if "." not in key and "/" not in key else f'{at}."{key}"'
        if isinstance(value, dict) and value:
            found |= _leaves(value, path)
        elif path not in IDENTITY and not path.startswith(".status"):
            found[path] = value
    return found


def _keys(path: str) -> list[str]:
    return [quoted or plain for quoted, plain in re.findall(r'\.(?:"([^"]*)"|([^."]+))', path)]


def _remove(thing: Thing, path: str) -> None:
    *above, last = _keys(path)
    for key in above:
        thing = thing.get(key) or {}
    thing.pop(last, None)


def _merged(thing: Thing, patch: Thing) -> Thing:
    """JSON merge patch (RFC 7396)."""
    found = copy.deepcopy(thing)
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict):
            found[key] = _merged(found[key] if isinstance(found.get(key), dict) else {}, value)
        else:
            found[key] = copy.deepcopy(value)
    return found


def _at(thing: Thing, path: str) -> Any:
    for key in path.split("."):
        thing = thing.get(key) if isinstance(thing, dict) else None  # type: ignore[assignment]
    return thing


def _selects(selector: str, value_of: Callable[[str], Any]) -> bool:
    """Equality, inequality, `in (...)`, existence."""
    for term in filter(None, re.split(r",(?![^(]*\))", selector)):
        among = re.fullmatch(r"\s*(\S+)\s+(not)?in\s*\((.*)\)\s*", term)
        if among:
            values = {word.strip() for word in among[3].split(",")}
            if (value_of(among[1]) in values) == bool(among[2]):
                return False
            continue
        key, sign, value = re.fullmatch(r"\s*(!?[^=!]+?)\s*(?:(==|!=|=)\s*(.*?))?\s*", term).groups()  # type: ignore[union-attr]
        found = value_of(key.removeprefix("!"))
        if sign is None:
            fits = (found is None) == key.startswith("!")
        else:
            fits = (str(found if found is not None else "") == value) == (sign != "!=")
        if not fits:
            return False
    return True


class _Handler(BaseHTTPRequestHandler):
    cluster: HttpKubernetes
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    """Head and body in one packet, else each answer takes 40 ms."""

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = yaml.safe_load(self.rfile.read(length) or b"{}")
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            status, told = self.cluster.answer(self.command, self.path, body, headers)
        except ConnectionResetError:
            self.close_connection = True
            return
        content = told.encode() if isinstance(told, str) else json.dumps(told).encode()
        self.send_response(status)
        kind = "text/plain" if isinstance(told, str) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Quiet."""
