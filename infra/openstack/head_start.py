"""The head from its first boot to a Ray that answers: its console is read through the cloud's API, its host key pinned
from there, and then it gets code and secrets over SSH.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from openstack.connection import Connection as Cloud

from dhctl.infra import ssh
from dhctl.infra.errors import ClusterError
from dhctl.infra.events import Noted, Report
from dhctl.infra.interrupts import Interrupts
from dhctl.infra.openstack.cloud import RAISED, cloud_errors, node_access
from dhctl.infra.openstack.node.console import PREFIX
from dhctl.infra.openstack.secrets import HeadSecrets
from dhctl.infra.openstack.userdata import CODE_PATH, SECRETS_PATH, code_tar, console_events
from dhctl.infra.record import RunRecord
from dhctl.infra.ssh import SshEndpoint
from dhctl.infra.target import StackOutputs

BOOT_S = 1200.0
"""From the server's start to a Ray that answers: an image without Ray installs it in this time."""

LOGIN_S = 120.0
"""The host key may stand on the console a little before sshd takes logins."""

LOOK_EVERY_S = 0.3
QUOTED_LINES = 12


def _quiet(event: Mapping[str, Any]) -> bool:
    """What is for dhctl, not for its user: the host key, and GPUs where none are wanted."""
    return event["state"] == "hostkey" or (event["state"] == "gpus" and not event.get("want"))


class HeadStart:
    """Follows one head to its end state."""

    def __init__(
        self, record: RunRecord, cloud: Cloud, endpoint: SshEndpoint, report: Report, interrupts: Interrupts
    ) -> None:
        self._record, self._cloud, self._endpoint = record, cloud, endpoint
        self._report, self._interrupts = report, interrupts
        self._console, self._shown = "", set[tuple[object, ...]]()
        self._end = time.monotonic() + BOOT_S

    def run(self, outputs: StackOutputs) -> None:
        """Returns when Ray answers on the head. Raises ClusterError with the node's own words when it does not."""
        server = str(outputs.told["head_server"])
        with self._record.ledger.act("head.boot", server=server):
            key = str(self._await(server, "hostkey")["key"])
            ssh.pin_host_key(self._endpoint.known_hosts, self._endpoint.alias, key)
        with self._record.ledger.act("head.ray", server=server):
            self._push(outputs.secret, outputs.told)
            self._await(server, "ready")

    def _push(self, secret: Mapping[str, str], told: Mapping[str, Any]) -> None:
        """Code first: the head goes on when the secrets are there. Until then it looks for a Python with Ray."""
        credential = {
            **node_access(self._cloud),
            "application_credential_id": told["credential_id"],
            "application_credential_secret": secret["credential_secret"],
        }
        files = {CODE_PATH: code_tar(), SECRETS_PATH: HeadSecrets.of(self._record).for_nodes(credential)}
        push = partial(ssh.push_files, self._endpoint, files)
        ssh.with_first_login(push, LOGIN_S, self._interrupts.check)

    def _await(self, server: str, state: str) -> Mapping[str, Any]:
        """The first event of this state."""
        while True:
            self._interrupts.check()
            self._read(server)
            events = console_events(self._console)
            self._tell(events)
            by_state: dict[str, Mapping[str, Any]] = {event["state"]: event for event in reversed(events)}
            if "failed" in by_state:
                failed = by_state["failed"]
                raise ClusterError(f"the head did not start: {failed['reason']}", self._quote(failed.get("log")))
            if state in by_state:
                return by_state[state]
            if time.monotonic() > self._end:
                told = f"the head was not '{state}' {BOOT_S:.0f} s after its boot"
                raise ClusterError(told, self._quote(None))
            time.sleep(LOOK_EVERY_S)

    def _read(self, server: str) -> None:
        """A console that cannot be read now is read again; a server that is in error says why."""
        try:
            self._console = str(self._cloud.compute.get_server_console_output(server)["output"])
            return
        except RAISED:
            with cloud_errors("look at the head's server"):
                found = self._cloud.compute.get_server(server)
        if found.status == "ERROR":
            reason = (found.fault or {}).get("message", "the cloud gives no reason")
            raise ClusterError(f"the head's server is in error: {reason}", "ask the cloud's operator, or try again")

    def _tell(self, events: list[dict[str, Any]]) -> None:
        """Each once: of a long console nova gives the end only, so places in it mean nothing."""
        for event in events:
            key = (event.get("at"), event["state"], event.get("what"))
            if not _quiet(event) and key not in self._shown:
                detail = event.get("what") or event.get("ray") or event.get("reason") or ""
                self._report(Noted(f"head {event['state']} {detail}".rstrip()))
            self._shown.add(key)

    def _quote(self, log: object) -> str:
        text = str(log or "") or self._console
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith(PREFIX)][-QUOTED_LINES:]
        kept = self._record.logs_dir / "head-console.log"
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(self._console)
        return f"its console ends (all of it: {kept}):\n    " + "\n    ".join(lines)
