"""What a server of a run is given at its boot, and what is pushed to the head after: the client's side, and for workers
the head's. Standard library only.

User data is cloud-config that writes a zip file of the boot modules and `node.json` and runs the zip file with the
system's Python. It holds no secret: it stands in Pulumi's state, and everybody on the node can read it.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from dhctl.infra.node import layout
from dhctl.infra.node.stop import STOP_MODULE
from dhctl.infra.openstack.node.console import console_events
from dhctl.infra.openstack.node.settings import NodeSettings
from dhctl.infra.openstack.requirements import requirements_for

__all__ = [
    "CODE_PATH",
    "LOG_FOLDERS",
    "SECRETS_PATH",
    "STOP_AUTOSCALER",
    "code_tar",
    "console_events",
    "head_user_data",
    "requirements_for",
    "worker_user_data",
]

LIMIT_BYTES = 60_000
"""Nova takes 65535 bytes in base64 form; what is sent is encoded once more."""

SECRETS_PATH = f"{layout.HOME}/secrets.json"
CODE_PATH = f"{layout.HOME}/code.tar"
LOG_FOLDERS = (f"{layout.HOME}/log", f"{layout.HOME}/ray/session_latest/logs")
"""What is worth copying from a head: dhctl's own logs, journal and events; Ray's logs."""

BOOT_PATH = f"{layout.HOME}/boot.pyz"
STOP_AUTOSCALER = f"sudo -n env PYTHONPATH={BOOT_PATH} python3 -m {STOP_MODULE}"
"""Over SSH: ends the autoscaler and keeps anything new from starting. Can be repeated, also before the agent runs."""

BOOT_MODULES = {
    "node": ("layout", "stop"),
    "openstack/node": ("boot", "console", "gpus", "layout", "package_index", "python_for_ray", "settings"),
}
"""By folder of dhctl.infra."""

BOOT_MAIN = "import sys\nfrom dhctl.infra.openstack.node.boot import main\nsys.exit(main())\n"
BOOT_FOLDERS = ("dhctl", "dhctl/infra", "dhctl/infra/node", "dhctl/infra/openstack", "dhctl/infra/openstack/node")
LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The zip file's times: equal settings give equal user data, else Pulumi would make the server anew."""

INFRA = Path(layout.__file__).resolve().parents[1]


def head_user_data(settings: NodeSettings) -> str:
    """The head's cloud-config. Raises ValueError when it is too large for nova."""
    return _user_data(settings)


def worker_user_data(settings: NodeSettings) -> str:
    """A worker's cloud-config, from `NodeSettings.for_worker`. Raises ValueError when it is too large for nova."""
    return _user_data(settings)


def _user_data(settings: NodeSettings) -> str:
    """JSON is YAML: nothing needs quoting. The journal's folder is made by the boot itself."""
    node = json.dumps(settings.to_dict(), sort_keys=True).encode()
    body = {
        "write_files": [
            _file(BOOT_PATH, boot_archive(), "0700"),
            _file(f"{layout.HOME}/node.json", node, "0600"),
        ],
        "runcmd": [["python3", "-u", BOOT_PATH]],
    }
    text = "#cloud-config\n" + json.dumps(body, sort_keys=True) + "\n"
    if len(base64.b64encode(text.encode())) > LIMIT_BYTES:
        raise ValueError(f"user data of {settings.node_id} has {len(text)} bytes, too many for nova")
    return text


def _file(path: str, content: bytes, mode: str) -> dict[str, str]:
    encoded = base64.b64encode(content).decode()
    return {"path": path, "permissions": mode, "owner": "root:root", "encoding": "b64", "content": encoded}


def boot_archive() -> bytes:
    """The boot modules as a zip file that Python runs; the same bytes for the same modules."""
    files = {f"{folder}/__init__.py": b"" for folder in BOOT_FOLDERS} | {"__main__.py": BOOT_MAIN.encode()}
    for folder, modules in BOOT_MODULES.items():
        for module in modules:
            files[f"dhctl/infra/{folder}/{module}.py"] = (INFRA / folder / f"{module}.py").read_bytes()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for name, content in sorted(files.items()):
            packed.writestr(zipfile.ZipInfo(name, LONG_AGO), content, zipfile.ZIP_DEFLATED, 9)
    return target.getvalue()


def code_tar() -> bytes:
    """dhctl.infra as a compressed tar file, for PYTHONPATH: what the head's and workers' processes run from.

    The same bytes for the same modules.
    """
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as packed:
        for path in sorted(INFRA.rglob("*.py")):
            name = PurePosixPath("dhctl/infra") / path.relative_to(INFRA).as_posix()
            member = tarfile.TarInfo(str(name))
            content = path.read_bytes()
            member.size, member.mode = len(content), 0o644
            packed.addfile(member, io.BytesIO(content))
    return gzip.compress(target.getvalue(), 6, mtime=0)
