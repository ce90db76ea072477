"""The contract suite runs on every target; those that are clouds need their testbed."""

from __future__ import annotations

from testbeds.openstack.fixtures import openstack_cloud, s3_server

__all__ = ["openstack_cloud", "s3_server"]
