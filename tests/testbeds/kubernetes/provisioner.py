"""Storage on demand: a volume, which is a folder of this machine, for each claim of a storage class of ours; run as

    python3 provisioner.py KUBECONFIG FOLDER

It is a process of the testbed, so it uses nothing but the standard library and Debian's own interpreter. The folder
is seen by all nodes, and everyone may write into it.

Claims of the class of `EXISTING` name in an annotation a folder that is there: pods that must not mount a folder of
the node, as Pod Security wants it, get it by a claim. That folder is never changed here.
"""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import ssl
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

NAME = "dhctl-testbed/folder"
EXISTING = "dhctl-testbed/existing"
PATH = "dhctl-testbed/path"
"""Annotation of a claim: the folder that its volume is to be."""

EVERY_S = 0.5
_CHOSEN = "volume.kubernetes.io/selected-node"
_MADE_BY = "pv.kubernetes.io/provisioned-by"


def to_make(
    claims: Iterable[dict[str, Any]], volumes: Iterable[dict[str, Any]], classes: Iterable[dict[str, Any]], folder: Path
) -> Iterator[dict[str, Any]]:
    """The volumes that claims wait for: at once, or as soon as a node is chosen, as their storage class says."""
    ours = {one["metadata"]["name"]: one for one in classes if one["provisioner"] in {NAME, EXISTING}}
    have = {volume["metadata"]["name"] for volume in volumes}
    for claim in claims:
        meta, spec = claim["metadata"], claim["spec"]
        kind = ours.get(spec.get("storageClassName", ""))
        name = f"pvc-{meta['uid']}"
        if kind is None or spec.get("volumeName") or name in have or "deletionTimestamp" in meta:
            continue
        if kind["volumeBindingMode"] == "WaitForFirstConsumer" and _CHOSEN not in meta.get("annotations", {}):
            continue
        made_by = kind["provisioner"]
        path = str(folder / name) if made_by == NAME else meta.get("annotations", {}).get(PATH)
        if path is None:
            continue
        known = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
        yield {
            "metadata": {"name": name, "annotations": {_MADE_BY: made_by}},
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "persistentVolumeReclaimPolicy": kind["reclaimPolicy"],
                "storageClassName": kind["metadata"]["name"],
                "claimRef": {**known, **{key: meta[key] for key in ("namespace", "name", "uid")}},
                "hostPath": {"path": path, "type": "Directory"},
            },
        }


def to_remove(volumes: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Names of our volumes that nobody claims any more, and that are to go with their claim."""
    for volume in volumes:
        ours = volume["metadata"].get("annotations", {}).get(_MADE_BY) in {NAME, EXISTING}
        gone = volume.get("status", {}).get("phase") == "Released" and "deletionTimestamp" not in volume["metadata"]
        if ours and gone and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
            yield volume["metadata"]["name"]


class Api:
    """The API server of a kubeconfig with everything in it."""

    def __init__(self, kubeconfig: Path) -> None:
        body = json.loads(kubeconfig.read_text())
        cluster, user = body["clusters"][0]["cluster"], body["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile() as pair:  # made for its owner only
            pair.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
            pair.flush()
            self._tls.load_cert_chain(pair.name)
        self._server = urlsplit(cluster["server"])

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer; empty when what was to be made or removed is or is not there already. Raises OSError."""
        host, port = self._server.hostname or "", self._server.port
        connection = http.client.HTTPSConnection(host, port, timeout=10, context=self._tls)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            content = answer.read()
        except http.client.HTTPException as broken:
            raise OSError(str(broken)) from broken
        finally:
            connection.close()
        if answer.status in {404, 409}:
            return {}
        if answer.status >= 300:
            raise OSError(f"{method} {path}: {answer.status} {content[:200].decode(errors='replace')}")
        found: dict[str, Any] = json.loads(content)
        return found


def provide(api: Api, folder: Path) -> None:
    """Makes and removes what is due now. Raises OSError when the API server does not answer as it should."""
    claims = api.ask("GET", "/api/v1/persistentvolumeclaims")["items"]
    volumes = api.ask("GET", "/api/v1/persistentvolumes")["items"]
    classes = api.ask("GET", "/apis/storage.k8s.io/v1/storageclasses")["items"]
    for volume in to_make(claims, volumes, classes, folder):
        if volume["metadata"]["annotations"][_MADE_BY] == NAME:
            place = Path(volume["spec"]["hostPath"]["path"])
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(0o777)
        api.ask("POST", "/api/v1/persistentvolumes", volume)
    for name in to_remove(volumes):
        shutil.rmtree(folder / name, ignore_errors=True)  # a volume of an existing folder has none here
        api.ask("DELETE", f"/api/v1/persistentvolumes/{name}")


def main(kubeconfig: Path, folder: Path) -> None:
    """For ever; an API server that is away comes back."""
    api = Api(kubeconfig)
    while True:
        try:
            provide(api, folder)
        except OSError as trouble:
            sys.stderr.write(f"{trouble}\n")
            sys.stderr.flush()
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
