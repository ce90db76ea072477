"""The spec's section for Kubernetes: what is taken, and what is refused with a sentence."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dhctl.infra.kubernetes.section import KubernetesSection


def section(**values: Any) -> KubernetesSection:
    return KubernetesSection.model_validate(values)


def test_nothing_is_needed_but_what_admission_asks_for() -> None:
    assert (section().image, section().namespace) == (None, None)


def test_it_survives_json() -> None:
    wanted = section(
        image="ray",
        head_memory="3GiB",
        tolerations=[{"key": "gpu", "operator": "Exists", "tolerationSeconds": 30}],
        volumes=[{"name": "scans", "nfs": {"server": "nfs", "path": "/scans"}}],
        env={"A": "b"},
    )
    assert KubernetesSection.model_validate_json(wanted.model_dump_json()) == wanted


@pytest.mark.parametrize(("given", "taken"), [(1, "1"), (0.5, "0.5"), ("500m", "500m"), ("1.5", "1.5")])
def test_amounts_of_cpu(given: object, taken: str) -> None:
    assert section(head_cpus=given).head_cpus == taken


def test_one_pull_secret_needs_no_list() -> None:
    assert section(image_pull_secrets="registry").image_pull_secrets == ("registry",)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"head_cpus": "two"}, "no amount of CPU; write 1 or 500m"),
        ({"head_cpus": "-1"}, "no amount of CPU"),
        ({"head_memory": "2"}, "not a size"),
        ({"head_memory": "100MiB"}, "greater than or equal to"),
        ({"namespace": "Lab_1"}, "should match pattern"),
        ({"service_account": "a.b"}, "should match pattern"),
        ({"user_id": 0}, "greater than or equal to 1"),
        ({"volumes": [{"hostPath": {}}]}, "each one needs a name"),
        ({"volume_mounts": [{"mountPath": "/a"}]}, "each one needs a name"),
        ({"gpus": 1}, "Extra inputs are not permitted"),
        ({"image": ""}, "at least 1 character"),
    ],
)
def test_what_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        section(**values)
