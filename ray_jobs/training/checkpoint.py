"""Checkpoints: a folder with the state and a note that says its SHA-256, so that half of one is never taken for whole.

The state holds all that makes a resumed training equal to one that never stopped: model, optimizer, samples seen (the
position of the schedule and of the sampler), the random generators of each rank, history, and the best model so far.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dhctl.ray_jobs import report
from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.storage import Store

STATE_FILE = "state.pt"
NOTE_FILE = "checkpoint.json"
FORMAT = 1
"""Raised when a state is laid out differently."""

_NAME = re.compile(r"epoch-(\d{5})-[0-9a-f]{8}")


class BrokenCheckpointError(Exception):
    """A checkpoint is not whole; the text says what is wrong with it."""


@dataclass(frozen=True)
class Found:
    """A checkpoint that was read."""

    name: str
    state: dict[str, Any]


def name_of(epoch: int) -> str:
    """A new name for a checkpoint after this epoch: an epoch that is done again never writes into an older folder."""
    return f"epoch-{epoch:05d}-{uuid.uuid4().hex[:8]}"


def write(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a state and its note into a folder."""
    content = io.BytesIO()
    torch.save(dict(state), content)
    note = {
        "format": FORMAT,
        "sha256": hashlib.sha256(content.getbuffer()).hexdigest(),
        "epochs_done": state["epochs_done"],
        "samples_seen": state["samples_seen"],
    }
    (folder / STATE_FILE).write_bytes(content.getbuffer())
    (folder / NOTE_FILE).write_text(json.dumps(note) + "\n")


def store(folder: Path, into: Store, name: str) -> None:
    """Copy a written checkpoint into a store, its note last."""
    for file in (STATE_FILE, NOTE_FILE):
        into.write(f"{name}/{file}", (folder / file).read_bytes())


def names(in_store: Store) -> list[str]:
    """Names of the checkpoints in a store, whole or not, the newest first."""
    stored = {file.key.rpartition("/")[0]: file.changed for file in in_store.files(deep=True) if "/" in file.key}
    return sorted((name for name in stored if _NAME.fullmatch(name)), key=lambda n: (n[:11], stored[n]), reverse=True)


def remove(in_store: Store, name: str) -> None:
    """Delete a checkpoint."""
    in_store.filesystem.delete_dir(in_store.path(name))


def read(in_store: Store, name: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state of a checkpoint. Raises BrokenCheckpointError, RefusedInputError for another version's."""
    try:
        note = json.loads(in_store.read(f"{name}/{NOTE_FILE}"))
        content = in_store.read(f"{name}/{STATE_FILE}")
    except (FileNotFoundError, ValueError) as error:
        raise BrokenCheckpointError("one of its files is missing or unreadable") from error
    if not isinstance(note, dict) or note.get("sha256") != hashlib.sha256(content).hexdigest():
        raise BrokenCheckpointError("its content is not what its SHA-256 says")
    if note.get("format") != FORMAT:
        raise RefusedInputError(
            f"checkpoint {in_store.url}/{name} was written by another version of dhctl; go on with that one, or give "
            "this training another output"
        )
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    return state


def newest(in_store: Store) -> Found | None:
    """The newest checkpoint that is whole; a warning names each newer one that is not."""
    for name in names(in_store):
        try:
            return Found(name, read(in_store, name))
        except BrokenCheckpointError as error:
            report.warning(
                f"checkpoint {in_store.url}/{name} is not used: {error}; training goes on from the one before"
            )
    return None


def require_same_model(where: str, saved: Mapping[str, Any], built: Mapping[str, Any]) -> None:
    """Raise RefusedInputError unless both state dicts have the same names and shapes."""
    differing = [name for name in sorted({*saved, *built}) if _shape(saved.get(name)) != _shape(built.get(name))]
    if differing:
        first = differing[0]
        raise RefusedInputError(
            f"checkpoint {where} is of another model: {len(differing)} of {len(built)} tensors differ, such as {first} "
            f"({_shape(saved.get(first))} there, {_shape(built.get(first))} here); give this training another output, "
            "or the settings and code that the checkpoint was made with"
        )


def _shape(tensor: torch.Tensor | None) -> str:
    return "none" if tensor is None else "x".join(map(str, tensor.shape)) or "scalar"
