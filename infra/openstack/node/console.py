"""The words of a node to whoever reads its console: one line an event, `@dhctl-node {json}`.

Standard library only: the writing half runs at boot, with the system's Python; the reading half at the client.
States, in order: booting, hostkey (key), installing (what), python (path, ray), gpus (want, have), waiting, starting,
ready; or failed (reason, log).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

PREFIX = "@dhctl-node "
CONSOLE = Path("/dev/console")
LOG_LIMIT = 3000
"""Characters of a log that are quoted: consoles keep little."""


class NodeConsole:
    """Writes events of one node."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id

    def tell(self, state: str, **detail: Any) -> None:
        """To stdout, which cloud-init shows on the console as most images are set up, and to the console itself.

        Read twice, an event is the same: its time tells.
        """
        body = {"at": round(time.time(), 3), "node": self._node_id, "state": state, **detail}
        line = f"{PREFIX}{json.dumps(body, separators=(',', ':'))}\n"
        sys.stdout.write(line)
        sys.stdout.flush()
        try:
            with CONSOLE.open("w") as console:
                console.write(line)
        except OSError:
            return  # no console of that name here: stdout is all there is


def console_events(text: str) -> list[dict[str, Any]]:
    """All whole events in a console's text, each once, in order. Torn lines and lines of others are passed over."""
    decoder, found = json.JSONDecoder(), []
    seen: set[str] = set()
    for part in text.replace("\r", "").split(PREFIX)[1:]:
        try:
            body, end = decoder.raw_decode(part)
        except ValueError:
            continue  # torn, or another line was written into it
        if isinstance(body, dict) and isinstance(body.get("state"), str) and part[:end] not in seen:
            seen.add(part[:end])
            found.append(body)
    return found
