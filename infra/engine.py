"""The engine: one run's Pulumi stack, brought up and destroyed. Here, in engine_command.py and engine_stack.py alone is
pulumi.automation imported. The state lies in the run's record (file backend, one folder a run), its secrets under a
passphrase that lies beside it, readable by the user alone.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pulumi import automation as auto
from pulumi.automation.events import EngineEvent, OpType

from dhctl.infra.engine_command import DetachedPulumiCommand
from dhctl.infra.engine_recovery import backend_folder, pulumi_home
from dhctl.infra.engine_stack import RunStack, RunWorkspace
from dhctl.infra.engine_state import BOOK_KEEPING
from dhctl.infra.errors import EngineError
from dhctl.infra.events import Report, ResourceChanged
from dhctl.infra.interrupts import Interrupts
from dhctl.infra.ledger import Phase
from dhctl.infra.mark import RUN_ENV
from dhctl.infra.record import RunRecord
from dhctl.infra.target import Program, StackOutputs

PROJECT = "dhctl"
DESTROY_TRIES = 3
CREATE_PHASES: dict[str, Phase] = {"creating": "intent", "created": "done"}


class Engine:
    """Runs the Pulumi CLI for one run."""

    def __init__(
        self, record: RunRecord, binary: Path, report: Report, python: str, interrupts: Interrupts | None = None
    ) -> None:
        """`binary` is the CLI, `python` the interpreter in which dynamic resources live."""
        self._record, self._binary, self._report = record, binary, report
        self._python, self._interrupts = python, interrupts
        self._errors: list[str] = []

    def up(self, program: Program) -> StackOutputs:
        """Makes what the program declares.

        Raises EngineError with the engine's own words.
        """
        self._prepare()
        return self._made(self._stack(program, new=True, stoppable=True))

    def renew(self, program: Program) -> StackOutputs:
        """Makes again what is gone of a stack that was up, after a look at what is there.

        Raises EngineError with the engine's own words.
        """
        self.refresh()
        return self._made(self._stack(program, new=False, stoppable=True))

    def _made(self, stack: auto.Stack) -> StackOutputs:
        self._errors.clear()
        try:
            result = stack.up(on_event=self._on_event, suppress_progress=True)
        except auto.CommandError as error:
            raise self._failure("bringing up", error) from error
        told = {name: output.value for name, output in result.outputs.items() if not output.secret}
        secret = {name: str(output.value) for name, output in result.outputs.items() if output.secret}
        return StackOutputs(told, secret)

    def destroy(self, between: Callable[[], None] = lambda: None) -> None:
        """Deletes everything in the stack, as often as it takes.

        A failed try is followed by `between`, which may delete what holds a resource and is unknown to the stack, and
        by a refresh, because some providers cannot delete what somebody else deleted already.
        Raises EngineError when the last try fails too, or fails as the one before it did.
        """
        stack = self._stack(dict, new=False, trusted=True)
        told: list[str] | None = None
        for left in reversed(range(DESTROY_TRIES)):
            self._errors.clear()
            try:
                stack.destroy(on_event=self._on_event, suppress_progress=True, continue_on_error=True)
                break
            except auto.CommandError as error:
                if left == 0 or self._errors == told:
                    raise self._failure("destroying", error) from error
                told = list(self._errors)
                between()
                self.refresh()

    def refresh(self) -> None:
        """Compares the state with what is really there, and drops creates that never came to an end.

        Only after a sweep by mark, or before another destroy: what a dropped create made is found by its mark.
        """
        stack = self._stack(dict, new=False)
        try:
            stack.refresh(clear_pending_creates=True, suppress_progress=True)
        except auto.CommandError as error:
            raise self._failure("refreshing", error) from error

    def _prepare(self) -> None:
        plugins = self._record.home.plugins
        for folder in (
            backend_folder(self._record),
            self._record.engine_dir / "logs",
            pulumi_home(self._record),
            plugins,
        ):
            folder.mkdir(parents=True, exist_ok=True)
        if not (pulumi_home(self._record) / "plugins").is_symlink():
            (pulumi_home(self._record) / "plugins").symlink_to(plugins)
        handle = os.open(self._record.engine_dir / "passphrase", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(24))

    def _stack(self, program: Program, *, new: bool, stoppable: bool = False, trusted: bool = False) -> auto.Stack:
        """A stack that is brought up may be asked to stop; taking one down goes on."""
        command = DetachedPulumiCommand(
            self._binary,
            logs=self._record.engine_dir / "logs",
            interrupts=self._interrupts if stoppable else None,
            on_start=lambda verb, process: self._record.ledger.write(
                "engine.process", "note", verb=verb, process=process.to_dict()
            ),
        )
        workspace = RunWorkspace(
            trusted=trusted,
            work_dir=str(self._record.engine_dir),
            pulumi_home=str(pulumi_home(self._record)),
            pulumi_command=command,
            project_settings=auto.ProjectSettings(PROJECT, "python", main=str(Path.cwd())),
            env_vars=self._env(),
        )
        return RunStack(self._record.run_id, workspace, program, new=new)

    def _env(self) -> dict[str, str]:
        return {
            "PULUMI_BACKEND_URL": f"file://{backend_folder(self._record)}",
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(self._record.engine_dir / "passphrase"),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
            "PULUMI_PYTHON_CMD": self._python,
            RUN_ENV: self._record.run_id,
        }

    def _on_event(self, event: EngineEvent) -> None:
        """Called on a thread of the SDK's event server."""
        if event.diagnostic_event and event.diagnostic_event.severity == "error":
            self._errors.append(event.diagnostic_event.message)
        elif event.resource_pre_event:
            self._tell(event.resource_pre_event.metadata, {OpType.CREATE: "creating", OpType.DELETE: "deleting"})
        elif event.res_outputs_event:
            self._tell(event.res_outputs_event.metadata, {OpType.CREATE: "created", OpType.DELETE: "deleted"})
        elif event.res_op_failed_event:
            self._tell(event.res_op_failed_event.metadata, dict.fromkeys(OpType, "failed"))

    def _tell(self, metadata: Any, words: dict[OpType, Any]) -> None:
        """To the user; what comes into being also to the ledger, where the resource itself does not write it."""
        word, kind = words.get(metadata.op), metadata.type
        if not word or kind.startswith(BOOK_KEEPING):
            return
        name, kind_name = metadata.urn.rpartition("::")[2], kind.rpartition(":")[2]
        self._report(ResourceChanged(name, kind_name, word))
        if word in CREATE_PHASES and not kind.startswith("pulumi-python:"):
            self._record.ledger.note("resource.create", CREATE_PHASES[word], kind=kind_name, name=name)

    def _failure(self, doing: str, error: auto.CommandError) -> EngineError:
        said = "; ".join(dict.fromkeys(filter(None, map(clean_message, self._errors))))
        if not said:
            said = clean_message(str(error).rpartition("stderr:")[2]) or "it gave no reason"
        return EngineError(f"Pulumi failed while {doing} the stack: {said}")


_NOISE = re.compile(r"<\{%.*?%\}>|\x1b\[[0-9;]*m")


def clean_message(message: str) -> str:
    """A diagnostic of the engine without colour marks, stack frames and the generic frame around the real reason."""
    text = _NOISE.sub("", message).strip()
    raised = re.findall(r"^(?:[\w.]*\.)?(\w*(?:Error|Exception|Timeout\w*)): (.+)$", text, re.MULTILINE)
    if raised:
        kind, said = raised[-1]
        said = said.partition("Exception calling application: ")[2] or said
        return str(said).strip() if " " in said.strip() else f"{kind}: {said.strip()}"
    text = text.partition("Exception calling application: ")[2] or text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    generic = ("update failed", "resource deletion failed", "resource registration failed")
    return " ".join(line for line in lines if line not in generic)[:600]
