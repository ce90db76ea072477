"""What neutron's resources have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from testbeds.openstack.plugin.cloud import ApiError, Cloud, Deadline, gone_or, wait
from testbeds.openstack.plugin.fields import Field, mapping, snake, text, text_set
from testbeds.openstack.plugin.kind import Change, Kind, Making, given, saying
from testbeds.openstack.plugin.wire import Properties

Found = dict[str, Any]


class NeutronKind(Kind):
    """What neutron's resources have in common: one collection, tags that are set after the create, polls by id."""

    collection: ClassVar[str]
    wrapper: ClassVar[str]
    plain: ClassVar[tuple[str, ...]]
    """Inputs that go into the request, and come back, under Terraform's name."""

    told: ClassVar[tuple[str, ...]] = ()
    """Outputs that are only read."""

    updatable: ClassVar[tuple[str, ...]] = ("name", "description")

    def path(self, id_: str = "") -> str:
        """Of the collection, or of one in it."""
        collection = self.collection.replace("_", "-")
        return f"/{collection}/{id_}" if id_ else f"/{collection}"

    def get(self, cloud: Cloud, id_: str) -> Found:
        """As neutron tells it."""
        found: Found = cloud.ask("network", "GET", self.path(id_))[self.wrapper]
        return found

    def state(self, cloud: Cloud, id_: str) -> Callable[[], str]:
        """For `wait`: neutron's status, ACTIVE for kinds that have none."""
        return lambda: str(self.get(cloud, id_).get("status", "ACTIVE"))

    def body(self, inputs: Properties) -> Found:
        """Of the create."""
        specs = inputs.get("valueSpecs") or {}
        plain = {snake(name): value for name, value in given(inputs, self.plain).items()}
        return plain | {name: {"true": True, "false": False}.get(value, value) for name, value in specs.items()}

    def make(self, making: Making) -> str:
        """The create itself; gives the id."""
        with saying(f"Error creating {self.official}"):
            body = {self.wrapper: self.body(making.inputs)}
            made = making.cloud.ask("network", "POST", self.path(), body, ok=(201,))
        return str(made[self.wrapper]["id"])

    def create(self, making: Making) -> None:
        id_ = self.make(making)
        self.wait_ready(making, id_)
        making.id = id_
        if making.inputs.get("tags"):
            self.set_tags(making.cloud, id_, making.inputs["tags"])

    def wait_ready(self, making: Making, id_: str) -> None:
        """Until it can be used."""
        with saying(f"Error waiting for {self.official} {id_} to become available"):
            wait(self.state(making.cloud, id_), target=("ACTIVE", "DOWN"), deadline=making.deadline)

    def set_tags(self, cloud: Cloud, id_: str, tags: list[str]) -> None:
        """All of them at once."""
        with saying(f"Error setting tags on {self.official} {id_}"):
            cloud.ask("network", "PUT", f"{self.path(id_)}/tags", {"tags": tags}, ok=(200,))

    def read(self, cloud: Cloud, id_: str, state: Properties) -> Properties | None:
        try:
            with saying(f"Error getting {self.official} {id_}"):
                found = self.get(cloud, id_)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        outputs = state | self.outputs(found) | {"id": id_, "region": state.get("region") or cloud.region}
        if "tags" in self.fields:
            outputs["allTags"] = sorted(found.get("tags") or [])
            if state.get("tags"):
                outputs["tags"] = [tag for tag in state["tags"] if tag in outputs["allTags"]]
        return outputs

    def outputs(self, found: Found) -> Properties:
        """What neutron tells, by Pulumi's names; null is the empty string, as in Go."""
        return {
            name: "" if found.get(snake(name)) is None else found[snake(name)] for name in (*self.plain, *self.told)
        }

    def update(self, change: Change) -> None:
        changed = {snake(n): change.news.get(n, "") for n in self.updatable if change.changed(n)}
        changed |= self.changes(change)
        if changed:
            with saying(f"Error updating {self.official} {change.id}"):
                change.cloud.ask("network", "PUT", self.path(change.id), {self.wrapper: changed}, ok=(200,))
        if change.changed("tags"):
            foreign = set(change.state.get("allTags") or ()) - set(change.olds.get("tags") or ())
            self.set_tags(change.cloud, change.id, sorted(foreign | set(change.news.get("tags") or ())))

    def changes(self, change: Change) -> Found:
        """What an update sends besides `updatable`."""
        return {}

    def delete(self, cloud: Cloud, id_: str, state: Properties, deadline: Deadline) -> None:
        if self.remove(cloud, id_):
            with saying(f"Error waiting for {self.official} {id_} to Delete: "):
                wait(
                    gone_or(self.state(cloud, id_)), target=("DELETED",), pending=("ACTIVE", "DOWN"), deadline=deadline
                )

    def remove(self, cloud: Cloud, id_: str) -> bool:
        """One request to delete; False when it was gone before."""
        try:
            with saying(f"Error deleting {self.official} {id_}"):
                cloud.ask("network", "DELETE", self.path(id_))
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True


class InsistingKind(NeutronKind):
    """Kinds whose delete is repeated while neutron answers 409: a wrong order shows as a long wait."""

    @abstractmethod
    def waiting_words(self, id_: str) -> str:
        """What stands before the error."""

    def attempt(self, cloud: Cloud, id_: str, state: Properties) -> None:
        """One try to delete."""
        cloud.ask("network", "DELETE", self.path(id_))

    def delete(self, cloud: Cloud, id_: str, state: Properties, deadline: Deadline) -> None:
        def tried() -> str:
            try:
                self.attempt(cloud, id_, state)
                self.get(cloud, id_)
            except ApiError as error:
                if error.status == 404:
                    return "DELETED"
                if error.status != 409:
                    raise
            return "ACTIVE"

        with saying(self.waiting_words(id_)):
            wait(tried, target=("DELETED",), pending=("ACTIVE",), deadline=deadline)


COMMON: dict[str, Field] = {
    "name": text(),
    "description": text(),
    "region": text(fixed=True),
    "tags": text_set(),
    "tenantId": text(fixed=True),
    "valueSpecs": mapping(fixed=True),
}
