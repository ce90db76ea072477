"""KubeRay's operator on the testbed, where somebody has one: no registry that the build machines reach has it.

DHCTL_TEST_KUBERAY_OPERATOR names the program, DHCTL_TEST_KUBERAY_CRDS the folder with its four definitions
(config/crd/bases of its sources). With both given all suites on the testbed run on it: `kubernetes.ray: auto` takes it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from kubernetes import client
from kubernetes.dynamic import DynamicClient

from testbeds.errors import TestbedError
from testbeds.kubernetes.layout import FABRIC, Layout
from testbeds.services import Service

OPERATOR_ENV, CRDS_ENV = "DHCTL_TEST_KUBERAY_OPERATOR", "DHCTL_TEST_KUBERAY_CRDS"
SERVICE = "kuberay-operator"
ESTABLISHED_S = 60


@dataclass(frozen=True)
class Operator:
    """What was given."""

    program: Path
    definitions: Path

    @classmethod
    def given(cls) -> Self | None:
        """None where the environment names none. Raises TestbedError when it names what is not there."""
        named = [os.environ.get(name, "") for name in (OPERATOR_ENV, CRDS_ENV)]
        if not any(named):
            return None
        program, definitions = map(Path, named)
        if not (os.access(program, os.X_OK) and program.is_file() and list(definitions.glob("ray.io_*.yaml"))):
            told = f"{OPERATOR_ENV}={named[0]} {CRDS_ENV}={named[1]} do not name an operator and its definitions"
            raise TestbedError(f"{told}; set both, or none")
        return cls(program, definitions)

    def service(self, layout: Layout) -> Service:
        """Beside the control plane; watches all namespaces."""
        ports = ("--metrics-addr", "127.0.0.1:8081", "--health-probe-bind-address", "127.0.0.1:8082")
        command = (str(self.program), "--kubeconfig", str(layout.admin_kubeconfig), *ports)
        options = ("--enable-leader-election=false", "--reconcile-concurrency", "4")
        return Service(SERVICE, ("nsenter", f"--net=/run/netns/{FABRIC}", *command, *options), stop_s=0)

    def define(self, admin: client.ApiClient) -> None:
        """Makes the kinds known. Raises TestbedError when the API server does not serve them in time."""
        api = client.ApiextensionsV1Api(admin)
        bodies = [yaml.safe_load(path.read_text()) for path in sorted(self.definitions.glob("ray.io_*.yaml"))]
        crds = DynamicClient(admin).resources.get(
            api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition"
        )
        for body in bodies:  # too large for an annotation: by server-side apply
            crds.server_side_apply(body=body, field_manager="testbed", force_conflicts=True)
        end = time.monotonic() + ESTABLISHED_S
        for name in (body["metadata"]["name"] for body in bodies):
            while not _established(api.read_custom_resource_definition(name).to_dict()):
                if time.monotonic() > end:
                    raise TestbedError(f"{name} is not served after {ESTABLISHED_S} s")
                time.sleep(0.2)


def _established(definition: Mapping[str, Any]) -> bool:
    rows = (definition.get("status") or {}).get("conditions") or ()
    return any(row["type"] == "Established" and row["status"] == "True" for row in rows)
