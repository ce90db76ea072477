"""Application credentials."""

from __future__ import annotations

from typing import ClassVar

from testbeds.openstack.plugin.cloud import ApiError, Cloud, Deadline
from testbeds.openstack.plugin.fields import Fields, flag, several, text, text_set
from testbeds.openstack.plugin.kind import Kind, Making, given, saying
from testbeds.openstack.plugin.wire import Properties


class ApplicationCredential(Kind):
    """An application credential of the user whose login this is."""

    token = "openstack:identity/applicationCredential:ApplicationCredential"
    official = "openstack_identity_application_credential_v3"
    fields: ClassVar[Fields] = {
        "accessRules": several(
            {"id": text(), "method": text(required=True), "path": text(required=True), "service": text(required=True)},
            fixed=True,
            unordered=True,
        ),
        "description": text(fixed=True),
        "expiresAt": text(fixed=True),
        "name": text(fixed=True),
        "region": text(fixed=True),
        "roles": text_set(fixed=True),
        "secret": text(fixed=True),
        "unrestricted": flag(fixed=True, zero=False),
    }
    computed = ("projectId",)
    silent = ("secret",)

    def create(self, making: Making) -> None:
        cloud, inputs = making.cloud, making.inputs
        body = given(inputs, ("name", "description", "secret"))
        body["unrestricted"] = bool(inputs.get("unrestricted"))
        if inputs.get("expiresAt"):
            body["expires_at"] = inputs["expiresAt"]
        if inputs.get("roles"):
            body["roles"] = [{"name": role} for role in inputs["roles"]]
        if inputs.get("accessRules"):
            names = ("id", "method", "path", "service")
            body["access_rules"] = [given(rule, names) for rule in inputs["accessRules"]]
        with saying(f"Error creating {self.official}"):
            request = {"application_credential": body}
            made = cloud.ask("identity", "POST", self._path(cloud), request, ok=(201,))["application_credential"]
        making.id = made["id"]
        making.told_once = {"secret": made["secret"]}

    def _path(self, cloud: Cloud, id_: str = "") -> str:
        path = f"/users/{cloud.user_id}/application_credentials"
        return f"{path}/{id_}" if id_ else path

    def read(self, cloud: Cloud, id_: str, state: Properties) -> Properties | None:
        try:
            with saying(f"Error retrieving {self.official} {id_}"):
                found = cloud.ask("identity", "GET", self._path(cloud, id_))["application_credential"]
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        rules = found.get("access_rules") or ()
        expires = str(found.get("expires_at") or "")
        return state | {
            "id": id_,
            "accessRules": [{name: rule[name] for name in ("id", "method", "path", "service")} for rule in rules],
            "description": found.get("description") or "",
            "expiresAt": f"{expires.partition('.')[0]}Z" if expires else "",
            "name": found["name"],
            "projectId": found["project_id"],
            "region": state.get("region") or cloud.region,
            "roles": sorted(role["name"] for role in found["roles"]),
            "unrestricted": bool(found["unrestricted"]),
        }

    def delete(self, cloud: Cloud, id_: str, state: Properties, deadline: Deadline) -> None:
        """With its access rules, but those that another credential uses too (403) or that are gone (404)."""
        try:
            with saying(f"Error deleting {self.official} {id_}"):
                cloud.ask("identity", "DELETE", self._path(cloud, id_))
        except ApiError as error:
            if error.status != 404:
                raise
        for rule in state.get("accessRules") or ():
            try:
                cloud.ask("identity", "DELETE", f"/users/{cloud.user_id}/access_rules/{rule['id']}")
            except ApiError as error:
                if error.status not in (403, 404):
                    raise ApiError(
                        f'failed to delete "{rule["id"]}" access rule from the "{id_}" application credential: {error}'
                    ) from error
