"""What each resource type of the stand-in offers to the protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from testbeds.openstack.plugin.cloud import ApiError, Cloud, Deadline
from testbeds.openstack.plugin.fields import Fields, blank
from testbeds.openstack.plugin.wire import Properties


@dataclass
class Making:
    """A create under way. What fails before `id` is set leaves nothing in the state, as with the official plugin."""

    cloud: Cloud
    inputs: Properties
    deadline: Deadline
    id: str = ""
    told_once: Properties = field(default_factory=dict)
    """Outputs that the API tells at the create only."""


@dataclass(frozen=True)
class Change:
    """An update: the outputs as they stand in the state, the old and the new inputs."""

    cloud: Cloud
    id: str
    state: Properties
    olds: Properties
    news: Properties
    deadline: Deadline

    def changed(self, name: str) -> bool:
        """Whether an input changed."""
        return bool(self.olds.get(name) != self.news.get(name))


class Kind(ABC):
    """A resource type. Its methods raise ApiError in the official plugin's words."""

    token: ClassVar[str]
    official: ClassVar[str]
    """Terraform's name of the type, which is in the error texts."""

    fields: ClassVar[Fields]
    computed: ClassVar[tuple[str, ...]] = ()
    """Outputs that are no inputs."""

    silent: ClassVar[tuple[str, ...]] = ()
    """Fields whose output does not tell the input."""

    create_s: ClassVar[float] = 600.0
    update_s: ClassVar[float] = 600.0
    delete_s: ClassVar[float] = 600.0

    def blank(self, inputs: Properties) -> Properties:
        """The outputs before anything is read."""
        return blank(self.fields, inputs) | dict.fromkeys(self.computed)

    @abstractmethod
    def create(self, making: Making) -> None:
        """Makes it, sets `making.id`, waits until it is ready."""

    @abstractmethod
    def read(self, cloud: Cloud, id_: str, state: Properties) -> Properties | None:
        """The outputs now; None when it is gone. `state` are those that were known."""

    def update(self, change: Change) -> None:
        """Changes it. A type without this has fixed inputs only."""
        raise ApiError(f"the stand-in cannot update {self.official}: {sorted(change.news)}")

    @abstractmethod
    def delete(self, cloud: Cloud, id_: str, state: Properties, deadline: Deadline) -> None:
        """Deletes it and waits until it is gone."""


@contextmanager
def saying(words: str) -> Iterator[None]:
    """Puts the official plugin's words before an error; words that end with a colon of their own are kept so."""
    try:
        yield
    except ApiError as error:
        joint = " " if words.rstrip().endswith(":") else ": "
        raise ApiError(f"{words}{joint}{error}", error.status) from error


def given(values: Properties, names: Iterable[str]) -> dict[str, Any]:
    """Those of `values` that say anything: gophercloud leaves empty strings, lists and zeros out of a request."""
    return {
        name: values[name] for name in names if values.get(name) not in (None, "", [], 0) or values.get(name) is False
    }
