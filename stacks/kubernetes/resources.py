"""The resources of the Kubernetes stack: an object, and the token's secret. Thin: what they do lies in
dhctl.infra.kubernetes.apply.

Pulumi pickles these classes by name into the state and runs them in its plugin process, which is not the client's.
Each create writes its intent to the run's ledger before it acts. Manifests travel as JSON text: Pulumi would make each
whole number a float, which Kubernetes does not take.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, ResourceProvider, UpdateResult

from dhctl.infra.kubernetes import apply
from dhctl.infra.kubernetes.client import Cluster, ClusterApiError, connect
from dhctl.infra.kubernetes.inventory import waited_for
from dhctl.infra.kubernetes.objects import with_content
from dhctl.infra.kubernetes.readiness import address_of, has_address
from dhctl.infra.kubernetes.section import KubernetesSection
from dhctl.infra.ledger import Ledger
from dhctl.infra.record import RunRecord
from dhctl.infra.run_secrets import RunSecrets, store_environment

Props = dict[str, Any]
Manifest = dict[str, Any]

ADDRESS_S = 600.0
"""How long a pod may wait for a node: a cluster may have to start one."""

CREATE, DELETE = "resource.create", "resource.delete"
NEVER_CHANGED = {"Pod"}
"""Kinds that are made anew instead."""

OF_RAY = {"Pod", "RayCluster"}
"""Kinds whose own readiness dhctl waits for outside the stack, where it can tell what happens."""


@dataclass(frozen=True)
class Place:
    """Whose objects they are, and how the cluster is reached."""

    run_id: str
    section: str
    """The spec's, as JSON."""
    ledger: str
    secrets: str
    """The record's folder of secrets."""

    @classmethod
    def of(cls, record: RunRecord) -> Self:
        """A run's."""
        section = record.spec.kubernetes.model_dump_json()
        return cls(record.run_id, section, str(record.ledger.path), str(RunSecrets.of(record).folder))

    def props(self) -> Props:
        """For Pulumi."""
        return {"run_id": self.run_id, "section": self.section, "ledger": self.ledger, "secrets": self.secrets}


class ObjectProvider(ResourceProvider):
    """One object of the cluster."""

    def create(self, props: Props) -> CreateResult:
        """Applies it, and waits until it is ready; the head, until a node has taken it."""
        manifest = json.loads(props["manifest"])
        with Ledger(Path(props["ledger"])).act(CREATE, **_told(manifest)) as outcome:
            found = self._applied(props, manifest)
            outcome["id"] = found["metadata"]["uid"]
        return CreateResult(_id_of(found), {**props, **_outputs(found)})

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        """Another cluster or name makes a new object, as does anything in a pod; all else is applied in place."""
        other = olds["manifest"] != news["manifest"]
        moved = olds["section"] != news["section"] or (other and _needs_new(olds["manifest"], news["manifest"]))
        changed = other or bool(olds.get("drifted"))
        return DiffResult(changes=changed or moved, replaces=["manifest"] if moved else [], delete_before_replace=True)

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        """Applies it as it is now."""
        manifest = json.loads(news["manifest"])
        with Ledger(Path(news["ledger"])).act("resource.update", **_told(manifest)):
            found = self._applied(news, manifest)
        return UpdateResult({**news, **_outputs(found)})

    def read(self, id_: str, props: Props) -> ReadResult:
        """Empty id when it is gone, or another has its name. What others changed in it makes the next `up` apply it."""
        manifest = json.loads(props["manifest"])
        found = apply.read(_cluster(props["section"]), manifest)
        if found is None or found["metadata"]["uid"] != props["uid"]:
            return ReadResult("", props)
        return ReadResult(id_, {**props, **_outputs(found), "drifted": self._drifted(props, manifest)})

    def delete(self, _id: str, props: Props) -> None:
        """Deletes it and waits until it is gone; an object of somebody else that has its name by now stays."""
        manifest, ledger = json.loads(props["manifest"]), Ledger(Path(props["ledger"]))
        wait_s = apply.AGAIN_S if props["uid"] in waited_for(ledger.entries()) else apply.GONE_S
        with ledger.ending(DELETE, **_told(manifest), id=props["uid"]):
            try:
                apply.delete(_cluster(props["section"]), manifest, props["run_id"], wait_s)
            except apply.ForeignObjectError:
                return

    def _drifted(self, props: Props, manifest: Manifest) -> bool:
        """What cannot be compared, in a namespace that is going for example, counts as it was made."""
        if manifest["kind"] in NEVER_CHANGED:
            return False
        try:
            return apply.drifted(_cluster(props["section"]), self._content(props, manifest))
        except (ClusterApiError, OSError):
            return False

    def _applied(self, props: Props, manifest: Manifest) -> Manifest:
        cluster = _cluster(props["section"])
        found = apply.apply(cluster, self._content(props, manifest))
        if manifest["kind"] in OF_RAY:
            return apply.wait_ready(cluster, found, ADDRESS_S, judged=has_address)
        return apply.wait_ready(cluster, found)

    def _content(self, props: Props, manifest: Manifest) -> Manifest:
        """The manifest as it is sent."""
        return manifest


class TokenProvider(ObjectProvider):
    """The secret with Ray's token and the environment of jobs, which never pass through Pulumi."""

    def _content(self, props: Props, manifest: Manifest) -> Manifest:
        token = RunSecrets(Path(props["secrets"])).token_file.read_text().strip()
        section = KubernetesSection.model_validate_json(props["section"])
        return with_content(manifest, token, store_environment(), by_kuberay=section.by_kuberay)


class KubernetesObject(Resource, module="dhctl", name="KubernetesObject"):
    """An object. `address` is the IP of the head, else empty."""

    uid: pulumi.Output[str]
    name: pulumi.Output[str]
    address: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        place: Place,
        manifest: pulumi.Input[Mapping[str, Any]],
        opts: pulumi.ResourceOptions | None = None,
        provider: ResourceProvider | None = None,
    ) -> None:
        text = pulumi.Output.from_input(manifest).apply(lambda body: json.dumps(body, sort_keys=True))
        props = {**place.props(), "manifest": text, "uid": None, "name": None, "address": None, "drifted": None}
        super().__init__(provider or ObjectProvider(), name, props, opts)


class TokenSecret(KubernetesObject, module="dhctl", name="TokenSecret"):
    """The token's secret; its content is nowhere in the stack."""

    def __init__(
        self,
        name: str,
        place: Place,
        manifest: pulumi.Input[Mapping[str, Any]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, place, manifest, opts, TokenProvider())


@cache
def _cluster(section: str) -> Cluster:
    """One client a process and section."""
    return connect(KubernetesSection.model_validate_json(section))


def _needs_new(old: str, new: str) -> bool:
    before, after = json.loads(old), json.loads(new)
    return before["kind"] in NEVER_CHANGED or _told(before) != _told(after)


def _told(manifest: Manifest) -> dict[str, str]:
    return {"kind": manifest["kind"], "name": manifest["metadata"]["name"]}


def _id_of(found: Manifest) -> str:
    metadata = found["metadata"]
    return "/".join(filter(None, (metadata.get("namespace"), found["kind"], metadata["name"])))


def _outputs(found: Manifest) -> Props:
    """Not what the answer holds else: of a secret that would be its content."""
    metadata = found["metadata"]
    return {"uid": metadata["uid"], "name": metadata["name"], "address": address_of(found), "drifted": False}
