"""What only the run's owner may have: the SSH key to the head, Ray's token, and the credential of the run's nodes.

They lie in the record's folder `secrets/` (0700, files 0600) while the run lives, and go when the head is gone. Through
Pulumi only the public half of the key ever leaves it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

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

    @classmethod
    def of(cls, record: RunRecord) -> RunSecrets:
        """The run's."""
        return cls(record.folder / "secrets")

    @property
    def key_file(self) -> Path:
        """SSH's private key."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The head's host key, as the head published it."""
        return self.folder / "known_hosts"

    @property
    def token_file(self) -> Path:
        """Ray's token."""
        return self.folder / "token"

    def make(self) -> str:
        """Draws key and token where they are missing; the public key, as OpenSSH writes it."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if not self.key_file.exists():
            drawn = Ed25519PrivateKey.generate()
            _write(self.key_file, _private_text(drawn))
        if not self.token_file.exists():
            _write(self.token_file, secrets.token_hex(32).encode())
        key = serialization.load_ssh_private_key(self.key_file.read_bytes(), None)
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return public.decode()

    def for_nodes(self, credential: Mapping[str, Any]) -> bytes:
        """What the nodes get over SSH, as secrets.json."""
        body = {
            "token": self.token_file.read_text().strip(),
            "credential": dict(credential),
            "env": store_environment(),
        }
        return json.dumps(body).encode()

    def remove(self) -> None:
        """Deletes the folder; silent when it is gone."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def look(self) -> Check:
        """The receipt's row."""
        left = (Leftover("folder", str(self.folder), f"rm -r {self.folder}"),) if self.folder.exists() else ()
        return Check("secrets of the run", f"{self.folder}: key, token, host key", left)


def _private_text(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
