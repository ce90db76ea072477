"""SSH to a node: the one door to import it by. Its rooms: `ssh_client` (commands), `ssh_files`, `ssh_tunnel`."""

from dhctl.infra.ssh_client import (
    HostKeyDiffersError,
    LoginRefusedError,
    SshEndpoint,
    UnreachableError,
    login_line,
    pin_host_key,
    require,
    run,
    ssh_program,
    with_first_login,
)
from dhctl.infra.ssh_files import fetch, push_files
from dhctl.infra.ssh_tunnel import open_tunnel

__all__ = [
    "HostKeyDiffersError",
    "LoginRefusedError",
    "SshEndpoint",
    "UnreachableError",
    "fetch",
    "login_line",
    "open_tunnel",
    "pin_host_key",
    "push_files",
    "require",
    "run",
    "ssh_program",
    "with_first_login",
]
