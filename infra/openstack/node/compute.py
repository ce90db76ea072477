"""The servers of one run through nova's API, with the restricted credential of the nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keystoneauth1 import exceptions as auth_errors
from openstack import exceptions as sdk_errors
from openstack.connection import Connection

from dhctl.infra.node.layout import read_json, write_whole
from dhctl.infra.openstack.answers import reason_of, status_of
from dhctl.infra.openstack.mark import Mark
from dhctl.infra.openstack.node.layout import ServerFolder
from dhctl.infra.openstack.node.servers import ComputeError, Server, server_of

MICROVERSION = "2.52"
"""Tags at creation. Every nova since 2017 has it."""

VOLUME_TYPE_MICROVERSION = "2.67"
REQUEST_S = 60.0


class NovaCompute:
    """Compute over openstacksdk."""

    def __init__(self, connection: Connection, run_id: str) -> None:
        self._connection, self._run_id = connection, run_id

    @classmethod
    def here(cls, folder: ServerFolder, run_id: str) -> NovaCompute:
        """With the credential that lies on this node. No call is made yet."""
        return cls(connect(read_json(folder.secrets)["credential"], folder), run_id)

    def servers(self) -> list[Server]:
        """Names of a run begin with its id, which spares the list of a large project; the metadata is the proof."""
        found: list[dict[str, Any]] = []
        params = {"name": f"^{self._run_id}-"}
        while True:
            page = self._call("GET", "/servers/detail", params=params)
            found += page["servers"]
            if not page.get("servers_links"):
                break
            params["marker"] = page["servers"][-1]["id"]
        return [server_of(body) for body in found if self._ours(body)]

    def _ours(self, body: Mapping[str, Any]) -> bool:
        mark = Mark.from_metadata(body.get("metadata"))
        return mark is not None and mark.run_id == self._run_id

    def fault(self, server_id: str) -> str:
        """Lists do not have it: the one server is asked for."""
        told = self._call("GET", f"/servers/{server_id}")["server"].get("fault") or {}
        return str(told.get("message", ""))

    def create(self, body: Mapping[str, Any]) -> str:
        """One POST, never repeated here: one whose answer was lost may have made the server."""
        volumes = body["server"].get("block_device_mapping_v2", ())
        typed = any("volume_type" in volume for volume in volumes)
        microversion = VOLUME_TYPE_MICROVERSION if typed else MICROVERSION
        return str(self._call("POST", "/servers", json=body, microversion=microversion)["server"]["id"])

    def delete(self, server_id: str) -> None:
        """Gone is gone."""
        try:
            self._call("DELETE", f"/servers/{server_id}")
        except ComputeError as error:
            if error.status != 404:
                raise

    def launch_problem(self, vcpus: int, ram_mib: int) -> str:
        """One GET /limits."""
        from dhctl.infra.openstack.quota import launch_problem

        try:
            return launch_problem(self._connection, vcpus, ram_mib, 1)
        except (sdk_errors.SDKException, auth_errors.ClientException) as error:
            raise ComputeError(status_of(error), reason_of(error)) from error

    def _call(self, method: str, path: str, microversion: str = MICROVERSION, **options: Any) -> Any:
        compute: Any = self._connection.compute
        try:
            answer = compute.request(path, method, microversion=microversion, **options)
            sdk_errors.raise_from_response(answer)
            return answer.json() if answer.content else {}
        except (sdk_errors.SDKException, auth_errors.ClientException, ValueError) as error:
            raise ComputeError(status_of(error), reason_of(error)) from error


def connect(credential: Mapping[str, Any], folder: ServerFolder) -> Connection:
    """A connection by the credential alone: neither files nor environment of this node are asked."""
    verify: bool | str = bool(credential.get("verify", True))
    if credential.get("cacert"):
        write_whole(folder.cacert, credential["cacert"].encode(), 0o644)
        verify = str(folder.cacert) if verify else False
    overrides = {f"{kind}_endpoint_override": url for kind, url in (credential.get("endpoint_overrides") or {}).items()}
    return Connection(
        auth_type="v3applicationcredential",
        auth={
            "auth_url": credential["auth_url"],
            "application_credential_id": credential["application_credential_id"],
            "application_credential_secret": credential["application_credential_secret"],
        },
        region_name=credential.get("region_name") or None,
        interface=credential.get("interface") or "public",
        verify=verify,
        api_timeout=REQUEST_S,
        app_name="dhctl",
        **overrides,
    )
