"""Admission on OpenStack: everything that would fail later, said before the first write, from reads side by side."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from openstack import exceptions as sdk_errors
from openstack.connection import Connection

from dhctl.infra.errors import AdmissionError
from dhctl.infra.openstack.admission_network import network_requirements, reach_requirements
from dhctl.infra.openstack.admission_servers import (
    choose,
    server_requirements,
    volume_requirements,
    zone_requirements,
)
from dhctl.infra.openstack.answers import reason_of
from dhctl.infra.openstack.cloud import cloud_errors
from dhctl.infra.openstack.flavors import Flavors
from dhctl.infra.openstack.quota import ADDRESSES, RESERVED_ADDRESSES, Fit, Quota, demand, fit, read_quotas, unit_of
from dhctl.infra.spec import PHANTOMS, RunSpec
from dhctl.infra.target import Requirement

SERVICES = ("identity", "compute", "image", "network")

COMPUTE_VERSION = (2, 52)
"""The compute API's microversion with which servers are tagged when they are made (Queens, 2018)."""

IDENTITY_VERSION = (3, 13)
"""The identity API with which application credentials have access rules (Train, 2019)."""

READ_ONLY = {"reader", "auditor"}
NOT_TOLD = "not told by the cloud"


def admit(spec: RunSpec, connection: Connection) -> list[Requirement]:
    """All rows of `plan`, problems and warnings in them. Writes nothing. Raises CloudError."""
    entry = [*_login(connection), *_services(connection)]
    basics = [*_storage(spec), *reach_requirements(spec)]
    if any(row.problem for row in entry):
        return [*entry, *basics]
    checks: tuple[Callable[[RunSpec, Connection], Iterable[Requirement]], ...] = (
        _versions,
        _credentials,
        network_requirements,
        zone_requirements,
        volume_requirements,
    )
    with cloud_errors("look at the project"), ThreadPoolExecutor(len(checks) + 2) as pool:
        choices, quotas = pool.submit(choose, spec, connection), pool.submit(read_quotas, connection)
        looks = [pool.submit(_listed, check, spec, connection) for check in checks]
        rows = [row for look in looks for row in look.result()]
        choice, found = choices.result(), quotas.result()
    judged = quota_requirements(spec, choice.flavors, found) if choice.flavors else ()
    return [*entry, *basics, *server_requirements(spec, choice), *rows, *judged]


def _listed(
    check: Callable[[RunSpec, Connection], Iterable[Requirement]], spec: RunSpec, connection: Connection
) -> list[Requirement]:
    return list(check(spec, connection))  # what a generator reads is read in the thread that lists it


def shrink(spec: RunSpec, connection: Connection) -> tuple[RunSpec, str]:
    """The spec with workers.max, and job.workers where it is above, lowered to what fits; and a warning, or "".

    Raises AdmissionError when not even workers.min fits, or a flavor is gone; CloudError.
    """
    with cloud_errors("read the quota"), ThreadPoolExecutor(1) as pool:
        quotas = pool.submit(read_quotas, connection)
        choice, found = choose(spec, connection), quotas.result()
    if choice.flavors is None:
        raise AdmissionError(spec.target.value, [p for p in (choice.worker.problem, choice.head.problem) if p][:1])
    fits = fit(spec, choice.flavors, _with_addresses(spec, found))
    if fits.problems:
        raise AdmissionError(spec.target.value, list(fits.problems.values()))
    if not fits.shortage:
        return spec, ""
    workers = spec.workers.model_copy(update={"max": fits.workers})
    return spec.model_copy(
        update={"workers": workers, "job": spec.job.lowered(fits.workers)}
    ), f"{fits.shortage}; workers.max is lowered to {fits.workers}"


def quota_requirements(spec: RunSpec, flavors: Flavors, quotas: Mapping[str, Quota]) -> list[Requirement]:
    """A row for each quota that the run takes from: refused at workers.min (or one), warned at workers.max. No call."""
    rows = _with_addresses(spec, quotas)
    fits = fit(spec, flavors, rows)
    least, most = demand(spec, flavors, fits.least), demand(spec, flavors, fits.most)
    return list(_quota_rows(fits, rows, least, most))


def _quota_rows(
    fits: Fit, quotas: Mapping[str, Quota], least: Mapping[str, int], most: Mapping[str, int]
) -> Iterator[Requirement]:
    """The warning stands at the first quota that limits; it names them all."""
    warning = f"{fits.shortage}; without --strict workers.max is lowered to {fits.workers}" if fits.shortage else ""
    for kind, need in most.items():
        if not need:
            continue
        wanted = f"{least[kind]} (min) to {need} (max)" if least[kind] != need else str(need)
        wanted += unit_of(kind)
        quota = quotas.get(kind)
        if quota is None:
            yield Requirement(f"quota: {kind}", wanted, NOT_TOLD)
            continue
        limits = bool(warning) and kind in fits.limiting
        yield Requirement(f"quota: {kind}", wanted, quota.told, fits.problems.get(kind, ""), warning if limits else "")
        warning = "" if limits else warning


def _with_addresses(spec: RunSpec, quotas: Mapping[str, Quota]) -> dict[str, Quota]:
    """The run's own subnet limits too."""
    if spec.openstack.network is not None:
        return dict(quotas)
    usable = ipaddress.ip_network(spec.openstack.cidr).num_addresses - RESERVED_ADDRESSES
    return {**quotas, ADDRESSES: Quota(ADDRESSES, usable, 0)}


def _access(connection: Connection) -> Any:
    with cloud_errors("log in"):
        auth: Any = connection.session.auth
        return auth.get_access(connection.session)


def _login(connection: Connection) -> Iterator[Requirement]:
    """Project and roles, from the token."""
    access = _access(connection)
    project, roles = access.project_name or "", sorted(access.role_names or ())
    fix = "set OS_PROJECT_NAME, or project_name in the entry of clouds.yaml"
    told = "" if access.project_id else f"the credentials name no project, so nothing can be made with them; {fix}"
    yield Requirement("project", "one", project or "none", told)
    told = (
        f"your roles in project {project} only read ({', '.join(roles) or 'none'}); ask its owner for the role member"
    )
    able = bool(set(roles) - READ_ONLY) or not access.project_id
    yield Requirement("roles", "member", ", ".join(roles) or "none", "" if able else told)


def _services(connection: Connection) -> Iterator[Requirement]:
    missing = [service for service in SERVICES if not connection.has_service(service)]
    region = connection.config.get_region_name() or "the default region"
    fix = "set OS_REGION_NAME, or region_name in the entry of clouds.yaml"
    told = f"the catalog has no {', '.join(missing)} service in {region}; {fix}" if missing else ""
    yield Requirement("services", ", ".join(SERVICES), f"missing: {', '.join(missing)}" if missing else "all", told)


def _versions(_: RunSpec, connection: Connection) -> Iterator[Requirement]:
    """What nodes and their restricted credential need of the APIs; nothing is said where a service does not tell."""
    for name, service, needed in (
        ("compute API", connection.compute, COMPUTE_VERSION),
        ("identity API", connection.identity, IDENTITY_VERSION),
    ):
        data = service.get_endpoint_data()
        have = (data.max_microversion if name == "compute API" else data.api_version) if data else None
        if have is None:
            continue
        need, told = ".".join(map(str, needed)), ".".join(map(str, have))
        problem = f"the {name} is of version {told} and {need} is needed; this cloud is too old for dhctl"
        problem = f"{problem}, ask its operator for an upgrade"
        yield Requirement(name, need, told, problem if tuple(have) < needed else "")


def _credentials(_: RunSpec, connection: Connection) -> Iterator[Requirement]:
    """Whether the autoscaler's application credential can be made with the ambient credentials."""
    what, need = "application credential", "can be made"
    ambient = getattr(_access(connection), "application_credential_id", None)
    identity: Any = connection.identity
    try:
        known = list(identity.application_credentials(user=connection.current_user_id))
    except sdk_errors.HttpException as error:
        fix = "ask the cloud's operator to permit them to project members"
        told = f"your application credentials cannot be listed, nor made: {reason_of(error)}; {fix}"
        yield Requirement(what, need, "refused", told)
        return
    if ambient is None:
        yield Requirement(what, need, "with your login")
        return
    mine = [credential for credential in known if credential.id == ambient]
    if mine and mine[0].unrestricted:
        yield Requirement(what, need, "with your unrestricted application credential")
        return
    fix = "log in with a password, or with one made by `openstack application credential create --unrestricted`"
    told = f"your credential is itself a restricted application credential, which can make no other; {fix}"
    yield Requirement(what, need, "restricted", told)


def _storage(spec: RunSpec) -> Iterator[Requirement]:
    """Only what is refused (the common admission has the rows): folders of this machine are out of the nodes' reach."""
    told, fix = "not an s3:// URL, and nodes on OpenStack reach nothing else that stays", "set it to s3://BUCKET/PREFIX"
    for what, url, fine in (
        ("output", spec.output, (spec.output or "").startswith("s3://")),
        ("data", spec.data, spec.data in {None, PHANTOMS} or (spec.data or "").startswith("s3://")),
    ):
        if not fine:
            yield Requirement(f"{what} on S3", "s3:// URL", url or "not set", f"{what} is {told}; {fix}")
