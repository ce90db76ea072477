"""An engine that makes everything at once and only notes what it was asked: Pulumi's own mocks around a program."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi.runtime import MockCallArgs, MockResourceArgs, Mocks, set_mocks
from pulumi.runtime.stack import wait_for_rpcs

from dhctl.infra.target import Program


@dataclass
class Noting(Mocks):
    """An engine that makes everything at once."""

    made: dict[str, MockResourceArgs] = field(default_factory=dict)

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.made[args.name] = args
        told: dict[str, dict[str, Any]] = {
            "head-port": {"allFixedIps": ["10.77.0.5"]},
            "floating-ip": {"address": "198.51.100.9"},
            "credential": {"secret": "narrow"},
        }
        return f"id-{args.name}", {**args.inputs, **told.get(args.name, {})}

    def call(self, args: MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"the program asks the provider for {args.token}")

    def inputs(self, name: str) -> dict[str, Any]:
        return dict(self.made[name].inputs)

    @property
    def names(self) -> set[str]:
        """Of resources, without components, providers and the stack."""
        return {name for name, args in self.made.items() if args.typ.startswith("openstack:")}


@dataclass
class Declared:
    """A stack that was declared: its resources, its exports."""

    noted: Noting
    outputs: dict[str, Any]
    secret: set[str]
    """Names of the secret ones."""


def noted(program: Program) -> Declared:
    """Runs a Pulumi program."""
    loops: list[asyncio.AbstractEventLoop] = []
    try:
        return asyncio.run(_run(program, loops))
    finally:
        for loop in loops:
            loop.close()


async def _run(program: Program, loops: list[asyncio.AbstractEventLoop]) -> Declared:
    """Pulumi's runtime belongs to the event loop and context in which it is set up: each stack has its own.

    Its mocks leave a loop open in each thread that has none; here they find one, in `loops`.
    """

    def give_loop() -> None:
        loops.append(asyncio.new_event_loop())
        asyncio.set_event_loop(loops[-1])

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(8, initializer=give_loop))
    noting = Noting()
    set_mocks(noting, project="dhctl", stack="dh-aaaabbbbcc")
    exported = program()
    await wait_for_rpcs()
    told = {name: pulumi.Output.from_input(value) for name, value in exported.items()}
    secret = {name for name, output in told.items() if await output.is_secret()}
    return Declared(noting, {name: await output.future() for name, output in told.items()}, secret)
