"""All types that the stand-in knows, and its schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from testbeds.openstack.plugin.cinder import Volume
from testbeds.openstack.plugin.fields import Field
from testbeds.openstack.plugin.keystone import ApplicationCredential
from testbeds.openstack.plugin.kind import Kind
from testbeds.openstack.plugin.neutron import Network, SecGroup, SecGroupRule, Subnet
from testbeds.openstack.plugin.neutron_l3 import FloatingIp, FloatingIpAssociate, Router, RouterInterface
from testbeds.openstack.plugin.neutron_port import Port
from testbeds.openstack.plugin.nova import Keypair, ServerGroup
from testbeds.openstack.plugin.nova_server import Instance

NAME, VERSION = "openstack", "5.5.1"
"""The official plugin's, whose place it takes: the engine looks for exactly these."""

DESCRIPTION = "A stand-in of dhctl's tests for the official OpenStack provider: it knows few types, and is not for use"

_ALL: tuple[Kind, ...] = (
    Network(),
    Subnet(),
    SecGroup(),
    SecGroupRule(),
    Port(),
    Router(),
    RouterInterface(),
    FloatingIp(),
    FloatingIpAssociate(),
    Keypair(),
    ServerGroup(),
    Instance(),
    ApplicationCredential(),
    Volume(),
)
KINDS: Mapping[str, Kind] = {kind.token: kind for kind in _ALL}

_TYPES: Mapping[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "whole": {"type": "integer"},
    "flag": {"type": "boolean"},
    "texts": {"type": "array", "items": {"type": "string"}},
    "set": {"type": "array", "items": {"type": "string"}},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
    "object": {"$ref": "pulumi.json#/Any"},
    "objects": {"type": "array", "items": {"$ref": "pulumi.json#/Any"}},
}


def schema() -> str:
    """The package schema, as JSON."""
    return json.dumps(
        {
            "name": NAME,
            "version": VERSION,
            "description": DESCRIPTION,
            "resources": {t: _resource(KINDS[t]) for t in KINDS},
        }
    )


def _resource(kind: Kind) -> dict[str, Any]:
    inputs = {name: _property(field) for name, field in kind.fields.items()}
    computed = {name: {"$ref": "pulumi.json#/Any"} for name in kind.computed}
    required = [name for name, field in kind.fields.items() if field.required]
    return {"inputProperties": inputs, "requiredInputs": required, "properties": inputs | computed}


def _property(field: Field) -> dict[str, Any]:
    return _TYPES[field.shape] | ({"willReplaceOnChanges": True} if field.fixed else {})
