"""dhctl's own folder: run records, Pulumi's state, the engine. Format 1.

<home>/format            {"format": 1}
<home>/runs/<run id>/    one record a run, kept after the run (record.py)
<home>/plugins/          provider plugins of Pulumi, shared by all runs
<home>/engine/           the Pulumi CLI, where dhctl installed it
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from dhctl.infra.errors import DhctlError, StateFolderError

FORMAT = 1
HOME_ENV = "DHCTL_HOME"


def default_root() -> Path:
    """`$DHCTL_HOME`, else the user's data folder of the platform (`~/.local/share/dhctl`)."""
    return Path(os.environ.get(HOME_ENV) or platformdirs.user_data_dir("dhctl")).expanduser().absolute()


@dataclass(frozen=True)
class Home:
    """The folder in which dhctl keeps what must outlive a command."""

    root: Path

    @property
    def runs(self) -> Path:
        """The records of all runs."""
        return self.root / "runs"

    @property
    def plugins(self) -> Path:
        """Pulumi's provider plugins."""
        return self.root / "plugins"

    def check_format(self) -> None:
        """Raises StateFolderError when a newer dhctl wrote this folder. Writes nothing."""
        try:
            written = json.loads((self.root / "format").read_text())["format"]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateFolderError(
                f"{self.root}/format cannot be read ({error})", f"repair it, or set {HOME_ENV} to another folder"
            ) from error
        if written != FORMAT:
            raise StateFolderError(
                f"{self.root} was written by a newer dhctl (format {written}, this one knows {FORMAT})",
                f"upgrade dhctl, or set {HOME_ENV} to another folder",
            )

    def prepare(self) -> None:
        """Makes the folder where it is missing. Raises StateFolderError when it cannot be used."""
        self.check_format()
        with storage_errors(self.root):
            for folder in (self.root, self.runs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (self.root / "format").exists():
                written = self.root / f".format.{os.getpid()}"
                written.write_text(json.dumps({"format": FORMAT}) + "\n")
                written.replace(self.root / "format")
        if not os.access(self.runs, os.W_OK | os.X_OK):
            raise StateFolderError(f"no permission to write in {self.runs}", f"set {HOME_ENV} to a folder of yours")


def nearest_existing(path: Path) -> Path:
    """The path itself, or the lowest folder above it that is there and may be looked at."""
    return next(p for p in (path, *path.parents) if os.path.lexists(p))


@contextmanager
def storage_errors(folder: Path, kind: type[DhctlError] = StateFolderError) -> Iterator[None]:
    """Turns "no space left" and "permission denied" under `folder` into a `kind` with a next step."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise kind(f"no space left under {folder}", "free some, or choose another folder") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise kind(f"cannot write in {folder} ({error.strerror})", "choose a folder of yours") from error
        raise
