"""Admission on Kubernetes: each thing that would fail later is a sentence now, and nothing is written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.errors import AdmissionError
from dhctl.infra.kubernetes import kuberay, looking
from dhctl.infra.kubernetes.admission import admit, bounds_of, shrink
from dhctl.infra.kubernetes.client import Cluster, connect
from dhctl.infra.kubernetes.quantity import parse, told
from dhctl.infra.kubernetes.section import KubernetesSection
from dhctl.infra.spec import RunSpec
from dhctl.infra.target import Requirement
from unit.fakes import OWN_JOB, make_spec
from unit.http_kubernetes import HANGS_UP, HttpKubernetes, Resource

Thing = dict[str, Any]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpKubernetes]:
    monkeypatch.setattr(looking, "PATIENCE_S", 0.1)
    with HttpKubernetes().serving() as server:
        server.log_in(monkeypatch, tmp_path)
        node(server, "n1", cpu="8", memory="32Gi")
        yield server


@pytest.fixture
def cluster(server: HttpKubernetes) -> Cluster:
    return connect(KubernetesSection())


def spec(workers: Thing | None = None, job: Thing | None = None, **changes: Any) -> RunSpec:
    """One that fits the cluster above; `changes` are of the section, but for output and data."""
    top = {key: changes.pop(key) for key in ("output", "data") if key in changes}
    section = {"image": "registry.org/ray:2.60.0", "namespace": "lab", "head_memory": "2GiB", **changes}
    wanted = {"workers": workers or {"max": 2}, "output": "s3://bucket/out", **top}
    return make_spec(target="kubernetes", kubernetes=section, job={**OWN_JOB, **(job or {})}, **wanted)


def node(server: HttpKubernetes, name: str, labels: Thing | None = None, taints: Any = (), **amounts: str) -> None:
    metadata = {"name": name, "labels": labels or {}}
    extended = {key.replace("__", "/").replace("_", "."): value for key, value in amounts.items()}
    allocatable = {"status": {"allocatable": extended}, "spec": {"taints": list(taints)}}
    server.add({"apiVersion": "v1", "kind": "Node", "metadata": metadata, **allocatable})


def quota(server: HttpKubernetes, hard: Thing, used: Thing | None = None, name: str = "team", **rest: Any) -> None:
    metadata = {"name": name, "namespace": "lab"}
    status = {"hard": hard, "used": {**dict.fromkeys(hard, "0"), **(used or {})}}
    server.add(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": metadata,
            "spec": {"hard": hard, **rest},
            "status": status,
        }
    )


def limit_range(server: HttpKubernetes, *items: Thing) -> None:
    metadata = {"name": "sizes", "namespace": "lab"}
    server.add({"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": {"limits": list(items)}})


def problems(wanted: RunSpec, cluster: Cluster) -> list[str]:
    return [row.problem for row in admit(wanted, cluster) if row.problem]


def problem(wanted: RunSpec, cluster: Cluster) -> str:
    (only,) = problems(wanted, cluster)
    return only


def row(wanted: RunSpec, cluster: Cluster, what: str) -> Requirement:
    (found,) = [found for found in admit(wanted, cluster) if found.what == what]
    return found


def test_what_fits_is_admitted_and_nothing_is_written(server: HttpKubernetes, cluster: Cluster) -> None:
    found = admit(spec(), cluster)
    assert [(r.problem, r.warning) for r in found if r.problem or r.warning] == []
    assert all(r.what and r.need and r.have for r in found)
    assert server.writes == []
    wanted = {"version", "image", "namespace", "Pod Security", "rights", "node for a worker", "worker's pod"}
    assert {r.what for r in found} >= wanted


def test_a_namespace_of_its_own_fits_too(server: HttpKubernetes, cluster: Cluster) -> None:
    assert problems(spec(namespace=None), cluster) == []
    assert row(spec(namespace=None), cluster, "namespace").have == "is made"
    assert server.writes == []


def test_a_cluster_that_does_not_answer_is_one_row(server: HttpKubernetes, cluster: Cluster) -> None:
    server.broken["GET /version"] = [HANGS_UP]
    assert "can it be reached from here" in problem(spec(), cluster)


def test_refused_credentials_are_told(server: HttpKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.log_in(monkeypatch, tmp_path, token="wrong")
    assert "log in anew" in problem(spec(), connect(KubernetesSection()))


@pytest.mark.parametrize(("version", "old"), [("v1.29.9", True), ("v1.30.0", False), ("v1.31.4+k3s1", False)])
def test_the_version(version: str, old: bool, server: HttpKubernetes, cluster: Cluster) -> None:
    server.version = version
    assert [f"version {version} and 1.30 is needed" in told for told in problems(spec(), cluster)] == [True] * old


@pytest.mark.parametrize(
    "image",
    [
        "ray",
        "library/ray:2.60.0",
        "registry.org:5000/a/b-c/ray_x:v1",
        "reg.org/ray@sha256:" + "a" * 64,
        "[::1]:5000/ray",
    ],
)
def test_references_of_images(image: str, cluster: Cluster) -> None:
    assert problems(spec(image=image), cluster) == []


@pytest.mark.parametrize("image", ["Ray:2.60", "https://registry.org/ray", "ray:", "ray latest", "ray@sha256:abc"])
def test_what_is_no_reference(image: str, cluster: Cluster) -> None:
    assert "no reference of an image" in problem(spec(image=image), cluster)


def test_the_image_must_be_set(cluster: Cluster) -> None:
    assert "kubernetes.image is not set" in problem(spec(image=None), cluster)


def test_a_namespace_that_is_not_there_or_going(server: HttpKubernetes, cluster: Cluster) -> None:
    assert any("there is no namespace ward; set" in told for told in problems(spec(namespace="ward"), cluster))
    server.patch("namespaces", "lab", {"status": {"phase": "Terminating"}})
    assert "is terminating" in problem(spec(), cluster)


def test_a_tenant_may_not_read_namespaces_and_nodes(server: HttpKubernetes, cluster: Cluster) -> None:
    server.forbidden |= {("get", "namespaces"), ("list", "nodes")}
    assert problems(spec(), cluster) == []
    assert row(spec(), cluster, "namespace").have == row(spec(), cluster, "nodes").have == "not told by the cluster"


def test_missing_rights_are_named_with_their_reason(server: HttpKubernetes, cluster: Cluster) -> None:
    server.forbidden |= {("create", "pods/portforward"), ("patch", "roles"), ("create", "roles")}
    told = problems(spec(), cluster)
    assert told == [
        "you may not create pods/portforward in namespace lab, and Ray is reached through the API server; ask the "
        "namespace's owner for the Role in docs/kubernetes.md",
        "you may not create, patch roles.rbac.authorization.k8s.io in namespace lab, and their rights are roles; ask "
        "the namespace's owner for the Role in docs/kubernetes.md",
    ]
    server.add(thing("ServiceAccount", "ray"))
    assert len(problems(spec(service_account="ray"), cluster)) == 1


def test_rights_are_asked_for_one_by_one_where_one_answer_does_not_tell(
    server: HttpKubernetes, cluster: Cluster
) -> None:
    server.rules = [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["*"]}]
    assert problems(spec(), cluster) == []
    asked = [call for call in server.asked if call.endswith("selfsubjectaccessreviews")]
    assert 20 < len(asked) < 60


def test_a_namespace_must_be_allowed_to_be_made(server: HttpKubernetes, cluster: Cluster) -> None:
    server.forbidden |= {("create", "namespaces"), ("create", "pods")}
    assert "set kubernetes.namespace to one in which you may" in problem(spec(namespace=None), cluster)
    assert "you may not create pods in namespace lab" in problem(spec(), cluster)


def thing(kind: str, name: str, api: str = "v1", **values: Any) -> Thing:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "lab"}, **values}


def test_what_the_spec_names_must_be_in_the_namespace(server: HttpKubernetes, cluster: Cluster) -> None:
    volumes = [{"name": "scans", "persistentVolumeClaim": {"claimName": "scans"}}]
    wanted = spec(service_account="ray", image_pull_secrets=["registry"], volumes=volumes)
    assert [told.partition(";")[0] for told in problems(wanted, cluster)] == [
        "namespace lab has no service account ray",
        "namespace lab has no pull secret registry",
        "namespace lab has no claim scans",
    ]
    for kind, name in (("ServiceAccount", "ray"), ("Secret", "registry"), ("PersistentVolumeClaim", "scans")):
        server.add(thing(kind, name))
    assert problems(wanted, cluster) == []


def test_a_namespace_that_is_made_has_none_of_it(cluster: Cluster) -> None:
    volumes = [{"name": "scans", "persistentVolumeClaim": {"claimName": "scans"}}, {"name": "h", "hostPath": {}}]
    wanted = spec(namespace=None, service_account="ray", image_pull_secrets=["registry"], volumes=volumes)
    told = problems(wanted, cluster)
    assert len(told) == 4
    assert all("set kubernetes.namespace" in each for each in told)


def test_a_namespace_that_refuses_host_paths(server: HttpKubernetes, cluster: Cluster) -> None:
    wanted = spec(volumes=[{"name": "scans", "hostPath": {"path": "/scans"}}])
    assert problems(wanted, cluster) == []
    server.patch("namespaces", "lab", {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}})
    assert "refuses the hostPath of volume scans" in problem(wanted, cluster)
    assert problems(spec(), cluster) == []


@pytest.mark.parametrize(
    ("key", "kind", "api"),
    [
        ("priority_class", "PriorityClass", "scheduling.k8s.io/v1"),
        ("runtime_class", "RuntimeClass", "node.k8s.io/v1"),
        ("storage_class", "StorageClass", "storage.k8s.io/v1"),
    ],
)
def test_classes_must_be_there(key: str, kind: str, api: str, server: HttpKubernetes, cluster: Cluster) -> None:
    wanted = spec(data_volume="1GiB", **{key: "fast", "storage_class": "fast"})
    server.add({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"}})
    if kind == "StorageClass":
        server.drop("storageclasses", "fast")
    assert f"the cluster has no {key.replace('_', ' ')} fast" in problem(wanted, cluster)
    server.add({"apiVersion": api, "kind": kind, "metadata": {"name": "fast"}})
    assert problems(wanted, cluster) == []


def test_a_claim_needs_a_default_class(server: HttpKubernetes, cluster: Cluster) -> None:
    assert "no default storage class" in problem(spec(data_volume="1GiB"), cluster)
    note = {"storageclass.kubernetes.io/is-default-class": "true"}
    metadata = {"name": "usual", "annotations": note}
    server.add({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": metadata})
    assert row(spec(data_volume="1GiB"), cluster, "storage class").have == "usual"
    server.forbidden.add(("list", "storageclasses"))
    assert problems(spec(data_volume="1GiB"), cluster) == []


def test_a_worker_must_fit_on_one_node(server: HttpKubernetes, cluster: Cluster) -> None:
    node(server, "n2", cpu="2", memory="256Gi")
    told = problem(spec({"max": 1, "cpus": 4, "memory": "64GiB"}), cluster)
    assert told.startswith(
        "no node that takes the pods has 4 cpu, 64 GiB memory: the largest amounts are 8 cpu, 256 GiB"
    )
    assert "the largest amounts are 8 cpu, 256 GiB memory; lower kubernetes.head" in problem(
        spec(head_cpus="9"), cluster
    )


def test_gpus_must_exist(server: HttpKubernetes, cluster: Cluster) -> None:
    wanted = spec({"max": 1, "gpus": 2})
    assert "2 nvidia.com/gpu" in problem(wanted, cluster)
    node(server, "n2", cpu="8", memory="32Gi", nvidia_com__gpu="4")
    assert problems(wanted, cluster) == []
    assert "2 amd.com/gpu" in problem(spec({"max": 1, "gpus": 2}, gpu_resource="amd.com/gpu"), cluster)


TAINT = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("tolerations", "fits"),
    [
        ([], False),
        ([{"key": "gpu", "operator": "Exists"}], True),
        ([{"key": "gpu", "value": "yes"}], True),
        ([{"key": "gpu", "value": "no"}], False),
        ([{"operator": "Exists"}], True),
        ([{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}], False),
    ],
)
def test_taints_and_tolerations(tolerations: list[Thing], fits: bool, server: HttpKubernetes, cluster: Cluster) -> None:
    server.drop("nodes", "n1")
    node(server, "n2", taints=[TAINT], cpu="8", memory="32Gi")
    assert (problems(spec(tolerations=tolerations), cluster) == []) == fits


def test_labels_and_cordons(server: HttpKubernetes, cluster: Cluster) -> None:
    assert "none of the cluster's 1 nodes takes the pods" in problem(spec(node_selector={"pool": "gpu"}), cluster)
    node(server, "n2", labels={"pool": "gpu"}, cpu="8", memory="32Gi")
    assert problems(spec(node_selector={"pool": "gpu"}), cluster) == []
    server.patch("nodes", "n2", {"spec": {"unschedulable": True}})
    assert len(problems(spec(node_selector={"pool": "gpu"}), cluster)) == 1


def test_a_cluster_without_listed_nodes_is_taken(server: HttpKubernetes, cluster: Cluster) -> None:
    server.drop("nodes", "n1")
    assert row(spec(), cluster, "nodes").have == "none is listed"


def test_the_quota_is_refused_at_least_and_warned_at_most(server: HttpKubernetes, cluster: Cluster) -> None:
    quota(server, {"requests.memory": "16Gi", "pods": "20"}, {"requests.memory": "8Gi", "pods": "3"})
    wanted = spec({"min": 1, "max": 4})
    found = row(wanted, cluster, "quota team: requests.memory")
    assert (found.need, found.have) == ("4.1 GiB (min) to 10.1 GiB (max)", "8 GiB free of 16 GiB")
    shortage = "only 2 of 4 workers fit now: requests.memory (8 GiB free of 16 GiB)"
    assert found.warning == f"{shortage}; without --strict workers.max is lowered to 2"
    assert row(wanted, cluster, "quota team: pods").warning == ""
    assert problems(wanted, cluster) == []
    told = problem(spec({"min": 3, "max": 4}), cluster)
    assert told.startswith(
        "with 3 workers the run needs 8.1 GiB of requests.memory and quota team has 8 GiB free of 16"
    )
    assert told.endswith("or ask for more quota")


def test_shrinking_lowers_workers_and_the_jobs(server: HttpKubernetes, cluster: Cluster) -> None:
    assert shrink(spec({"max": 4}), cluster) == (spec({"max": 4}), "")
    quota(server, {"cpu": "4"}, {"cpu": "1"})
    smaller, warning = shrink(spec({"max": 4}, job={"workers": 3}), cluster)
    assert (smaller.workers.max, smaller.job.workers) == (1, 1)
    assert warning == "only 1 of 4 workers fit now: cpu (3 free of 4); workers.max is lowered to 1"
    quota(server, {"cpu": "4"}, {"cpu": "3"})
    with pytest.raises(AdmissionError, match=r"the run needs 2\.05 of cpu and quota team has 1 free of 4"):
        shrink(spec({"max": 4}), cluster)
    assert shrink(spec({"max": 4}, namespace=None), cluster)[1] == ""


@pytest.mark.parametrize(
    ("hard", "most"),
    [
        ({"count/pods": "4"}, 2),
        ({"requests.nvidia.com/gpu": "4"}, 2),
        ({"limits.cpu": "4"}, 2),
        ({"limits.memory": "9Gi"}, 3),
        ({"configmaps": "2", "secrets": "1", "count/roles.rbac.authorization.k8s.io": "2"}, 4),
    ],
)
def test_kinds_of_quota(hard: Thing, most: int, server: HttpKubernetes, cluster: Cluster) -> None:
    node(server, "n2", cpu="8", memory="32Gi", nvidia_com__gpu="4")
    quota(server, hard)
    assert shrink(spec({"max": 4, "gpus": 2}), cluster)[0].workers.max == most


@pytest.mark.parametrize(
    ("hard", "what"),
    [
        ({"configmaps": "1"}, "needs 2 of configmaps"),
        ({"count/cronjobs.batch": "0"}, "needs 1 of count/cronjobs.batch"),
        ({"persistentvolumeclaims": "0"}, "needs 1 of persistentvolumeclaims"),
        ({"requests.storage": "1Gi"}, "needs 2 GiB of requests.storage"),
        ({"fast.storageclass.storage.k8s.io/requests.storage": "1Gi"}, "needs 2 GiB of fast.storageclass"),
    ],
)
def test_what_a_run_takes_beside_pods(hard: Thing, what: str, server: HttpKubernetes, cluster: Cluster) -> None:
    server.add({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"}})
    quota(server, hard)
    assert what in problem(spec(data_volume="2GiB", storage_class="fast"), cluster)


@pytest.mark.parametrize(
    ("scope", "most"),
    [
        ({"scopes": ["BestEffort"]}, 4),
        ({"scopes": ["NotBestEffort"]}, 2),
        ({"scopes": ["Terminating"]}, 4),
        ({"scopes": ["NotTerminating"]}, 4),
        (
            {
                "scopeSelector": {
                    "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["low"]}]
                }
            },
            4,
        ),
        ({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "DoesNotExist"}]}}, 2),
    ],
)
def test_scopes_of_a_quota(scope: Thing, most: int, server: HttpKubernetes, cluster: Cluster) -> None:
    quota(server, {"pods": "4"}, **scope)
    assert shrink(spec({"max": 4}), cluster)[0].workers.max == most


def test_what_pods_do_not_state_needs_a_default(server: HttpKubernetes, cluster: Cluster) -> None:
    quota(server, {"limits.ephemeral-storage": "10Gi"})
    assert "wants each pod to state limits.ephemeral-storage" in problem(spec(), cluster)
    limit_range(server, {"type": "Container", "default": {"ephemeral-storage": "1Gi"}})
    assert problems(spec(), cluster) == []


def test_bounds_of_one_container(server: HttpKubernetes, cluster: Cluster) -> None:
    limit_range(server, {"type": "Container", "max": {"memory": "2Gi", "cpu": "1"}, "min": {"cpu": "100m"}})
    told = problems(spec({"max": 1, "memory": "4GiB"}), cluster)
    assert told[0] == (
        "limit range sizes wants at most 2Gi memory in a container, and the worker's has 4 GiB; change workers.cpus, "
        "workers.memory or workers.gpus"
    )
    assert "wants at least 100m cpu in a container, and the lease's has 0.05" in told[1]


@pytest.mark.parametrize(
    ("item", "wanted"),
    [({"default": {"cpu": "500m"}}, True), ({"max": {"cpu": "4"}}, True), ({"default": {"memory": "1Gi"}}, False)],
)
def test_a_limit_of_cpu_is_stated_where_one_comes_in_else(
    item: Thing, wanted: bool, server: HttpKubernetes, cluster: Cluster
) -> None:
    limit_range(server, {"type": "Container", **item})
    assert bounds_of(spec().kubernetes, cluster).cpu_limits is wanted
    server.drop("limitranges", "sizes")
    assert bounds_of(spec().kubernetes, cluster).cpu_limits is False
    quota(server, {"limits.cpu": "8"})
    assert bounds_of(spec().kubernetes, cluster).cpu_limits is True


def test_quotas_that_may_not_be_read(server: HttpKubernetes, cluster: Cluster) -> None:
    server.rules = []
    server.forbidden.add(("list", "resourcequotas"))
    assert "a run is refused before it hits a quota" in problem(spec(), cluster)
    assert row(spec(), cluster, "quota").have == "not told by the cluster"


def test_a_pod_on_trial_is_refused(server: HttpKubernetes, cluster: Cluster) -> None:
    server.refuses["POST dh-aaaaaaaaaa-trial"] = (403, 'admission webhook "images" denied: registry.org is not allowed')
    assert problem(spec(), cluster).startswith("the cluster refuses a worker's pod: admission webhook")
    assert server.writes == []


@pytest.mark.parametrize(
    ("changes", "fine"),
    [
        ({"output": "s3://bucket/out"}, True),
        ({"output": None}, False),
        ({"output": "/home/anna/out"}, False),
        ({"output": "/scans/out"}, False),
        ({"data": "/scans"}, True),
        ({"data": "/scansion"}, False),
        ({"data": "/data/in", "data_volume": "1GiB"}, False),
        ({"data": "/home/anna/scans"}, False),
        ({"data": "phantoms"}, True),
    ],
)
def test_output_and_data_must_be_in_reach_of_pods(
    changes: Thing, fine: bool, server: HttpKubernetes, cluster: Cluster
) -> None:
    server.forbidden.add(("list", "storageclasses"))
    volumes = {"volumes": [{"name": "scans", "nfs": {}}], "volume_mounts": [{"name": "scans", "mountPath": "/scans/"}]}
    told = problems(spec(**volumes, **changes), cluster)
    assert (told == []) == fine
    assert all("set it to s3://BUCKET/PREFIX" in each for each in told)


@pytest.mark.parametrize(
    ("volumes", "mounts", "told"),
    [
        (["dhctl-tmp"], {}, "are dhctl's; rename dhctl-tmp"),
        (["a", "a"], {}, "has a twice"),
        ([], {"a": "/a"}, "a is none of kubernetes.volumes"),
        (["a"], {"a": "a"}, "no absolute mountPath"),
        (["a"], {"a": "/data/"}, "/data is the data volume's"),
    ],
)
def test_volumes_and_mounts(
    volumes: list[str], mounts: Thing, told: str, server: HttpKubernetes, cluster: Cluster
) -> None:
    server.forbidden.add(("list", "storageclasses"))
    wanted = spec(
        data_volume="1GiB",
        volumes=[{"name": name, "emptyDir": {}} for name in volumes],
        volume_mounts=[{"name": name, "mountPath": path} for name, path in mounts.items()],
    )
    assert told in problem(wanted, cluster)


def test_looks_are_taken_side_by_side(server: HttpKubernetes, cluster: Cluster) -> None:
    together, most, lock = 0, 0, threading.Lock()
    answer = server.answer

    def slow(*call: Any) -> Any:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        threading.Event().wait(0.02)
        try:
            return answer(*call)
        finally:
            with lock:
                together -= 1

    server.answer = slow  # type: ignore[method-assign]
    admit(spec(), cluster)
    assert most >= 3


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("500m", "0.5"),
        ("2", "2"),
        ("2Gi", "2147483648"),
        ("1.5k", "1500"),
        ("1e3", "1000"),
        ("2E", "2e18"),
        ("5u", "5e-6"),
    ],
)
def test_quantities(text: str, amount: str) -> None:
    assert parse(text) == Decimal(amount)


@pytest.mark.parametrize("text", ["", "two", "1 Gi", "1KB", "1mi"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        parse(text)


def test_amounts_for_people() -> None:
    assert (told("cpu", Decimal("0.50")), told("pods", Decimal(100))) == ("0.5", "100")
    assert told("requests.memory", Decimal(3 * 2**30)) == "3 GiB"


def with_kuberay(server: HttpKubernetes) -> None:
    server.resources.append(Resource("ray.io/v1", "rayclusters", "RayCluster"))


def decided(cluster: Cluster, **changes: Any) -> str:
    return kuberay.settled(spec(**changes).kubernetes, cluster).ray


def test_kuberay_is_taken_where_it_is_served_and_allowed(server: HttpKubernetes, cluster: Cluster) -> None:
    assert decided(cluster) == "pods"
    with_kuberay(server)
    assert decided(cluster) == "kuberay"
    assert decided(cluster, ray="pods") == "pods"
    server.forbidden |= {("patch", "rayclusters")}
    assert decided(cluster) == "pods"
    assert decided(cluster, ray="kuberay") == "kuberay"


def test_kuberay_that_is_wanted_and_not_there_is_refused(server: HttpKubernetes, cluster: Cluster) -> None:
    told = problem(spec(ray="kuberay"), cluster)
    assert told == "the cluster serves no RayCluster of ray.io/v1; set kubernetes.ray to pods, or ask for KubeRay"
    with_kuberay(server)
    assert problems(spec(ray="kuberay"), cluster) == []
    server.forbidden |= {("create", "rayclusters")}
    assert "you may not create rayclusters.ray.io in namespace lab" in problem(spec(ray="kuberay"), cluster)


def test_the_autoscaler_beside_kuberays_head_counts(server: HttpKubernetes, cluster: Cluster) -> None:
    with_kuberay(server)
    quota(server, {"requests.cpu": "2", "count/rayclusters.ray.io": "1"})
    one = {"max": 1, "cpus": 1}
    assert "requests.cpu" in problem(spec(one, ray="kuberay", head_cpus="900m"), cluster)
    assert problems(spec(one, ray="pods", head_cpus="900m"), cluster) == []
