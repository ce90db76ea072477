"""The OpenStack target: a project of an OpenStack cloud as a place for runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from dhctl.infra import exposure, ssh_tunnel
from dhctl.infra.errors import NotUpError
from dhctl.infra.events import Report
from dhctl.infra.interrupts import Interrupts
from dhctl.infra.ledger import last
from dhctl.infra.node.layout import GCS_PORT
from dhctl.infra.openstack import admission, bring_up, head_loss, inventory, plan, release, troubles
from dhctl.infra.openstack.cloud import CloudError, connect
from dhctl.infra.openstack.head_start import HeadStart
from dhctl.infra.openstack.kinds import Project
from dhctl.infra.openstack.node.rights import ACCESS_RULES
from dhctl.infra.openstack.secrets import HeadSecrets
from dhctl.infra.openstack.section import OpenStackSection
from dhctl.infra.openstack.sweep import Sweep
from dhctl.infra.ray_api import Connection
from dhctl.infra.receipt import Check
from dhctl.infra.record import RunRecord
from dhctl.infra.spec import RunSpec, TargetName
from dhctl.infra.ssh import SshEndpoint
from dhctl.infra.target import PlannedResource, Program, Requirement, StackOutputs

cloud_of = cache(connect)
"""One login a verb and section."""


class OpenStackTarget:
    """Implements `dhctl.infra.target.Target`."""

    name = TargetName.OPENSTACK

    def admit(self, spec: RunSpec) -> list[Requirement]:
        """Credentials, roles, image, flavors, networks, names, quota at least and at most workers."""
        try:
            cloud = cloud_of(spec.openstack)
        except CloudError as error:
            return [Requirement("credentials", "a project to log in to", "none", str(error))]
        return admission.admit(spec, cloud)

    def plan(self, spec: RunSpec) -> list[PlannedResource]:
        """Network, access, credential, head, workers."""
        return plan.resources(spec)

    def program(self, record: RunRecord) -> Program:
        """stacks/openstack/program.py with this run's settings, looked up when it runs."""
        return lambda: self._declare(record)

    @staticmethod
    def _declare(record: RunRecord) -> Mapping[str, object]:
        from dhctl.stacks.openstack.program import declare  # brings in Pulumi, which few verbs need

        found = bring_up.blueprint(record, cloud_of(record.spec.openstack))
        with record.ledger.act("secrets.create"):
            public_key = HeadSecrets.of(record).make_key()
        return declare(found, public_key, ACCESS_RULES, bring_up.user_data_of(record, found.choices))

    def settle(self, spec: RunSpec) -> RunSpec:
        """Nothing is left open."""
        return spec

    def shrink(self, spec: RunSpec) -> tuple[RunSpec, str]:
        """As the quota says now."""
        return admission.shrink(spec, cloud_of(spec.openstack))

    def start(self, record: RunRecord, outputs: StackOutputs, report: Report, interrupts: Interrupts) -> None:
        """The head boots, gets its code and secrets over SSH, and starts Ray."""
        cloud = cloud_of(record.spec.openstack)
        HeadStart(record, cloud, self._endpoint(record, outputs.told), report, interrupts).run(outputs)

    def lost_head(self, record: RunRecord) -> str:
        """Whether the head's server is there."""
        return head_loss.lost_head(self._project(record), str(self._outputs(record)["head_server"]))

    def clear_head(self, record: RunRecord, report: Report) -> None:
        """The servers of head and workers."""
        head_loss.clear_head(record, self._project(record), report)

    def troubles(self, record: RunRecord) -> list[str]:
        """Nova's reasons, and what the head's autoscaler met."""
        found = troubles.of_servers(self._project(record), record.run_id)
        head = self._reachable(record)
        return [*found, *(troubles.of_workers(head) if head else [])]

    def probe_outside(self, record: RunRecord) -> str:
        """Ray's ports at the address from which the head is reached."""
        doors = exposure.require_closed(self.endpoint(record).host, bring_up.CLOSED_PORTS)
        return f"closed to the outside: {', '.join(map(str, doors))}"

    def endpoint(self, record: RunRecord) -> SshEndpoint:
        """The head's floating IP, else its own address."""
        return self._endpoint(record, self._outputs(record))

    @contextmanager
    def connect(self, record: RunRecord) -> Iterator[Connection]:
        """Through an SSH tunnel that ends with the block."""
        outputs, secrets = self._outputs(record), HeadSecrets.of(record)
        if not secrets.token_file.exists():
            raise NotUpError(f"{record.run_id} is not up", f"`dhctl status {record.run_id}` shows what became of it")
        endpoint = self._endpoint(record, outputs)
        with ssh_tunnel.open_tunnel(endpoint, bring_up.forwards(str(outputs["address"]))) as ports:
            yield bring_up.connection(record, str(outputs["address"]), ports)

    def job_environment(self, record: RunRecord) -> Mapping[str, str]:
        """The GCS at the head's own address."""
        return {"RAY_ADDRESS": f"{self._outputs(record)['address']}:{GCS_PORT}"}

    def release_nodes(self, record: RunRecord, report: Report) -> None:
        """The autoscaler is stopped, its credential deleted, then all servers are asked to go."""
        release.release_nodes(record, self._project(record), self._reachable(record), report)

    def collect(self, record: RunRecord) -> None:
        """Logs of the head and of Ray's session on it, over SSH."""
        endpoint = self._reachable(record)
        if endpoint:
            release.collect(record, endpoint)

    def sweep(self, record: RunRecord, report: Report) -> None:
        """All kinds in the order of dependencies; the run's secrets when nothing is left that takes them."""
        project = self._project(record)
        left = Sweep(project, record.run_id, record.ledger, report).run()
        if not left or not release.servers(record, project):
            HeadSecrets.of(record).remove()

    def inventory(self, record: RunRecord) -> list[Check]:
        """The project's own lists, kind by kind, and the run's secrets."""
        reasons = inventory.refusals(record.ledger.entries())
        return [*inventory.look(self._project(record), record.run_id, reasons), HeadSecrets.of(record).look()]

    @staticmethod
    def _project(record: RunRecord) -> Project:
        known = inventory.known_servers(record.run_id, record.ledger.entries())
        return Project(cloud_of(record.spec.openstack), known)

    @staticmethod
    def _outputs(record: RunRecord) -> Mapping[str, object]:
        up = last(record.ledger.entries(), "stack.up", "done")
        if up is None:
            raise NotUpError(f"{record.run_id} is not up", f"`dhctl status {record.run_id}` shows what became of it")
        found: Mapping[str, object] = up.detail["outputs"]
        return found

    @staticmethod
    def _endpoint(record: RunRecord, outputs: Mapping[str, object]) -> SshEndpoint:
        section: OpenStackSection = record.spec.openstack
        secrets = HeadSecrets.of(record)
        return SshEndpoint(
            host=str(outputs.get("floating_ip") or outputs["address"]),
            user=section.user,
            key_file=secrets.key_file,
            known_hosts=secrets.known_hosts,
            alias=record.run_id,
            bastion=section.bastion,
        )

    def _reachable(self, record: RunRecord) -> SshEndpoint | None:
        """The head while its host key is known: before that there was nothing on it, after the end there is nobody."""
        try:
            endpoint = self.endpoint(record)
        except NotUpError:
            return None
        return endpoint if endpoint.known_hosts.exists() else None
