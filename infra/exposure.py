"""Whether a cluster's ports are closed to the outside, tried from here and past any tunnel."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from dhctl.infra.errors import ClusterError

TIMEOUT_S = 3.5
"""A first packet that got lost is sent again after 1 s and 3 s."""

AT_ONCE = 32
_CLOSED = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "refused",
    errno.ETIMEDOUT: "no answer",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EACCES: "unreachable",  # what an ICMP "administratively prohibited" becomes
    errno.EPERM: "unreachable",
}


@dataclass(frozen=True)
class Opening:
    """What one port did with a stranger: "open", "refused", "no answer" or "unreachable"."""

    port: int
    outcome: str

    @property
    def closed(self) -> bool:
        """Whether nobody comes in there from here."""
        return self.outcome != "open"

    def __str__(self) -> str:
        return f"{self.port} ({self.outcome})"

    def to_dict(self) -> dict[str, Any]:
        """For the ledger."""
        return asdict(self)


def probe_closed(host: str, ports: Sequence[int], timeout_s: float = TIMEOUT_S) -> list[Opening]:
    """Tries to connect to each port, on each address of `host`, `timeout_s` for each try. In the order of `ports`.

    A host that cannot be reached from here at all is closed to here; what others reach, this cannot tell.
    Raises ClusterError when the name has no address, or a port could not be tried.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ClusterError(f"the ports of {host} cannot be tried from outside: {error}") from error
    addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
    tries = [(address, port) for port in ports for address in addresses]
    with ThreadPoolExecutor(max_workers=AT_ONCE) as visitors:
        outcomes = list(visitors.map(lambda door: _knock(door[0], door[1], timeout_s), tries))
    width = len(addresses)
    return [Opening(port, _worst(outcomes[width * number : width * (number + 1)])) for number, port in enumerate(ports)]


def require_closed(host: str, ports: Sequence[int], timeout_s: float = TIMEOUT_S) -> list[Opening]:
    """As `probe_closed`; raises ClusterError naming the ports that are open."""
    openings = probe_closed(host, ports, timeout_s)
    wide_open = [str(opening.port) for opening in openings if not opening.closed]
    if wide_open:
        what = f"port{'s' if len(wide_open) > 1 else ''} {', '.join(wide_open)} of {host}"
        raise ClusterError(f"{what} can be entered from outside, past the SSH tunnel", "the run is taken down")
    return openings


def _knock(address: str, port: int, timeout_s: float) -> str:
    try:
        with socket.create_connection((address, port), timeout_s):
            return "open"
    except TimeoutError:
        return "no answer"
    except OSError as error:
        if error.errno in _CLOSED:
            return _CLOSED[error.errno]
        raise ClusterError(f"port {port} of {address} cannot be tried from outside: {error}", "try again") from error


def _worst(outcomes: Iterable[str]) -> str:
    """Of several addresses, the one that is most open."""
    return min(outcomes, key=["open", "refused", "no answer", "unreachable"].index)
