"""What only the run's owner may have, on every target: Ray's token, and what jobs find of the object store.

Secrets lie in the record's folder `secrets/` (0700, files 0600) while the run lives, and go when it is gone.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from dhctl.infra.receipt import Check, Leftover
from dhctl.infra.record import RunRecord

FORWARDED = "AWS_"
"""Variables of the client's environment that reach the cluster's jobs begin so: the keys of the object store."""

HERE_ONLY = {"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"}
"""Of these, what speaks of files of this machine: the keys in them are sent instead."""


def store_environment() -> dict[str, str]:
    """What jobs find of the object store: this shell's variables, and keys that boto3 finds elsewhere (~/.aws)."""
    env = {k: v for k, v in os.environ.items() if k.startswith(FORWARDED) and k not in HERE_ONLY}
    if "AWS_ACCESS_KEY_ID" in env:
        return env
    import boto3  # half a second

    session = boto3.session.Session()
    found = session.get_credentials()
    if found:
        keys = found.get_frozen_credentials()
        env |= {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key}
        env |= {"AWS_SESSION_TOKEN": keys.token} if keys.token else {}
    if session.region_name:
        env.setdefault("AWS_DEFAULT_REGION", session.region_name)
    return env


@dataclass(frozen=True)
class RunSecrets:
    """The folder."""

    folder: Path

    HOLDS: ClassVar[str] = "token"
    """For people."""

    @classmethod
    def of(cls, record: RunRecord) -> Self:
        """The run's."""
        return cls(record.folder / "secrets")

    @property
    def token_file(self) -> Path:
        """Ray's token."""
        return self.folder / "token"

    def make(self) -> None:
        """Draws the token where it is missing: 256 random bits."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if not self.token_file.exists():
            write_new(self.token_file, secrets.token_hex(32).encode())

    def remove(self) -> None:
        """Deletes the folder; silent when it is gone."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def look(self) -> Check:
        """The receipt's row."""
        left = (Leftover("folder", str(self.folder), f"rm -r {self.folder}"),) if self.folder.exists() else ()
        return Check("secrets of the run", f"{self.folder}: {self.HOLDS}", left)


def write_new(path: Path, content: bytes) -> None:
    """A file that only its owner reads. Raises FileExistsError when there is one."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
