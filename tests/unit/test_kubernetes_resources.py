"""The Kubernetes stack's resources and program, run as Pulumi's plugin process runs them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest

from dhctl.infra.errors import ClusterError
from dhctl.infra.home import Home
from dhctl.infra.kubernetes import apply as applying
from dhctl.infra.kubernetes.apply import ForeignObjectError
from dhctl.infra.kubernetes.client import ClusterApiError
from dhctl.infra.kubernetes.objects import RunObjects
from dhctl.infra.record import RunRecord
from dhctl.infra.run_secrets import RunSecrets
from dhctl.stacks.kubernetes import resources
from dhctl.stacks.kubernetes.program import declare
from dhctl.stacks.kubernetes.resources import ObjectProvider, Place, TokenProvider
from unit.fakes import make_record
from unit.http_kubernetes import HttpKubernetes

Thing = dict[str, Any]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpKubernetes]:
    monkeypatch.setattr(applying, "LOOKS_S", (0.01,))
    monkeypatch.setattr(applying, "GONE_S", 5.0)
    with HttpKubernetes().serving() as server:
        server.log_in(monkeypatch, tmp_path)
        resources._cluster.cache_clear()
        yield server
    resources._cluster.cache_clear()


@pytest.fixture
def run(home: Home) -> RunRecord:
    return make_record(home, target="kubernetes", kubernetes={"image": "ray", "namespace": "lab"})


@pytest.fixture
def made(run: RunRecord) -> RunObjects:
    return RunObjects.of(run)


def props(run: RunRecord, manifest: Thing) -> Thing:
    outputs = dict.fromkeys(("uid", "name", "address", "drifted"))
    return {**Place.of(run).props(), "manifest": json.dumps(manifest), **outputs}


def acts(run: RunRecord) -> list[tuple[str, str, Any]]:
    return [(entry.act, entry.phase, entry.detail.get("name")) for entry in run.ledger.entries()][1:]


def create(run: RunRecord, manifest: Thing, provider: ObjectProvider | None = None) -> Any:
    return (provider or ObjectProvider()).create(props(run, manifest))


def test_an_object_is_made_after_its_intent(server: HttpKubernetes, run: RunRecord, made: RunObjects) -> None:
    found = create(run, made.run_object())
    there = server.get("configmaps", run.run_id)
    assert there
    assert found.id == f"lab/ConfigMap/{run.run_id}"
    assert (found.outs["uid"], found.outs["name"], found.outs["address"]) == (there["metadata"]["uid"], run.run_id, "")
    assert acts(run) == [("resource.create", "intent", run.run_id), ("resource.create", "done", run.run_id)]
    assert run.ledger.entries()[-1].detail["id"] == there["metadata"]["uid"]


def test_a_pod_tells_its_address(server: HttpKubernetes, run: RunRecord, made: RunObjects) -> None:
    outs = create(run, made.head_pod("uid")).outs
    assert outs["address"].startswith("10.244.0.")


def test_a_pod_without_a_node_fails_with_the_schedulers_words(
    server: HttpKubernetes, run: RunRecord, made: RunObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "ADDRESS_S", 0.2)
    condition = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}
    server.new_pods = "Pending"
    server.on_create = lambda thing: thing.update({"status": {"phase": "Pending", "conditions": [condition]}})
    with pytest.raises(ClusterError, match="0/2 nodes are available"):
        create(run, made.head_pod("uid"))
    assert acts(run)[-1] == ("resource.create", "failed", f"{run.run_id}-head")


def test_what_is_refused_is_in_the_ledger(server: HttpKubernetes, run: RunRecord, made: RunObjects) -> None:
    server.forbidden.add(("patch", "services"))
    with pytest.raises(ClusterApiError):
        create(run, made.service("uid"))
    assert "is forbidden" in run.ledger.entries()[-1].detail["reason"]


def test_the_tokens_content_is_sent_and_told_nowhere(
    server: HttpKubernetes, run: RunRecord, made: RunObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the store")
    RunSecrets.of(run).make()
    token = RunSecrets.of(run).token_file.read_text()
    found = create(run, made.token_object("uid"), TokenProvider())
    data = (server.get("secrets", f"{run.run_id}-token") or {})["data"]
    assert base64.b64decode(data["token"]).decode() == token
    assert json.loads(base64.b64decode(data["env.json"]))["AWS_SECRET_ACCESS_KEY"] == "of the store"
    for text in (json.dumps(found.outs), run.ledger.path.read_text()):
        for secret in (token, "of the store"):
            assert secret not in text
            assert base64.b64encode(secret.encode()).decode() not in text


def test_a_changed_object_is_applied_and_a_changed_pod_made_anew(run: RunRecord, made: RunObjects) -> None:
    provider = ObjectProvider()
    before, policy = made.run_object(), props(run, made.network_policy("uid"))
    other = {**before, "data": {"settings.json": "{}"}}
    assert provider.diff("", props(run, before), props(run, before)).changes is False
    result = provider.diff("", props(run, before), props(run, other))
    assert (result.changes, result.replaces) == (True, [])
    assert provider.diff("", {**policy, "drifted": True}, policy).changes
    pod = made.head_pod("uid")
    changed = {**pod, "spec": {**pod["spec"], "priorityClassName": "high"}}
    result = provider.diff("", props(run, pod), props(run, changed))
    assert (result.replaces, result.delete_before_replace) == (["manifest"], True)
    renamed = {**before, "metadata": {**before["metadata"], "name": "other"}}
    assert provider.diff("", props(run, before), props(run, renamed)).replaces == ["manifest"]
    elsewhere = {**props(run, before), "section": "{}"}
    assert provider.diff("", props(run, before), elsewhere).replaces == ["manifest"]


def test_an_update_applies(server: HttpKubernetes, run: RunRecord, made: RunObjects) -> None:
    before = create(run, made.run_object()).outs
    after = props(run, {**made.run_object(), "data": {"settings.json": "{}"}})
    found = ObjectProvider().update("", before, after)
    assert found.outs["uid"] == before["uid"]
    assert (server.get("configmaps", run.run_id) or {})["data"] == {"settings.json": "{}"}


def test_reading_tells_what_is_gone_and_what_others_changed(
    server: HttpKubernetes, run: RunRecord, made: RunObjects
) -> None:
    provider, outs = ObjectProvider(), create(run, made.run_object()).outs
    assert provider.read("id", outs).id == "id"
    assert provider.read("id", outs).outs["drifted"] is False
    server.patch("configmaps", run.run_id, {"data": {"settings.json": "{}"}})
    assert provider.read("id", outs).outs["drifted"] is True
    server.add(made.run_object())
    assert provider.read("id", outs).id == ""
    server.drop("configmaps", run.run_id)
    assert provider.read("id", outs).id == ""


def test_a_pod_that_others_changed_is_not_made_anew(server: HttpKubernetes, run: RunRecord, made: RunObjects) -> None:
    outs = create(run, made.head_pod("uid")).outs
    server.patch("pods", f"{run.run_id}-head", {"metadata": {"labels": {"dhctl/role": "other"}}})
    assert ObjectProvider().read("id", outs).outs["drifted"] is False


def test_deletion_can_be_repeated(server: HttpKubernetes, run: RunRecord, made: RunObjects) -> None:
    outs = create(run, made.run_object()).outs
    for _ in range(2):
        ObjectProvider().delete("id", outs)
    assert server.names("configmaps") == []
    assert acts(run)[-1] == ("resource.delete", "done", run.run_id)
    assert run.ledger.entries()[-1].detail["id"] == outs["uid"]


def test_what_another_made_under_its_name_stays(server: HttpKubernetes, run: RunRecord, made: RunObjects) -> None:
    outs = create(run, made.run_object()).outs
    theirs = made.run_object()
    theirs["metadata"]["labels"] = {}
    server.add(theirs)
    ObjectProvider().delete("id", outs)
    assert server.names("configmaps") == [run.run_id]
    with pytest.raises(ForeignObjectError):
        create(run, made.run_object())


class Mocks(pulumi.runtime.Mocks):
    """Notes each resource with what Pulumi would keep of it."""

    def __init__(self) -> None:
        self.made: dict[str, Thing] = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, Thing]:
        self.made[args.name] = dict(args.inputs)
        manifest = json.loads(args.inputs["manifest"])
        told = {"uid": f"uid of {args.name}", "name": manifest["metadata"]["name"], "address": "10.0.0.1"}
        return args.name, {**args.inputs, **told}

    def call(self, args: pulumi.runtime.MockCallArgs) -> Thing:
        return {}


@pytest.mark.parametrize("namespace", [None, "lab"])
def test_the_program_declares_all_that_the_run_has(namespace: str | None, home: Home) -> None:
    run = make_record(home, target="kubernetes", kubernetes={"image": "ray", "namespace": namespace})
    made, mocks = RunObjects.of(run), Mocks()
    RunSecrets.of(run).make()
    pulumi.runtime.set_mocks(mocks, preview=False)
    outputs: Thing = {}

    @pulumi.runtime.test  # type: ignore[untyped-decorator]
    def declared() -> pulumi.Output[Any]:
        return pulumi.Output.all(**declare(made, run)).apply(outputs.update)

    declared()
    assert outputs == {"namespace": made.namespace, "address": "10.0.0.1"}
    assert set(mocks.made) == {*made.owned("", 0), "run", "token", "head", *([] if namespace else ["namespace"])}
    order = list(mocks.made)
    before_the_lease = {"namespace", "run", "code", "lease-account", "lease-role", "lease-binding"} & set(order)
    assert set(order[: order.index("lease")]) == before_the_lease
    assert order.index("head-role") < order.index("head-binding")
    assert order[-1] == "head"
    for name, kept in mocks.made.items():
        manifest = json.loads(kept["manifest"])
        owners = [owner["uid"] for owner in manifest["metadata"].get("ownerReferences", [])]
        assert owners == ([] if name in ("run", "namespace") else ["uid of run"]), name
    assert RunSecrets.of(run).token_file.read_text() not in json.dumps(
        {name: {k: v for k, v in kept.items() if k != "__provider"} for name, kept in mocks.made.items()}
    )
