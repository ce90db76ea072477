"""Volumes against a cinder of a few lines: the testbed has none."""

from __future__ import annotations

from typing import Any

import pytest

from testbeds.openstack.plugin.cinder import Volume
from testbeds.openstack.plugin.cloud import ApiError, Cloud, Deadline
from testbeds.openstack.plugin.fields import check
from testbeds.openstack.plugin.kind import Making


class SmallCinder(Cloud):
    """Knows one volume, which is in each of `states` for one look, and then in the last."""

    def __init__(self, *states: str) -> None:
        super().__init__({})
        self.states, self.volume, self.asked = list(states), {}, []  # type: ignore[var-annotated]

    @property
    def region(self) -> str:
        return "RegionOne"

    def ask(
        self, service: str, method: str, path: str, body: Any = None, *, ok: tuple[int, ...] = (), version: str = ""
    ) -> Any:
        self.asked.append((method, path, body))
        if method == "POST":
            self.volume = body["volume"] | {"id": "v1", "availability_zone": "nova"}
            return {"volume": self.volume}
        if method == "DELETE":
            self.states = ["deleting"]
            return {}
        if not self.states:
            raise ApiError("Expected HTTP response code [200], but got 404 instead", 404)
        status = self.states[0] if len(self.states) == 1 and self.states != ["deleting"] else self.states.pop(0)
        return {"volume": self.volume | {"status": status}}


def making(cinder: SmallCinder) -> Making:
    told = {"size": 20, "imageId": "i1", "metadata": {"dh": "x"}, "volumeType": "fast"}
    inputs, faults = check(Volume.fields, told, {}, "vol", b"seed")
    assert (faults, inputs["__defaults"]) == ([], ["name", "volumeRetypePolicy"])
    return Making(cinder, inputs, Deadline(10))


def test_a_volume_lives_and_goes() -> None:
    cinder, kind = SmallCinder("creating", "downloading", "available"), Volume()
    made = making(cinder)
    kind.create(made)
    request = cinder.asked[0][2]["volume"]
    assert request == {
        "imageRef": "i1",
        "metadata": {"dh": "x"},
        "name": made.inputs["name"],
        "size": 20,
        "volume_type": "fast",
    }
    outputs = kind.read(cinder, made.id, kind.blank(made.inputs))
    assert outputs is not None
    assert {name: outputs[name] for name in ("id", "size", "imageId", "metadata", "attachments")} == {
        "id": "v1",
        "size": 20,
        "imageId": "i1",
        "metadata": {"dh": "x"},
        "attachments": [],
    }
    kind.delete(cinder, made.id, outputs, Deadline(10))
    assert kind.read(cinder, made.id, outputs) is None


def test_a_volume_in_error_has_an_id() -> None:
    made = making(SmallCinder("creating", "error"))
    with pytest.raises(ApiError) as raised:
        Volume().create(made)
    assert made.id == "v1"
    assert str(raised.value) == (
        "Error waiting for openstack_blockstorage_volume_v3 v1 to become ready: "
        "unexpected state 'error', wanted target 'available'. last error: %!s(<nil>)"
    )
