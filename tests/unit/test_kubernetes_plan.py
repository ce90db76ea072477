"""`dhctl plan` on Kubernetes: what would be made, without a call to the cluster."""

from __future__ import annotations

from typing import Any

import pytest

from dhctl.infra.kubernetes.mark import Mark
from dhctl.infra.kubernetes.objects import RunObjects
from dhctl.infra.kubernetes.plan import resources
from dhctl.infra.spec import RunSpec
from unit.fakes import make_spec


def spec(workers: dict[str, Any] | None = None, **section: Any) -> RunSpec:
    return make_spec(target="kubernetes", workers=workers or {"max": 2}, kubernetes={"image": "ray", **section})


def test_what_is_made_by_default() -> None:
    assert [planned.name for planned in resources(spec())] == [
        *("namespace", "run", "code", "token"),
        *(f"{part}-{what}" for part in ("head", "lease") for what in ("account", "role", "binding")),
        *("network-policy", "service", "lease", "head", "autoscaler", "0 to 2 workers"),
    ]


@pytest.mark.parametrize(
    ("section", "absent", "present"),
    [
        ({"namespace": "lab"}, {"namespace"}, {"run"}),
        ({"service_account": "ray"}, {"head-role", "lease-account"}, {"lease"}),
        ({"data_volume": "1GiB"}, set(), {"data"}),
        ({"ray": "kuberay"}, {"head-role", "service"}, {"lease-role", "ray-cluster"}),
    ],
)
def test_the_spec_decides(section: dict[str, Any], absent: set[str], present: set[str]) -> None:
    planned = {planned.name for planned in resources(spec(**section))}
    assert planned & absent == set()
    assert planned >= present


@pytest.mark.parametrize(
    "section", [{}, {"namespace": "lab", "data_volume": "1GiB"}, {"service_account": "ray"}, {"ray": "kuberay"}]
)
def test_it_is_what_the_stack_declares(section: dict[str, Any]) -> None:
    wanted = spec(**section)
    made = RunObjects(Mark("dh-aaaabbbbcc", 1), "trial", wanted.kubernetes, wanted.workers)
    kinds = {name: manifest["kind"] for name, manifest in made.owned("", 0).items()}
    kinds |= {"run": "ConfigMap", "token": "Secret"}
    kinds |= {"ray-cluster": "RayCluster"} if made.section.by_kuberay else {"head": "Pod"}
    kinds |= {"namespace": "Namespace"} if made.own_namespace else {}
    assert {planned.name: planned.kind for planned in resources(wanted) if planned.made_by == "Pulumi"} == kinds


def test_each_row_tells_who_makes_it_and_what_it_is() -> None:
    rows = resources(spec({"min": 1, "max": 3, "gpus": 1, "memory": "4GiB"}, head_cpus=2, data_volume="10GiB"))
    by_name = {planned.name: planned for planned in rows}
    assert by_name["1 to 3 workers"].detail == "1 CPU, 1 GPU, 4 GiB; leaves after 1m idle"
    assert by_name["1 to 3 workers"].made_by == "autoscaler"
    assert by_name["head"].detail == "ray, 2 CPU, 4 GiB; Ray head, takes no tasks"
    assert by_name["data"].detail == "10 GiB of the default class, at /data in all pods"
    assert by_name["lease"].detail.startswith("ends the run after 4h")
