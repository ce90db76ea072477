"""Admission on Kubernetes, part cluster: namespace, rights, accounts, classes, nodes, and a worker's pod on trial."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

from kubernetes.client.exceptions import ApiException

from dhctl.infra.kubernetes.client import Cluster, api_errors, patiently, reason_of, status_of
from dhctl.infra.kubernetes.looking import NOT_TOLD, PATIENCE_S, look
from dhctl.infra.kubernetes.mark import Mark
from dhctl.infra.kubernetes.node.worker_pod import worker_pod
from dhctl.infra.kubernetes.objects import ENFORCE, RunObjects
from dhctl.infra.kubernetes.quantity import parse, told
from dhctl.infra.kubernetes.rights import ACCOUNT_RIGHTS, KUBERAY_RIGHTS, RIGHTS, VOLUME_RIGHTS, Right
from dhctl.infra.spec import RunSpec
from dhctl.infra.target import Requirement

NAMESPACE_RIGHT = Right("", "namespaces", ("get", "create", "patch", "delete"), "a namespace is made for the run")
OWN_NAMESPACE_RIGHTS = (
    NAMESPACE_RIGHT,
    *(
        Right("apps", plural, ("list",), "the run's namespace is deleted only where nobody else works in it")
        for plural in ("deployments", "statefulsets", "daemonsets")
    ),
)
"""Needed where the spec names no namespace. What work of others is, says `sweep.WORK`."""

REVIEWS = "/apis/authorization.k8s.io/v1"
ASKED_AT_ONCE = 8

UNSCHEDULED = {"NoSchedule", "NoExecute"}
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
NOBODY = "dh-aaaaaaaaaa"
"""The run id of a pod that is only tried."""

LATE = 4_000_000_000
"""The end of its lease."""


def namespace_requirements(spec: RunSpec, cluster: Cluster) -> Iterator[Requirement]:
    """Whether it is there and takes objects. Raises ClusterApiError."""
    name = spec.kubernetes.namespace
    if name is None:
        yield Requirement("namespace", "one of the run's own", "is made")
        return
    seen = look(cluster, f"/api/v1/namespaces/{name}")
    if seen.body is None:
        problem = f"there is no namespace {name}; set kubernetes.namespace to one of yours, or leave it out"
        yield Requirement("namespace", name, "none" if seen.absent else NOT_TOLD, problem if seen.absent else "")
        return
    phase = (seen.body.get("status") or {}).get("phase", "Active")
    problem = f"namespace {name} is {phase.lower()}; wait until it is gone, or set kubernetes.namespace to another"
    yield Requirement("namespace", name, phase.lower(), "" if phase == "Active" else problem)
    level = (seen.body["metadata"].get("labels") or {}).get(ENFORCE, "not set")
    hosts = [volume["name"] for volume in spec.kubernetes.volumes if "hostPath" in volume]
    refused = f"namespace {name} enforces Pod Security's level {level}, which refuses the hostPath of volume "
    problem = f"{refused}{', '.join(hosts)}; use a claim, or another namespace"
    strict = level in ("baseline", "restricted") and hosts
    yield Requirement("Pod Security", "restricted or less", level, problem if strict else "")


def rights_requirements(spec: RunSpec, cluster: Cluster) -> Iterator[Requirement]:
    """A row for each right that is missing, or one that says that none is. Raises ClusterApiError."""
    section = spec.kubernetes
    wanted = [*RIGHTS, *(() if section.service_account else ACCOUNT_RIGHTS)]
    wanted += VOLUME_RIGHTS if section.data_volume is not None else ()
    wanted += KUBERAY_RIGHTS if section.by_kuberay else ()
    wanted += () if section.namespace else OWN_NAMESPACE_RIGHTS
    namespace = section.namespace or ""
    asked = [(right, verb) for right in wanted for verb in right.verbs]
    given = _rules(cluster, namespace) if namespace else []
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        answers = list(pool.map(lambda each: may(cluster, namespace, given, *each), asked))
    missing: dict[Right, list[str]] = {}
    for (right, verb), allowed in zip(asked, answers, strict=True):
        if not allowed:
            missing.setdefault(right, []).append(verb)
    if NAMESPACE_RIGHT in missing:  # then the others are of no interest
        missing = {NAMESPACE_RIGHT: missing[NAMESPACE_RIGHT]}
    for right, verbs in missing.items():
        yield _lacking(right, verbs, section.namespace)
    if not missing:
        yield Requirement("rights", f"{len(asked)} verbs", "all")


def account_requirements(spec: RunSpec, cluster: Cluster) -> Iterator[Requirement]:
    """Whether the service account, secrets and claims that the spec names are there. Raises ClusterApiError."""
    section = spec.kubernetes
    if section.namespace is None:
        return
    claims = [v["persistentVolumeClaim"].get("claimName") for v in section.volumes if v.get("persistentVolumeClaim")]
    wanted = [
        *(("service account", "serviceaccounts", name) for name in filter(None, [section.service_account])),
        *(("pull secret", "secrets", name) for name in section.image_pull_secrets),
        *(("claim", "persistentvolumeclaims", str(name)) for name in claims),
    ]
    for what, plural, name in wanted:
        seen = look(cluster, f"/api/v1/namespaces/{section.namespace}/{plural}/{name}")
        problem = f"namespace {section.namespace} has no {what} {name}; make it, or name another in the spec"
        have = "there" if seen.body else "none" if seen.absent else NOT_TOLD
        yield Requirement(what, name, have, problem if seen.absent else "")


def class_requirements(spec: RunSpec, cluster: Cluster) -> Iterator[Requirement]:
    """Priority, runtime and storage class. Raises ClusterApiError."""
    section = spec.kubernetes
    for key, name, group, plural in (
        ("priority_class", section.priority_class, "scheduling.k8s.io", "priorityclasses"),
        ("runtime_class", section.runtime_class, "node.k8s.io", "runtimeclasses"),
        ("storage_class", section.data_volume and section.storage_class, "storage.k8s.io", "storageclasses"),
    ):
        if not name:
            continue
        seen, what = look(cluster, f"/apis/{group}/v1/{plural}/{name}"), key.replace("_", " ")
        problem = f"the cluster has no {what} {name}; `kubectl get {plural}` shows those to set kubernetes.{key} to"
        have = "there" if seen.body else "none" if seen.absent else NOT_TOLD
        yield Requirement(what, str(name), have, problem if seen.absent else "")
    if section.data_volume is not None and section.storage_class is None:
        classes = look(cluster, "/apis/storage.k8s.io/v1/storageclasses").items
        default = [c["metadata"]["name"] for c in classes or () if _is_default(c)]
        problem = "the cluster has no default storage class; set kubernetes.storage_class"
        have = NOT_TOLD if classes is None else ", ".join(default) or "none"
        yield Requirement("storage class", "the default", have, problem if classes is not None and not default else "")


def node_requirements(spec: RunSpec, cluster: Cluster) -> Iterator[Requirement]:
    """Whether one node, were it empty, can hold a worker, and one the head. Raises ClusterApiError."""
    nodes = look(cluster, "/api/v1/nodes").items
    if not nodes:
        yield Requirement("nodes", "one that fits", NOT_TOLD if nodes is None else "none is listed")
        return
    section, size = spec.kubernetes, spec.workers
    open_ones = [node for node in nodes if _is_open(node, section.node_selector, section.tolerations)]
    if not open_ones:
        told = f"none of the cluster's {len(nodes)} nodes takes the pods: labels, taints or cordons stand against it"
        fix = "change kubernetes.node_selector or kubernetes.tolerations"
        yield Requirement("nodes", "one that takes the pods", "none", f"{told}; {fix}")
        return
    gpus = {section.gpu_resource: Decimal(size.gpus)} if size.gpus else {}
    worker = {"cpu": Decimal(size.cpus), "memory": Decimal(size.memory), **gpus}
    head = {"cpu": parse(section.head_cpus), "memory": Decimal(section.head_memory)}
    fix = "make the workers smaller, or change kubernetes.node_selector"
    yield _node_row("node for a worker", worker, open_ones, fix)
    yield _node_row("node for the head", head, open_ones, "lower kubernetes.head_cpus or kubernetes.head_memory")


def pod_requirements(spec: RunSpec, cluster: Cluster, *, cpu_limits: bool) -> Iterator[Requirement]:
    """A worker's pod on trial in the given namespace: Pod Security, webhooks and limits judge it, nothing is stored.

    Raises ClusterApiError.
    """
    section = spec.kubernetes
    if section.namespace is None:
        return
    settings = RunObjects(Mark(NOBODY, LATE), spec.name, section, spec.workers, cpu_limits).settings()
    body = worker_pod(settings, f"{NOBODY}-trial", "", [], [section.python, "-c", ""])
    path, query = f"/api/v1/namespaces/{section.namespace}/pods", [("dryRun", "All")]
    problem = ""
    with api_errors("try a worker's pod"):
        try:
            patiently(lambda: cluster.call("POST", path, body, query=query), PATIENCE_S)
        except ApiException as error:
            if not 400 <= status_of(error) < 500 or status_of(error) in (401, 429):
                raise
            problem = f"the cluster refuses a worker's pod: {reason_of(error)}; change what it names in the spec"
    yield Requirement("worker's pod", "taken on trial", "refused" if problem else "taken", problem)


def _rules(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    """What the caller may do there, as far as the cluster tells it in one answer; what is not in it is asked for."""
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    try:
        told = patiently(lambda: cluster.call("POST", f"{REVIEWS}/selfsubjectrulesreviews", body), PATIENCE_S)
    except ApiException:
        return []
    return [rule for rule in told["status"].get("resourceRules") or () if not rule.get("resourceNames")]


def may(cluster: Cluster, namespace: str, given: Iterable[Mapping[str, Any]], right: Right, verb: str) -> bool:
    """Whether the caller may do it: by the rules `given`, else the cluster is asked. "" stands for all namespaces.

    Raises ClusterApiError.
    """
    for rule in given:
        wanted = (("verbs", verb), ("apiGroups", right.group), ("resources", right.resource))
        if all({value, "*"} & set(rule.get(key) or ()) for key, value in wanted):
            return True
    resource, _, part = right.resource.partition("/")
    attributes = {"namespace": namespace, "verb": verb, "group": right.group, "resource": resource, "subresource": part}
    spec = {"resourceAttributes": attributes}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
    with api_errors("ask what you may do"):
        told = patiently(lambda: cluster.call("POST", f"{REVIEWS}/selfsubjectaccessreviews", body), PATIENCE_S)
    return bool(told["status"]["allowed"])


def _lacking(right: Right, verbs: Iterable[str], namespace: str | None) -> Requirement:
    named = f"{right.resource}.{right.group}" if right.group else right.resource
    where = f" in namespace {namespace}" if namespace else ""
    fix = "ask the namespace's owner for the Role in docs/kubernetes.md"
    if namespace is None:
        fix = "set kubernetes.namespace to one in which you may"
    listed = ", ".join(verbs)
    problem = f"you may not {listed} {named}{where}, and {right.why}; {fix}"
    return Requirement(f"right: {named}", ", ".join(right.verbs), f"no {listed}", problem)


def _is_default(storage_class: Mapping[str, Any]) -> bool:
    return (storage_class["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"


def _is_open(node: Mapping[str, Any], selector: Mapping[str, str], tolerations: Iterable[Mapping[str, Any]]) -> bool:
    labels, spec = node["metadata"].get("labels") or {}, node.get("spec") or {}
    if spec.get("unschedulable") or any(labels.get(key) != value for key, value in selector.items()):
        return False
    taints = [taint for taint in spec.get("taints") or () if taint.get("effect") in UNSCHEDULED]
    return all(any(_tolerates(toleration, taint) for toleration in tolerations) for taint in taints)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    key, effect = toleration.get("key"), toleration.get("effect")
    if (key and key != taint.get("key")) or (effect and effect != taint.get("effect")):
        return False
    exists = toleration.get("operator", "Equal") == "Exists"
    return exists or (bool(key) and (toleration.get("value") or "") == (taint.get("value") or ""))


def _node_row(what: str, need: Mapping[str, Decimal], nodes: Iterable[Mapping[str, Any]], fix: str) -> Requirement:
    rooms = [{kind: parse(amount) for kind, amount in _allocatable(node).items() if kind in need} for node in nodes]
    wanted = ", ".join(f"{told(kind, amount)} {kind}" for kind, amount in need.items())
    fits = any(all(room.get(kind, Decimal(0)) >= amount for kind, amount in need.items()) for room in rooms)
    most = {kind: max(room.get(kind, Decimal(0)) for room in rooms) for kind in need}
    largest = ", ".join(f"{told(kind, amount)} {kind}" for kind, amount in most.items())
    problem = f"no node that takes the pods has {wanted}: the largest amounts are {largest}; {fix}"
    return Requirement(what, wanted, f"up to {largest}", "" if fits else problem)


def _allocatable(node: Mapping[str, Any]) -> Mapping[str, str]:
    return (node.get("status") or {}).get("allocatable") or {}
