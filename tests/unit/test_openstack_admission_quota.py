"""The quota rows of admission, and fewer workers where the quota has no room for all."""

from __future__ import annotations

from typing import Any

import pytest

from dhctl.infra.errors import AdmissionError
from dhctl.infra.openstack.admission import admit, shrink
from dhctl.infra.openstack.flavors import Flavors, FlavorSize
from dhctl.infra.openstack.quota import demand
from unit.fake_openstack import FakeCloud, answer, cloud_spec, compute_limits


@pytest.fixture
def cloud() -> Any:
    return FakeCloud()


def test_every_quota_that_the_run_takes_from_is_a_row(cloud: Any) -> None:
    spec = cloud_spec({"min": 1, "max": 3}, boot_volume="20GiB", server_group="anti-affinity")
    flavors = Flavors(*(FlavorSize("small", 2, 4096, 20),) * 2)
    rows = {r.what: r for r in admit(spec, cloud) if r.what.startswith("quota: ")}
    assert rows.keys() == {f"quota: {kind}" for kind in demand(spec, flavors, 3)}
    assert (rows["quota: cores"].need, rows["quota: cores"].have) == ("4 (min) to 8 (max)", "16 free of 20")
    assert rows["quota: gigabytes"].need == "40 (min) to 80 (max) GiB"
    assert rows["quota: routers"].need == "1"


def test_a_quota_that_is_not_told_refuses_nobody(cloud: Any) -> None:
    cloud.compute.answers["/limits"] = answer(403, {})
    found = {r.what: r for r in admit(cloud_spec({"max": 12}), cloud)}
    assert not any(r.problem for r in found.values())
    assert found["quota: cores"].have == "not told by the cloud"


def test_fewer_workers_than_max_are_a_warning_in_one_row(cloud: Any) -> None:
    spec = cloud_spec({"max": 12})
    warned = [found for found in admit(spec, cloud) if found.warning]
    assert [found.what for found in warned] == ["quota: cores"]
    assert warned[0].warning == (
        "only 7 of 12 workers fit now: cores (16 free of 20); without --strict workers.max is lowered to 7"
    )
    assert not any(found.problem for found in admit(spec, cloud))


def test_the_subnet_limits_the_workers_too(cloud: Any) -> None:
    spec = cloud_spec({"max": 7}, cidr="10.77.0.0/29")
    assert shrink(spec, cloud)[0].workers.max == 3


def test_shrink_lowers_what_the_job_asks_for_too(cloud: Any) -> None:
    spec = cloud_spec({"min": 1, "max": 12}, {"workers": 9})
    smaller, told = shrink(spec, cloud)
    assert (smaller.workers.min, smaller.workers.max, smaller.job.workers, smaller.job_workers) == (1, 7, 7, 7)
    assert told == "only 7 of 12 workers fit now: cores (16 free of 20); workers.max is lowered to 7"
    assert shrink(smaller, cloud) == (smaller, "")


def test_shrink_keeps_a_job_that_asks_for_less(cloud: Any) -> None:
    assert shrink(cloud_spec({"max": 12}, {"workers": 2}), cloud)[0].job.workers == 2
    assert shrink(cloud_spec({"max": 12}), cloud)[0].job.workers is None


def test_shrink_refuses_when_the_quota_went_away_since_admission(cloud: Any) -> None:
    cloud.compute.answers["/limits"] = compute_limits(totalInstancesUsed=9)
    with pytest.raises(AdmissionError, match="with 1 worker the run needs 2 of quota instances, which has 1 free"):
        shrink(cloud_spec(), cloud)
