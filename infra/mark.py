"""The ownership mark: the run id, written on everything a run creates, and read before anything is deleted."""

from __future__ import annotations

import re
import secrets

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
RUN_ID = re.compile(r"dh-[a-z2-7]{10}")

RUN_ENV = "DHCTL_RUN_ID"
"""Environment variable by which a process of a run carries the mark."""


def new_run_id() -> str:
    """`dh-` and 10 random base32 characters (50 bits)."""
    return "dh-" + "".join(secrets.choice(_ALPHABET) for _ in range(10))
