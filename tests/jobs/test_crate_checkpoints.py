"""A crate takes a checkpoint's digest from the note that the training core writes beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dhctl.infra.crate.checkpoints import CHECKPOINT_NOTE, CHECKPOINT_STATE, stored_models
from dhctl.ray_jobs.training import checkpoint


def test_the_note_is_found(tmp_path: Path) -> None:
    assert (CHECKPOINT_STATE, CHECKPOINT_NOTE) == (checkpoint.STATE_FILE, checkpoint.NOTE_FILE)
    folder = tmp_path / checkpoint.name_of(1)
    folder.mkdir()
    checkpoint.write(folder, {"epochs_done": 1, "samples_seen": 4})
    state = (folder / checkpoint.STATE_FILE).read_bytes()
    (model,) = stored_models(str(tmp_path))
    assert (model.sha256, model.size_bytes) == (hashlib.sha256(state).hexdigest(), len(state))
    (folder / checkpoint.STATE_FILE).write_bytes(b"")  # what is told is the note, which was not read again
    assert stored_models(str(tmp_path))[0].sha256 == model.sha256
