"""What only the run's owner may have on OpenStack: also the SSH key to the head, and the credential of the run's nodes.

Through Pulumi only the public half of the key ever leaves the record's folder `secrets/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dhctl.infra.run_secrets import RunSecrets, store_environment, write_new


@dataclass(frozen=True)
class HeadSecrets(RunSecrets):
    """The folder with SSH's files."""

    HOLDS: ClassVar[str] = "key, token, host key"

    @property
    def key_file(self) -> Path:
        """SSH's private key."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The head's host key, as the head published it."""
        return self.folder / "known_hosts"

    def make_key(self) -> str:
        """Draws key and token where they are missing; the public key, as OpenSSH writes it."""
        self.make()
        if not self.key_file.exists():
            write_new(self.key_file, _private_text(Ed25519PrivateKey.generate()))
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


def _private_text(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
