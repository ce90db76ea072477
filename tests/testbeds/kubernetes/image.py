"""The pods' image from Debian's packages, and containerd's store of it: in the cache, linked into every node."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from testbeds.errors import TestbedError
from testbeds.kubernetes.layout import IMAGE, PAUSE_IMAGE
from testbeds.kubernetes.programs import SOURCES, programs, remove_old
from testbeds.services import PATH

SUITE = "bookworm"
"""Its python3 is 3.11: a virtual environment of this machine with the same Python runs in it."""
MIRROR = "http://deb.debian.org/debian"
INCLUDE = ("ca-certificates", "libssl3", "procps", "python-is-python3", "python3")
USER_ID = 1000
DEBOOTSTRAP_LIMIT_S = 1200
IMPORT_LIMIT_S = 600
_EMPTIED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/locale", "usr/share/man")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FORMAT = 1
"""To be raised when anything below changes what is in the image."""


def stamp() -> str:
    """Changes with what is in the images: another stamp, another store."""
    pause = (SOURCES / "pause" / "pause.c").read_bytes()
    parts = (_FORMAT, SUITE, INCLUDE, USER_ID, IMAGE, PAUSE_IMAGE, pause)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def store(cache: Path) -> Path:
    """The root folder of a containerd that has the images, there or not."""
    return cache / f"images-{stamp()}"


def make_store(cache: Path, say: Callable[[str], None]) -> bool:
    """Makes the images and the store, unless they are there; whether it did. Raises TestbedError."""
    place = store(cache)
    if place.exists():
        return False
    with tempfile.TemporaryDirectory(prefix=".images-", dir=cache) as name:
        work = Path(name)
        root = work / "root"
        _make_root(root, cache / "image.log")
        say("root file system made")
        archives = [work / "image.tar", work / "pause.tar"]
        write_archive(root, IMAGE, archives[0], {"Cmd": ["bash"]})
        shutil.rmtree(root)
        pause = work / "pause"
        pause.mkdir()
        shutil.copy(programs(cache) / "pause", pause)
        write_archive(pause, PAUSE_IMAGE, archives[1], {"Entrypoint": ["/pause"]})
        _import(work, archives, cache / "image.log")
        say("images imported")
        (work / "store").rename(place)
    remove_old(cache, "images-*")
    return True


def link_store(cache: Path, place: Path) -> None:
    """A containerd's root folder with the images in it. Files are shared with the cache, but not the databases."""

    def copy(source: str, target: str) -> None:
        if not source.endswith(".db"):
            try:
                os.link(source, target, follow_symlinks=False)
            except OSError:  # another file system, or one without links
                pass
            else:
                return
        shutil.copy2(source, target, follow_symlinks=False)

    shutil.copytree(store(cache), place, symlinks=True, copy_function=copy)


def write_archive(root: Path, name: str, out: Path, config: Mapping[str, Any]) -> None:
    """An OCI archive of one layer, which is the folder `root` as it is."""
    layer = out.with_suffix(".layer")
    options = ("--numeric-owner", "--sort=name", "--mtime=@0")
    subprocess.run(("tar", *options, "-C", root, "-cf", layer, "."), check=True, timeout=IMPORT_LIMIT_S)
    with layer.open("rb") as stream:
        layer_digest = hashlib.file_digest(stream, "sha256").hexdigest()
    blobs: dict[str, bytes] = {}

    def add(content: Any) -> dict[str, Any]:
        body = json.dumps(content).encode()
        digest = hashlib.sha256(body).hexdigest()
        blobs[digest] = body
        return {"digest": f"sha256:{digest}", "size": len(body)}

    image = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": [_PATH], **config},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
    }
    kind = "application/vnd.oci.image"
    described = {"mediaType": f"{kind}.layer.v1.tar", "digest": f"sha256:{layer_digest}", "size": layer.stat().st_size}
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": {"mediaType": f"{kind}.config.v1+json", **add(image)},
        "layers": [described],
    }
    entry = {
        "mediaType": f"{kind}.manifest.v1+json",
        **add(manifest),
        "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rsplit(":", 1)[-1]},
    }
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        **{f"blobs/sha256/{digest}": body for digest, body in blobs.items()},
    }
    with tarfile.open(out, "w") as archive:
        for path, body in files.items():
            header = tarfile.TarInfo(path)
            header.size = len(body)
            archive.addfile(header, io.BytesIO(body))
        archive.add(layer, f"blobs/sha256/{layer_digest}")
    layer.unlink()


def _make_root(root: Path, log: Path) -> None:
    debootstrap = ("debootstrap", "--variant=minbase", f"--include={','.join(INCLUDE)}", SUITE, str(root), MIRROR)
    _run(debootstrap, log, DEBOOTSTRAP_LIMIT_S)
    _run(("chroot", str(root), "useradd", "--uid", str(USER_ID), "--create-home", "--shell", "/bin/bash", "user"), log)
    for name in _EMPTIED:
        for path in (root / name).iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    # A container's layer starts empty: what is not compiled here would be compiled at each start.
    _run(("chroot", str(root), "python3", "-m", "compileall", "-q", "/usr/lib/python3", "/usr/lib/python3.11"), log)
    # Python of this machine's root is mounted under it (project.py), and must be found by others.
    (root / "root").chmod(0o755)
    (root / "etc" / "resolv.conf").write_text("")
    (root / "etc" / "hostname").write_text("")


def _import(work: Path, archives: Sequence[Path], log: Path) -> None:
    """A containerd without any plugin for Kubernetes unpacks them into `work/store`."""
    socket = work / "containerd.sock"
    config = work / "containerd.toml"
    config.write_text(
        f'version = 2\nroot = "{work}/store"\nstate = "{work}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\n  address = "{socket}"\n[plugins."io.containerd.internal.v1.opt"]\n  path = "{work}/opt"\n'
    )
    with log.open("ab") as out:
        daemon = subprocess.Popen(
            ("unshare", "--mount", "--propagation", "private", "containerd", "-c", str(config)),
            env={"PATH": PATH},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 60
        while not socket.exists() and daemon.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        for archive in archives:
            client = ("ctr", "--address", str(socket), "--namespace", "k8s.io")
            _run((*client, "images", "import", str(archive)), log, IMPORT_LIMIT_S)
    finally:
        daemon.terminate()
        daemon.wait(30)


def _run(command: Sequence[str], log: Path, limit_s: float = 300) -> None:
    """In a mount namespace of its own: what debootstrap mounts goes with it."""
    with log.open("ab") as out:
        try:
            done = subprocess.run(
                ("unshare", "--mount", "--propagation", "private", *command),
                env={"PATH": PATH, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise TestbedError(f"{command[0]} took longer than {limit_s:.0f} s; look into {log}") from late
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise TestbedError(f"{command[0]} failed (exit {done.returncode}); mend this and try again:\n{tail}")
