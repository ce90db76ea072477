"""The mark: what is written is read again, and nothing of anybody else's is taken for it."""

from __future__ import annotations

import pytest

from dhctl.infra.mark import new_run_id
from dhctl.infra.openstack.mark import HEAD, WORKER, Mark

MARK = Mark("dh-aaaabbbbcc", 1_800_000_000)


def test_every_form_is_read_as_it_was_written() -> None:
    mark = Mark(new_run_id(), 1_800_000_000)
    assert Mark.from_tags(mark.tags) == mark
    assert Mark.from_tags(mark.text.split()) == mark
    assert Mark.from_metadata(mark.metadata(HEAD)) == mark
    assert Mark.from_name(mark.name("credential"), mark.text) == mark


def test_the_words_are_those_of_the_documentation() -> None:
    assert MARK.tags == ["dhctl-run=dh-aaaabbbbcc", "dhctl-expires=1800000000"]
    assert MARK.metadata(WORKER) == {
        "dhctl_run": "dh-aaaabbbbcc",
        "dhctl_expires": "1800000000",
        "dhctl_role": "worker",
    }
    assert MARK.name("net") == "dh-aaaabbbbcc-net"


def test_the_order_of_tags_and_tags_of_others_do_not_matter() -> None:
    assert Mark.from_tags(["prod", *reversed(MARK.tags), "dhctl"]) == MARK


def test_a_name_alone_tells_no_expiry() -> None:
    assert Mark.from_name("dh-aaaabbbbcc-key") == Mark("dh-aaaabbbbcc", 0)


@pytest.mark.parametrize(
    "tags",
    [
        [],
        ["prod"],
        ["dhctl-expires=1800000000"],
        ["dhctl-run="],
        ["dhctl-run=dh-short"],
        ["dhctl-run=dh-aaaabbbbccdd"],
        ["dhctl-run=dh-AAAABBBBCC"],
        ["my-dhctl-run=dh-aaaabbbbcc"],
    ],
)
def test_tags_of_others_are_no_mark(tags: list[str]) -> None:
    assert Mark.from_tags(tags) is None


@pytest.mark.parametrize(
    "metadata", [None, {}, {"dhctl_run": ""}, {"dhctl_run": "x"}, {"dhctl_run": "dh-aaaabbbbccd"}, {"run": MARK.run_id}]
)
def test_metadata_of_others_is_no_mark(metadata: dict[str, str] | None) -> None:
    assert Mark.from_metadata(metadata) is None


@pytest.mark.parametrize(
    "name", [None, "", "dh-aaaabbbbcc", "dh-aaaabbbbccd-key", "my-dh-aaaabbbbcc-key", "dh-a-key", "DH-aaaabbbbcc-key"]
)
def test_names_of_others_are_no_mark(name: str | None) -> None:
    assert Mark.from_name(name) is None


@pytest.mark.parametrize("expiry", ["", "soon", "-5", "1e9"])
def test_an_expiry_that_is_no_number_is_not_known(expiry: str) -> None:
    assert Mark.from_metadata({"dhctl_run": MARK.run_id, "dhctl_expires": expiry}) == Mark(MARK.run_id, 0)
