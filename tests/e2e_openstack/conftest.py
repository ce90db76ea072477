"""Whole runs on a real OpenStack on this machine."""

from __future__ import annotations

from testbeds.openstack.fixtures import fault_proxy, openstack_cloud, s3_server

__all__ = ["fault_proxy", "openstack_cloud", "s3_server"]
