"""The RayCluster for KubeRay's operator, against facts/kuberay.md and the fields of ray.io/v1."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest

from dhctl.infra.kubernetes.mark import CLUSTER_LABEL, ROLE_LABEL, RUN_LABEL, Mark
from dhctl.infra.kubernetes.objects import RunObjects, with_content
from dhctl.infra.kubernetes.section import KubernetesSection
from dhctl.infra.spec import Workers

RUN, UID = "dh-aaaabbbbcc", "uid-1"
Thing = dict[str, Any]

CLUSTER_FIELDS = {
    *("rayVersion", "enableInTreeAutoscaling", "authOptions", "autoscalerOptions", "headGroupSpec"),
    "workerGroupSpecs",
}
GROUP_FIELDS = {"groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def made(workers: Thing | None = None, **section: Any) -> RunObjects:
    wanted = KubernetesSection.model_validate({"image": "registry.org/ray:2.60.0", "ray": "kuberay", **section})
    size = Workers.model_validate(workers or {"min": 1, "max": 3, "memory": "4GiB", "cpus": 2})
    return RunObjects(Mark(RUN, 1_790_000_000), "trial", wanted, size, code=b"code")


def spec(workers: Thing | None = None, **section: Any) -> Thing:
    found: Thing = made(workers, **section).ray(UID)["spec"]
    return found


def group(found: Thing) -> Thing:
    (only,) = found["workerGroupSpecs"]
    return only  # type: ignore[no-any-return]


def templates(found: Thing) -> dict[str, Thing]:
    return {"head": found["headGroupSpec"]["template"], "worker": group(found)["template"]}


def env_of(container: Thing) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"]}


def test_it_is_marked_and_owned_and_has_the_fields_of_v1() -> None:
    found = made().ray(UID)
    assert (found["apiVersion"], found["kind"], found["metadata"]["name"]) == ("ray.io/v1", "RayCluster", RUN)
    (owner,) = found["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["blockOwnerDeletion"]) == (UID, True)
    assert found["metadata"]["labels"][RUN_LABEL] == RUN
    assert set(found["spec"]) == CLUSTER_FIELDS
    assert set(group(found["spec"])) == GROUP_FIELDS, "replicas are the autoscaler's"
    assert found["spec"]["rayVersion"] == version("ray")


def test_ray_wants_the_runs_token_and_its_autoscaler_is_v2() -> None:
    found = spec({"max": 2, "idle_timeout": "20s"})
    assert found["authOptions"] == {"mode": "token", "secretName": f"{RUN}-token"}
    assert found["enableInTreeAutoscaling"] is True
    assert (found["autoscalerOptions"]["version"], found["autoscalerOptions"]["idleTimeoutSeconds"]) == ("v2", 20)
    content = with_content(made().token_object(UID), "t0ken", {"AWS_REGION": "x"}, by_kuberay=True)["data"]
    assert set(content) == {"auth_token", "AWS_REGION"}


def test_bounds_and_sizes_are_the_specs() -> None:
    found = spec({"min": 1, "max": 3, "cpus": 2, "gpus": 1, "memory": "4GiB"}, head_memory="3GiB", head_cpus=2)
    workers = group(found)
    assert (workers["minReplicas"], workers["maxReplicas"]) == (1, 3)
    assert (workers["rayStartParams"]["num-cpus"], workers["rayStartParams"]["num-gpus"]) == ("2", "1")
    assert found["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (worker,) = templates(found)["worker"]["spec"]["containers"]
    assert worker["resources"]["limits"] == {"memory": str(4 * 2**30), "nvidia.com/gpu": "1"}
    (head,) = templates(found)["head"]["spec"]["containers"]
    assert head["resources"]["requests"] == {"memory": str(3 * 2**30), "cpu": "2"}


@pytest.mark.parametrize("part", ["head", "worker"])
def test_pods_carry_the_mark_and_satisfy_restricted(part: str) -> None:
    template = templates(spec())[part]
    labels = template["metadata"]["labels"]
    assert (labels[RUN_LABEL], labels[CLUSTER_LABEL], labels[ROLE_LABEL]) == (RUN, RUN, part)
    pod = template["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["terminationGracePeriodSeconds"] <= 10, "30 s of grace are 30 s of waiting"
    (container,) = pod["containers"]
    security = container["securityContext"]
    assert (security["allowPrivilegeEscalation"], security["capabilities"]) == (False, {"drop": ["ALL"]})
    assert {"mountPath": "/tmp", "name": "dhctl-tmp"} in container["volumeMounts"], "the image itself is read-only"
    assert "command" not in container, "the operator writes it"


@pytest.mark.parametrize("part", ["head", "worker"])
def test_secrets_come_by_reference(part: str) -> None:
    (container,) = templates(spec())[part]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": f"{RUN}-token"}}]


def test_the_programs_of_the_specs_interpreter_are_found() -> None:
    found = spec(python="/opt/venv/bin/python", env={"LANG": "C"})
    containers = [*(templates(found)[part]["spec"]["containers"][0] for part in ("head", "worker"))]
    for container in (*containers, found["autoscalerOptions"]):
        assert env_of(container)["PATH"].split(":")[0] == "/opt/venv/bin"
        assert env_of(container)["LANG"] == "C"
    (plain,) = templates(spec())["head"]["spec"]["containers"]
    assert "PATH" not in env_of(plain)


def test_volumes_reach_the_autoscaler_too() -> None:
    volumes, mounts = ({"name": "venv", "hostPath": {"path": "/v"}},), ({"name": "venv", "mountPath": "/v"},)
    found = spec(volumes=volumes, volume_mounts=mounts)
    assert {"name": "venv", "mountPath": "/v"} in found["autoscalerOptions"]["volumeMounts"]
    for template in templates(found).values():
        named = {volume["name"] for volume in template["spec"]["volumes"]}
        mounted = {mount["name"] for container in template["spec"]["containers"] for mount in container["volumeMounts"]}
        assert mounted <= named


def test_head_and_its_rights_are_the_operators_but_for_a_given_account() -> None:
    parts = made().owned(UID, 0)
    assert not {"head-account", "head-role", "head-binding", "service"} & set(parts)
    assert {"lease", "lease-role", "network-policy", "code"} <= set(parts)
    assert "serviceAccountName" not in templates(spec())["head"]["spec"]
    assert templates(spec(service_account="ray"))["head"]["spec"]["serviceAccountName"] == "ray"
