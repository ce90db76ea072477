"""The resources of the local stack: run folder, token, head node. Thin: what they do lies in dhctl.infra.local.

Pulumi pickles these classes by name into the state and runs them in its plugin process, which is not the client's.
Each create writes its intent to the run's ledger before it acts.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, ResourceProvider

from dhctl.infra.ledger import Ledger
from dhctl.infra.local import head
from dhctl.infra.local.layout import RunFolder
from dhctl.infra.local.nodes import ClusterSettings

Props = dict[str, Any]


def _settings(props: Props) -> ClusterSettings:
    return ClusterSettings.from_dict(props["settings"])


class _LocalProvider(ResourceProvider):
    """A changed setting replaces the resource: nothing of a living cluster is changed in place."""

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        changed = olds["settings"] != news["settings"]
        return DiffResult(changes=changed, replaces=["settings"] if changed else [], delete_before_replace=True)


class RunFolderProvider(_LocalProvider):
    """The folder in which the living cluster keeps its files."""

    def create(self, props: Props) -> CreateResult:
        """Makes and marks the folder."""
        settings = _settings(props)
        with Ledger(settings.ledger_path).act("folder.create", path=str(settings.folder.path)):
            settings.folder.create()
        return CreateResult(settings.run_id, {**props, "path": str(settings.folder.path)})

    def read(self, id_: str, props: Props) -> ReadResult:
        """Empty id when the folder is gone."""
        return ReadResult(id_ if _settings(props).folder.path.is_dir() else "", props)

    def delete(self, _id: str, props: Props) -> None:
        """Removes the folder if it proves to be ours."""
        settings = _settings(props)
        with Ledger(settings.ledger_path).ending("folder.delete", path=str(settings.folder.path)):
            settings.folder.remove()


class TokenSecretProvider(_LocalProvider):
    """Ray's token: 256 random bits in a file that only the user reads."""

    def create(self, props: Props) -> CreateResult:
        """Draws the token."""
        settings, token = _settings(props), secrets.token_hex(32)
        with Ledger(settings.ledger_path).act("token.create", path=str(settings.folder.token)):
            handle = os.open(settings.folder.token, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(token)
        return CreateResult(settings.run_id, {**props, "path": str(settings.folder.token), "token": token})

    def read(self, id_: str, props: Props) -> ReadResult:
        """Empty id when the file is gone."""
        return ReadResult(id_ if _settings(props).folder.token.is_file() else "", props)

    def delete(self, _id: str, props: Props) -> None:
        """Removes the file."""
        _settings(props).folder.token.unlink(missing_ok=True)


class HeadNodeProvider(_LocalProvider):
    """Ray's head and the autoscaler beside it."""

    def create(self, props: Props) -> CreateResult:
        """Starts both; see dhctl.infra.local.head."""
        started = head.start_head(_settings(props))
        outputs = {"address": started.address, "ports": dict(started.ports)}
        return CreateResult(started.node_id, {**props, **outputs})

    def read(self, id_: str, props: Props) -> ReadResult:
        """Empty id when the head is dead."""
        return ReadResult(id_ if head.head_alive(_settings(props)) else "", props)

    def delete(self, _id: str, props: Props) -> None:
        """Stops both, and workers that are left."""
        settings = _settings(props)
        if RunFolder.is_ours(settings.folder):
            head.stop_head(settings)


class RunFolderResource(Resource, module="dhctl", name="RunFolder"):
    """The run folder."""

    path: pulumi.Output[str]

    def __init__(self, name: str, settings: ClusterSettings, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(RunFolderProvider(), name, {"settings": settings.to_dict(), "path": None}, opts)


class TokenSecret(Resource, module="dhctl", name="TokenSecret"):
    """The token; secret in the stack."""

    path: pulumi.Output[str]
    token: pulumi.Output[str]

    def __init__(self, name: str, settings: ClusterSettings, opts: pulumi.ResourceOptions | None = None) -> None:
        secret = pulumi.ResourceOptions(additional_secret_outputs=["token"])
        props = {"settings": settings.to_dict(), "path": None, "token": None}
        super().__init__(TokenSecretProvider(), name, props, pulumi.ResourceOptions.merge(opts, secret))


class HeadNode(Resource, module="dhctl", name="HeadNode"):
    """The head node."""

    address: pulumi.Output[str]
    ports: pulumi.Output[dict[str, int]]

    def __init__(self, name: str, settings: ClusterSettings, opts: pulumi.ResourceOptions | None = None) -> None:
        props = {"settings": settings.to_dict(), "address": None, "ports": None}
        super().__init__(HeadNodeProvider(), name, props, opts)
