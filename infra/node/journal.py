"""What a head writes down: its part of the ledger, and events that the client may tell its user."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from dhctl.infra.ledger import Ledger
from dhctl.infra.node.layout import NodeFolder


class NodeJournal:
    """Ledger and events of one node. A disk that is full keeps neither the autoscaler nor the lease from working."""

    def __init__(self, folder: NodeFolder) -> None:
        self._folder = folder
        self.ledger = Ledger(folder.ledger)
        folder.logs.mkdir(parents=True, exist_ok=True)
        folder.ledger.touch(mode=0o600)

    def tell(self, kind: str, **detail: Any) -> None:
        """One event: launched, enrolled, joined, left, refused, failed, trouble, ray, lease, api."""
        line = json.dumps({"at": round(time.time(), 3), "kind": kind, **detail}, separators=(",", ":")) + "\n"
        try:
            handle = os.open(self._folder.events, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        except OSError:
            return  # see the class
        try:
            os.write(handle, line.encode())  # one write: lines of several processes do not mix
        except OSError:
            return  # see the class
        finally:
            os.close(handle)
