"""Pulumi's provider protocol (proto/pulumi/provider.proto) over the table of types."""
# ruff: noqa: N802 (the protocol names the methods)

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

from testbeds.openstack.plugin.cloud import ApiError, Cloud, Deadline
from testbeds.openstack.plugin.faults import Faults, Operation
from testbeds.openstack.plugin.fields import check, difference, refreshed_inputs, without_defaults
from testbeds.openstack.plugin.kind import Change, Kind, Making
from testbeds.openstack.plugin.registry import KINDS, VERSION, schema
from testbeds.openstack.plugin.wire import UNKNOWN, Properties, to_python, to_struct

Request = Any
"""One of provider_pb2's, which come without usable annotations."""

_PREFIX = "openstack:config:"


def _kind(urn: str) -> Kind:
    """The type of a URN. Raises ApiError for one that the stand-in does not know."""
    token = urn.split("::")[2].rpartition("$")[2]
    if token not in KINDS:
        raise ApiError(f"the stand-in for the OpenStack plugin does not know the type {token}")
    return KINDS[token]


def _name(urn: str) -> str:
    return urn.rpartition("::")[2]


class StandIn(provider_pb2_grpc.ResourceProviderServicer):
    """The servicer. It keeps nothing but its connection: all else stands in Pulumi's state."""

    def __init__(self) -> None:
        self._cloud = Cloud({})
        self._faults = Faults()

    def Handshake(self, request: Request, context: grpc.ServicerContext) -> Any:
        """No secrets, resources or outputs as typed values."""
        return provider_pb2.ProviderHandshakeResponse()

    def GetPluginInfo(self, request: Request, context: grpc.ServicerContext) -> Any:
        """The version whose place it takes."""
        return plugin_pb2.PluginInfo(version=VERSION)

    def GetSchema(self, request: Request, context: grpc.ServicerContext) -> Any:
        """Made from the table of types."""
        return provider_pb2.GetSchemaResponse(schema=schema())

    def GetMapping(self, request: Request, context: grpc.ServicerContext) -> Any:
        """None: it is no bridge."""
        return provider_pb2.GetMappingResponse()

    def GetMappings(self, request: Request, context: grpc.ServicerContext) -> Any:
        """None: it is no bridge."""
        return provider_pb2.GetMappingsResponse()

    def CheckConfig(self, request: Request, context: grpc.ServicerContext) -> Any:
        """As given."""
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Request, context: grpc.ServicerContext) -> Any:
        """No setting replaces the provider."""
        same = to_python(request.olds) == to_python(request.news)
        word = provider_pb2.DiffResponse.DIFF_NONE if same else provider_pb2.DiffResponse.DIFF_SOME
        return provider_pb2.DiffResponse(changes=word)

    def Configure(self, request: Request, context: grpc.ServicerContext) -> Any:
        """Logs in at the first request only."""
        settings = {name.removeprefix(_PREFIX): value for name, value in request.variables.items()}
        if not any(settings.get(name) or os.environ.get(f"OS_{name.upper()}") for name in ("cloud", "auth_url")):
            _abort(context, "One of 'auth_url' or 'cloud' must be specified")
        self._cloud = Cloud({name: value for name, value in settings.items() if value})
        return provider_pb2.ConfigureResponse(supportsPreview=True)

    def Cancel(self, request: Request, context: grpc.ServicerContext) -> Any:
        """Ends an ordered hang; anything else goes on, as in the official plugin."""
        self._faults.cancelled.set()
        return Empty()

    def Invoke(self, request: Request, context: grpc.ServicerContext) -> Any:
        """dhctl looks things up itself."""
        context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the stand-in has no function {request.tok}")

    def Check(self, request: Request, context: grpc.ServicerContext) -> Any:
        """Defaults and the name."""
        with _errors(context):
            kind = _kind(request.urn)
        news, olds = to_python(request.news), to_python(request.olds)
        inputs, faults = check(kind.fields, news, olds, _name(request.urn), request.randomSeed)
        failures = [provider_pb2.CheckFailure(reason=fault) for fault in faults]
        return provider_pb2.CheckResponse(inputs=to_struct(inputs), failures=failures)

    def Diff(self, request: Request, context: grpc.ServicerContext) -> Any:
        """New inputs with old ones, in which a refresh has noted what it found."""
        with _errors(context):
            kind = _kind(request.urn)
        olds, news = to_python(request.old_inputs), to_python(request.news)
        found = difference(kind.fields, olds, news, request.ignoreChanges)
        details = {}
        for name, word in found.changed.items():
            spelled = f"{word}_REPLACE" if name in found.replacing else word
            details[name] = provider_pb2.PropertyDiff(
                kind=provider_pb2.PropertyDiff.Kind.Value(spelled), inputDiff=True
            )
        named = "name" in news and "name" not in news.get("__defaults", ()) and olds.get("name") == news["name"]
        changes = provider_pb2.DiffResponse.DIFF_SOME if found.changed else provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(
            changes=changes,
            diffs=list(found.changed),
            replaces=list(found.replacing),
            detailedDiff=details,
            hasDetailedDiff=True,
            deleteBeforeReplace=bool(found.replacing) and named,
        )

    def Create(self, request: Request, context: grpc.ServicerContext) -> Any:
        """Makes it; a failure after the id is known leaves it in the state with an error of its initialisation."""
        with _errors(context):
            kind = _kind(request.urn)
        inputs = to_python(request.properties)
        if request.preview:
            outputs = {name: UNKNOWN for name, value in kind.blank(inputs).items() if value is None} | inputs
            return provider_pb2.CreateResponse(id="", properties=to_struct(without_defaults(outputs)))
        making = Making(self._cloud, inputs, Deadline(request.timeout or kind.create_s))
        state = kind.blank(inputs)
        try:
            with self._struck(kind, "create", request.urn):
                kind.create(making)
                state |= making.told_once
                outputs = kind.read(self._cloud, making.id, state) or state
        except ApiError as error:
            if not making.id:
                _abort(context, _listed(error))
            reason = f"creating {request.urn}: {_listed(error)}"
            _abort_half_made(context, making.id, state | {"id": making.id}, inputs, reason)
        return provider_pb2.CreateResponse(id=making.id, properties=to_struct(outputs))

    def Read(self, request: Request, context: grpc.ServicerContext) -> Any:
        """The resource as it is; an empty answer when it is gone."""
        with _errors(context, f"refreshing {request.urn}: "):
            kind = _kind(request.urn)
            inputs, state = to_python(request.inputs), to_python(request.properties)
            with self._struck(kind, "read", request.urn):
                outputs = kind.read(self._cloud, request.id, kind.blank(inputs) | state)
        if outputs is None:
            return provider_pb2.ReadResponse()
        known = inputs or {n: outputs[n] for n in kind.fields if outputs.get(n) not in (None, "", [], {})}
        found = refreshed_inputs(kind.fields, known, outputs, kind.silent)
        return provider_pb2.ReadResponse(id=request.id, properties=to_struct(outputs), inputs=to_struct(found))

    def Update(self, request: Request, context: grpc.ServicerContext) -> Any:
        """Changes it in place."""
        with _errors(context):
            kind = _kind(request.urn)
        news, state = to_python(request.news), to_python(request.olds)
        wanted = state | {
            name: value for name, value in kind.blank(news).items() if value is not None or name in kind.fields
        }
        if request.preview:
            return provider_pb2.UpdateResponse(properties=to_struct(wanted))
        deadline = Deadline(request.timeout or kind.update_s)
        olds = without_defaults(to_python(request.old_inputs))
        change = Change(self._cloud, request.id, state, olds, without_defaults(news), deadline)
        try:
            with self._struck(kind, "update", request.urn):
                kind.update(change)
                outputs = kind.read(self._cloud, request.id, wanted) or wanted
        except ApiError as error:
            _abort_half_made(context, request.id, state, news, f"updating {request.urn}: {_listed(error)}")
        return provider_pb2.UpdateResponse(properties=to_struct(outputs))

    def Delete(self, request: Request, context: grpc.ServicerContext) -> Any:
        """Deletes it and waits."""
        with _errors(context, f"deleting {request.urn}: "):
            kind = _kind(request.urn)
            deadline = Deadline(request.timeout or kind.delete_s)
            with self._struck(kind, "delete", request.urn):
                kind.delete(self._cloud, request.id, to_python(request.properties), deadline)
        return Empty()

    @contextmanager
    def _struck(self, kind: Kind, op: Operation, urn: str) -> Iterator[None]:
        self._faults.strike(kind.token, op, "before", _name(urn))
        yield
        self._faults.strike(kind.token, op, "after", _name(urn))


def _listed(error: ApiError) -> str:
    """As the bridge writes what Terraform reports."""
    return f"1 error occurred:\n\t* {error}\n\n"


@contextmanager
def _errors(context: grpc.ServicerContext, words: str = "") -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        _abort(context, f"{words}{_listed(error)}")


def _abort(context: grpc.ServicerContext, text: str) -> NoReturn:
    context.abort(grpc.StatusCode.UNKNOWN, text)
    raise AssertionError("abort always raises")


def _abort_half_made(
    context: grpc.ServicerContext, id_: str, state: Properties, inputs: Properties, reason: str
) -> NoReturn:
    """Tells the engine that the resource exists, in the way the bridge does."""
    failed = provider_pb2.ErrorResourceInitFailed(
        id=id_, properties=to_struct(state), reasons=[reason], inputs=to_struct(inputs)
    )
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=reason)
    status.details.add().Pack(failed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    _abort(context, reason)
