"""The SDK's stack without those calls of the CLI whose answers this process knows: each is a process.

After each operation the SDK asks `stack history`, after `up` twice `stack output`, and before a first one it calls
`stack select`, though each command names the stack anyway.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pulumi
from pulumi import automation as auto
from pulumi.automation._stack import StackInitMode  # what Stack takes, and its own module alone has

from dhctl.infra.target import Program


class RunWorkspace(auto.LocalWorkspace):
    """One run's folder. With `trusted`, that its stack is there and whole is found out by the first operation.

    After an operation that failed, `stack select` is worth its time: it tells what is wrong with the state.
    """

    def __init__(self, *, trusted: bool, **options: Any) -> None:
        self._trusted = trusted
        super().__init__(**options)

    def select_stack(self, stack_name: str) -> None:
        """Raises CommandError when there is none and the stack is not trusted to be there."""
        if not self._trusted:
            super().select_stack(stack_name)


class RunStack(auto.Stack):
    """One run's stack. What its program gives as outputs is kept as it becomes known."""

    def __init__(self, name: str, workspace: RunWorkspace, program: Program, *, new: bool) -> None:
        self._kept: dict[str, auto.OutputValue] = {}
        workspace.program = lambda: self._export(program)
        super().__init__(name, workspace, StackInitMode.CREATE if new else StackInitMode.SELECT)

    def outputs(self) -> auto.OutputMap:
        """Of the newest `up` of this object."""
        return self._kept

    def info(self, show_secrets: bool = True) -> auto.UpdateSummary:
        """That the operation ended well, which the SDK asks for when it has; the ledger tells more."""
        return auto.UpdateSummary("update", datetime.now(UTC), "", {}, {}, "succeeded")

    def _export(self, program: Program) -> None:
        self._kept.clear()
        for name, value in program().items():
            pulumi.export(name, self._keeping(name, pulumi.Output.from_input(value)))

    def _keeping(self, name: str, output: pulumi.Output[Any]) -> pulumi.Output[Any]:
        async def keep(value: Any) -> Any:
            self._kept[name] = auto.OutputValue(value, await output.is_secret())
            return value

        return output.apply(keep)
