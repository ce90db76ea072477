"""Values that must never be in a crate: what opens the run, the object store, and what this shell calls a secret."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from dhctl.infra.local.layout import RunFolder, scratch_root
from dhctl.infra.record import RunRecord
from dhctl.infra.run_secrets import RunSecrets, store_environment

SECRET_NAME = re.compile(r"(SECRET|TOKEN|PASSW|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_KEY|PRIVATE_KEY)", re.IGNORECASE)
"""Names of variables and settings whose values are secrets."""

SHORTEST = 8
"""A shorter value would be found by chance."""


def secrets_of(record: RunRecord) -> dict[bytes, str]:
    """Each value, as it is and as URLs and base64 write it, with what it is, for people."""
    found: dict[bytes, str] = {}
    for told, value in _values(record):
        plain = value.strip()
        if len(plain) >= SHORTEST:
            for form in (plain, quote(plain, safe=""), b64encode(plain.encode()).decode().rstrip("=")):
                found.setdefault(form.encode(), told)
    return found


def _values(record: RunRecord) -> Iterator[tuple[str, str]]:
    files = [
        *_files(record),
        record.engine_dir / "passphrase",
        RunFolder(scratch_root(record.spec), record.run_id).token,
    ]
    for path in files:
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            yield from ((path.name, line) for line in text.splitlines() if not line.startswith("-----"))
    for environment in (os.environ, store_environment()):
        yield from _named(environment, "")
    job = record.spec.job
    yield from _named(job.runtime_env.get("env_vars", {}), "job.runtime_env.env_vars.")
    yield from _named(job.params, "job.params.")
    yield from _named(record.spec.kubernetes.env, "kubernetes.env.")


def _files(record: RunRecord) -> Iterator[Any]:
    folder = RunSecrets.of(record).folder
    if folder.is_dir():
        yield from folder.rglob("*")


def _named(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """Values whose name says that they are secret."""
    yield from ((f"{prefix}{name}", str(value)) for name, value in values.items() if SECRET_NAME.search(name))
