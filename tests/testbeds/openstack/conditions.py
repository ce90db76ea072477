"""States that a test puts the cloud into, and that end with the `with` block."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import yaml
from openstack.connection import Connection

from testbeds.openstack.layout import PROJECT, Layout


@contextmanager
def site_policy(layout: Layout, service: Literal["compute", "network"], rules: dict[str, str]) -> Iterator[None]:
    """oslo.policy rules on top of the service's own, say {"delete_floatingip": "rule:admin_only"}; `!` forbids to all.

    The services read the file at the next request: nothing is restarted.
    """
    path = layout.etc / f"{service}-policy.yaml"
    before = path.read_text()
    try:
        _replace(path, yaml.safe_dump(rules))
        yield
    finally:
        _replace(path, before)


def floating_ips_stay(layout: Layout) -> Any:
    """The site's policy lets a member make floating IPs, but not delete them."""
    return site_policy(layout, "network", {"delete_floatingip": "rule:admin_only"})


@contextmanager
def quota(admin: Connection, service: Literal["compute", "network"], **limits: int) -> Iterator[None]:
    """Quota of the project demo by the names that the service uses (instances, cores, ram; floatingip, port, ...)."""
    identity: Any = admin.identity  # typed as version 2 or 3
    project = identity.find_project(PROJECT, ignore_missing=False)
    api = admin.compute if service == "compute" else admin.network
    path = f"/os-quota-sets/{project.id}" if service == "compute" else f"/quotas/{project.id}"
    key = "quota_set" if service == "compute" else "quota"

    def put(values: dict[str, int]) -> None:
        answer = api.put(path, json={key: values})
        assert answer.ok, answer.text

    have = api.get(path).json()[key]
    put(limits)
    try:
        yield
    finally:
        put({name: have[name] for name in limits})


def _replace(path: Any, text: str) -> None:
    """A new file under the old name, later in time: no service reads half of one, and each sees the change."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    now = max(path.stat().st_mtime_ns + 1_000_000, draft.stat().st_mtime_ns)
    os.utime(draft, ns=(now, now))
    draft.rename(path)
