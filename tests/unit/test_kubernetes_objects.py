"""The manifests of a run: marked, owned, restricted, and what the spec passes through."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.home import Home
from dhctl.infra.kubernetes.mark import CLUSTER_LABEL, EXPIRES_LABEL, NODE_LABEL, ROLE_LABEL, RUN_LABEL, Mark
from dhctl.infra.kubernetes.node.settings import PodSettings
from dhctl.infra.kubernetes.node.worker_pod import ray_words, worker_pod
from dhctl.infra.kubernetes.objects import RunObjects, schedule, with_content
from dhctl.infra.kubernetes.section import KubernetesSection
from dhctl.infra.node.layout import NodeFolder
from dhctl.infra.spec import Workers
from unit.fakes import make_record

RUN, UID, EXPIRES = "dh-aaaabbbbcc", "uid-1", 1_790_000_000
GIB = 2**30
Thing = dict[str, Any]


def objects(workers: Thing | None = None, cpu_limits: bool = False, **section: Any) -> RunObjects:
    wanted = KubernetesSection.model_validate({"image": "registry.org/ray:2.60.0", "head_memory": "2GiB", **section})
    size = Workers.model_validate(workers or {"max": 3, "memory": "4GiB", "cpus": 2})
    return RunObjects(Mark(RUN, EXPIRES), "trial", wanted, size, cpu_limits, b"code")


def everything(made: RunObjects) -> dict[str, Thing]:
    rest = {"token": made.token_object(UID), "head": made.head_pod(UID), **made.owned(UID, 0)}
    return {"namespace": made.namespace_object(), "run": made.run_object(), **rest}


def worker(made: RunObjects) -> Thing:
    settings = made.settings()
    words = ray_words(settings, NodeFolder(Path("/var/lib/dhctl")), "10.0.0.1", ["--num-cpus", "2"])
    return worker_pod(settings, f"{RUN}-w-00000000", "launch", [], words)


def pods(made: RunObjects) -> dict[str, Thing]:
    lease = made.lease_job(UID, 0)["spec"]["jobTemplate"]["spec"]["template"]
    return {"head": made.head_pod(UID)["spec"], "worker": worker(made)["spec"], "lease": lease["spec"]}


def container(pod: Thing) -> Thing:
    (only,) = pod["containers"]
    return only  # type: ignore[no-any-return]


def env_of(pod: Thing) -> Thing:
    listed = container(pod)["env"]
    assert len({entry["name"] for entry in listed}) == len(listed)
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in listed}


def mounts_of(pod: Thing) -> dict[str, str]:
    return {mount["mountPath"]: mount["name"] for mount in container(pod)["volumeMounts"]}


def test_each_object_carries_the_mark_and_a_name_of_the_run() -> None:
    for name, manifest in everything(objects()).items():
        labels = manifest["metadata"]["labels"]
        assert (labels[RUN_LABEL], labels[EXPIRES_LABEL]) == (RUN, str(EXPIRES)), name
        assert labels[ROLE_LABEL], name
        assert manifest["metadata"]["name"].startswith(RUN), name


def test_all_but_namespace_and_run_object_are_owned_by_it() -> None:
    for name, manifest in everything(objects(data_volume="1GiB")).items():
        owners = manifest["metadata"].get("ownerReferences", [])
        owned = {"apiVersion": "v1", "kind": "ConfigMap", "name": RUN, "uid": UID, "blockOwnerDeletion": True}
        assert owners == ([] if name in ("namespace", "run") else [owned]), name


def test_what_the_run_has() -> None:
    accounts = {f"{part}-{what}" for part in ("head", "lease") for what in ("account", "role", "binding")}
    assert set(objects().owned(UID, 0)) == {"lease", "code", "network-policy", "service", *accounts}
    assert set(objects(service_account="ray").owned(UID, 0)) == {"lease", "code", "network-policy", "service"}
    assert "data" in objects(data_volume="1GiB").owned(UID, 0)


def test_a_namespace_of_its_own_is_restricted_and_a_given_one_is_used() -> None:
    own, given = objects(), objects(namespace="lab")
    assert (own.namespace, own.own_namespace) == (RUN, True)
    assert own.namespace_object()["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert (given.namespace, given.own_namespace) == ("lab", False)
    places = {m["metadata"]["namespace"] for name, m in everything(given).items() if name != "namespace"}
    assert places == {"lab"}


@pytest.mark.parametrize("part", ["head", "worker", "lease"])
def test_pods_satisfy_pod_securitys_level_restricted(part: str) -> None:
    pod = pods(objects(data_volume="1GiB"))[part]
    security = pod["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 1000)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    own = container(pod)["securityContext"]
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert own["readOnlyRootFilesystem"] is True
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"emptyDir", "projected", "configMap", "persistentVolumeClaim"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)


def test_the_spec_passes_through_to_head_and_workers() -> None:
    section = {
        "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "priority_class": "high",
        "runtime_class": "nvidia",
        "image_pull_secrets": ["registry"],
        "volumes": [{"name": "scans", "persistentVolumeClaim": {"claimName": "scans"}}],
        "volume_mounts": [{"name": "scans", "mountPath": "/scans"}],
        "env": {"HTTPS_PROXY": "http://proxy"},
        "user_id": 4711,
    }
    made = pods(objects(**section))
    for part, pod in made.items():
        assert pod["nodeSelector"] == {"pool": "gpu"}
        assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
        assert (pod["priorityClassName"], pod["runtimeClassName"]) == ("high", "nvidia")
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 4711
        assert ("/scans" in mounts_of(pod)) == (part != "lease")
    assert env_of(made["head"])["HTTPS_PROXY"] == env_of(made["worker"])["HTTPS_PROXY"] == "http://proxy"


def test_what_is_not_given_is_not_there() -> None:
    for pod in pods(objects()).values():
        assert not {"nodeSelector", "tolerations", "priorityClassName", "runtimeClassName", "imagePullSecrets"} & set(
            pod
        )


def test_the_lease_has_the_specs_volumes_where_its_python_lies_there() -> None:
    mounted = {"volumes": [{"name": "env", "emptyDir": {}}], "volume_mounts": [{"name": "env", "mountPath": "/env"}]}
    assert "/env" in mounts_of(pods(objects(**mounted, python="/env/bin/python"))["lease"])
    assert "/env" not in mounts_of(pods(objects(**mounted, python="/envy/bin/python"))["lease"])


def test_memory_is_asked_for_and_limited_alike_and_cpu_is_not_limited() -> None:
    made = pods(objects({"max": 1, "memory": "4GiB", "cpus": 2, "gpus": 1}, gpu_resource="amd.com/gpu"))
    asked = container(made["worker"])["resources"]
    assert asked["requests"] == {"memory": str(4 * GIB), "cpu": "2", "amd.com/gpu": "1"}
    assert asked["limits"] == {"memory": str(4 * GIB), "amd.com/gpu": "1"}
    assert container(made["head"])["resources"]["requests"] == {"memory": str(2 * GIB), "cpu": "1"}


def test_cpu_is_limited_where_a_quota_wants_it() -> None:
    for pod in pods(objects(cpu_limits=True)).values():
        resources = container(pod)["resources"]
        assert resources["limits"] == resources["requests"]


def test_pods_without_gpus_see_none() -> None:
    made = pods(objects({"max": 1, "gpus": 1}))
    assert env_of(made["head"])["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert "NVIDIA_VISIBLE_DEVICES" not in env_of(made["worker"])
    assert env_of(pods(objects())["worker"])["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_the_head_unpacks_its_code_and_becomes_dhctls_process() -> None:
    head = pods(objects(python="/opt/my env/bin/python"))["head"]
    shell, flag, text = container(head)["command"]
    assert (shell, flag) == ("sh", "-c")
    assert "'/opt/my env/bin/python' -m tarfile -e /etc/dhctl/code/code.tar.gz /opt/dhctl-code" in text
    assert "PYTHONPATH=/opt/dhctl-code${PYTHONPATH:+:$PYTHONPATH} exec '/opt/my env/bin/python'" in text
    assert text.endswith("-u -m dhctl.infra.kubernetes.node.head")
    assert (head["restartPolicy"], head["serviceAccountName"]) == ("Always", f"{RUN}-head")


def test_the_heads_command_finds_the_code_that_it_unpacked(home: Home, tmp_path: Path) -> None:
    made = RunObjects.of(make_record(home, target="kubernetes", kubernetes={"image": "ray", "python": sys.executable}))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "code.tar.gz").write_bytes(made.code)
    text = container(made.head_pod(UID)["spec"])["command"][-1]
    text = text.replace("/etc/dhctl", str(tmp_path)).replace("/opt/dhctl-code", str(tmp_path / "opt"))
    where = "import importlib.util as u, os; print(u.find_spec('dhctl.infra.kubernetes.node.head').origin)"
    text = text.replace(
        "-u -m dhctl.infra.kubernetes.node.head", f"-SP -c \"{where}; print(os.environ['PYTHONPATH'])\""
    )
    env = {"PYTHONPATH": "/image/packages", "PATH": "/usr/bin:/bin"}
    told = subprocess.run(["sh", "-c", text], env=env, capture_output=True, text=True, check=True).stdout.split()
    assert told == [f"{tmp_path}/opt/dhctl/infra/kubernetes/node/head.py", f"{tmp_path}/opt:/image/packages"]


def test_the_head_finds_what_it_is_given_and_writes_to_volumes_alone() -> None:
    head = pods(objects())["head"]
    sources = next(v["projected"]["sources"] for v in head["volumes"] if v["name"] == "dhctl-etc")
    paths = {
        (kind, source[kind]["name"], item["path"], item.get("mode"))
        for source in sources
        for kind in source
        for item in source[kind]["items"]
    }
    assert paths == {
        ("secret", f"{RUN}-token", "secret/token", 0o440),
        ("secret", f"{RUN}-token", "secret/env.json", 0o440),
        ("configMap", f"{RUN}-code", "code/code.tar.gz", 0o444),
        ("configMap", RUN, "settings.json", 0o444),
    }
    assert {"/etc/dhctl", "/var/lib/dhctl", "/opt/dhctl-code", "/tmp", "/dev/shm"} == set(mounts_of(head))
    env = env_of(head)
    assert {name: env[name]["fieldRef"]["fieldPath"] for name in ("POD_IP", "POD_NAME", "NAMESPACE")} == {
        "POD_IP": "status.podIP",
        "POD_NAME": "metadata.name",
        "NAMESPACE": "metadata.namespace",
    }
    assert (env["DHCTL_NODE_HOME"], env["HOME"], env["DHCTL_RUN_ID"]) == ("/var/lib/dhctl", "/var/lib/dhctl", RUN)


@pytest.mark.parametrize(("state", "status"), [("ready", 0), ("starting", 1)])
def test_readiness_is_what_the_heads_process_says(state: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "agent.json").write_text(json.dumps({"state": state}))
    words = container(pods(objects())["head"])["readinessProbe"]["exec"]["command"]
    assert words[-1] == "/var/lib/dhctl/log/agent.json"
    probe = [sys.executable, *words[1:-1], str(tmp_path / "agent.json")]
    assert subprocess.run(probe, check=False).returncode == status


def test_shared_memory_is_memory_and_part_of_the_pods_own() -> None:
    made = pods(objects())
    sizes = {
        part: next(v["emptyDir"] for v in made[part]["volumes"] if v["name"] == "dhctl-shm")
        for part in ("head", "worker")
    }
    assert sizes["head"] == {"medium": "Memory", "sizeLimit": str(GIB // 2)}
    assert sizes["worker"] == {"medium": "Memory", "sizeLimit": str(2 * GIB)}


def test_a_worker_is_made_from_the_heads_settings() -> None:
    made = objects()
    settings = json.loads(made.run_object()["data"]["settings.json"])
    assert PodSettings.from_dict(settings) == made.settings()
    assert (settings["worker_memory_bytes"], settings["max_workers"], settings["namespace"]) == (4 * GIB, 3, RUN)
    pod = worker(made)
    assert pod["metadata"]["labels"][NODE_LABEL] == f"{RUN}-w-00000000"
    assert pod["metadata"]["labels"][CLUSTER_LABEL] == RUN
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["restartPolicy"] == "Never"
    assert env_of(pod["spec"])["RAY_AUTH_TOKEN_PATH"] == "/etc/dhctl/secret/token"
    assert set(mounts_of(pod["spec"])) >= {"/etc/dhctl", "/var/lib/dhctl", "/tmp", "/dev/shm"}


def test_the_data_volume_is_in_head_and_workers() -> None:
    made = objects(data_volume="10GiB", storage_class="fast")
    assert made.claim(UID)["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": str(10 * GIB)}},
        "storageClassName": "fast",
    }
    assert {part for part, pod in pods(made).items() if "/data" in mounts_of(pod)} == {"head", "worker"}
    assert "storageClassName" not in objects(data_volume="1GiB").claim(UID)["spec"]


def test_the_network_policy_lets_in_the_runs_pods_alone() -> None:
    ours = {"podSelector": {"matchLabels": {CLUSTER_LABEL: RUN}}}
    spec = objects().network_policy(UID)["spec"]
    assert spec == {**ours, "policyTypes": ["Ingress"], "ingress": [{"from": [ours]}]}


def test_the_service_is_headless_and_selects_the_head() -> None:
    made = objects()
    spec = made.service(UID)["spec"]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)
    labels = made.head_pod(UID)["metadata"]["labels"]
    assert spec["selector"].items() <= labels.items()
    assert not spec["selector"].items() <= worker(made)["metadata"]["labels"].items()


def test_rights_are_least_and_a_given_account_serves_both() -> None:
    owned = objects().owned(UID, 0)
    assert owned["lease-role"]["rules"][0]["resourceNames"] == [RUN]
    by_resource = {rule["resources"][0]: rule for rule in owned["head-role"]["rules"]}
    assert by_resource.keys() == {"pods", "events", "configmaps/finalizers"}
    assert set(by_resource["pods"]["verbs"]) == {"get", "list", "create", "delete"}
    assert by_resource["configmaps/finalizers"]["resourceNames"] == [RUN]
    for part in ("head", "lease"):
        binding = owned[f"{part}-binding"]
        assert binding["roleRef"]["name"] == binding["subjects"][0]["name"] == f"{RUN}-{part}"
    given = pods(objects(service_account="ray"))
    assert given["head"]["serviceAccountName"] == given["lease"]["serviceAccountName"] == "ray"


def test_the_lease_runs_its_program_once_at_the_end() -> None:
    job = objects().lease_job(UID, 0)["spec"]
    end = datetime.fromtimestamp(EXPIRES, UTC)
    minute, hour, day, month, weekday = job["schedule"].split()
    at = end.replace(month=int(month), day=int(day), hour=int(hour), minute=int(minute), second=0)
    assert 0 < (at - end).total_seconds() <= 60
    assert (weekday, job["timeZone"]) == ("*", "Etc/UTC")
    spec = job["jobTemplate"]["spec"]
    assert spec["backoffLimit"] == 10
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "OnFailure"
    assert container(pod)["command"] == ["python", "-u", "/etc/dhctl/lease/lease.py", RUN]


@pytest.mark.parametrize(
    ("expires", "now", "at"),
    [
        ("2026-03-01T10:00:00", "2026-03-01T08:00:00", "1 10 1 3 *"),
        ("2026-03-01T10:00:59", "2026-03-01T08:00:00", "1 10 1 3 *"),
        ("2026-12-31T23:59:30", "2026-12-31T08:00:00", "0 0 1 1 *"),
        # the end is so near, or past, that the job would be made too late for it
        ("2026-03-01T10:00:00", "2026-03-01T10:00:20", "2 10 1 3 *"),
        ("2026-03-01T10:00:00", "2026-03-02T00:00:00", "2 0 2 3 *"),
    ],
)
def test_the_end_of_the_lease_is_a_minute_to_come(expires: str, now: str, at: str) -> None:
    end, start = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (expires, now))
    assert schedule(int(end.timestamp()), start.timestamp()) == at


def test_the_token_has_no_content_until_it_is_sent() -> None:
    manifest = objects().token_object(UID)
    assert "data" not in manifest
    sent = with_content(manifest, "s3cret", {"AWS_ACCESS_KEY_ID": "key"})["data"]
    told = {key: base64.b64decode(text).decode() for key, text in sent.items()}
    assert told == {"token": "s3cret", "env.json": '{"AWS_ACCESS_KEY_ID": "key"}'}


def test_code_that_is_too_large_for_one_object_is_said() -> None:
    made = objects()
    large = RunObjects(made.mark, "trial", made.section, made.workers, code=b"x" * 800_000)
    with pytest.raises(ValueError, match="configmap"):
        large.code_object(UID)


def test_of_a_record_the_code_is_dhctls_own(home: Home) -> None:
    record = make_record(home, target="kubernetes", kubernetes={"image": "ray"})
    made = RunObjects.of(record)
    assert made.mark == Mark(record.run_id, int(record.expires_at.timestamp()))
    content = base64.b64decode(made.code_object(UID)["binaryData"]["code.tar.gz"])
    with tarfile.open(fileobj=io.BytesIO(content)) as packed:
        assert "dhctl/infra/kubernetes/node/head.py" in packed.getnames()
    assert "def main" in made.code_object(UID)["data"]["lease.py"]
