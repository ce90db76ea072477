"""The end of a lease: deletes the run's own object, and the cluster's garbage collector all that it owns.

    python lease.py RUN      (or python -c <this file> RUN, in a pod of the run's CronJob)

By the service account of its pod; standard library only. It waits for nothing but a server in trouble.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
import time
from pathlib import Path
from typing import Any

ACCOUNT, ACCOUNT_ENV = "/var/run/secrets/kubernetes.io/serviceaccount", "DHCTL_SERVICE_ACCOUNT"
EXPIRES_LABEL = "dhctl/expires"
PATIENCE_S, PAUSE_S, REQUEST_S = 300.0, 5.0, 20.0


class TroubleError(Exception):
    """The API server did not answer, or not as it should; `passes` when it may answer later."""

    def __init__(self, reason: str, passes: bool = True) -> None:
        super().__init__(reason)
        self.passes = passes


class Server:
    """The API server around this pod. Its token is read for each call: it is renewed now and then."""

    def __init__(self, account: Path) -> None:
        self._account = account
        self._namespace = (account / "namespace").read_text().strip()
        self._host, self._port = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])

    def call(self, method: str, run: str, body: Any = None) -> dict[str, Any] | None:
        """One call on the run's object; None when there is none. Raises TroubleError."""
        path = f"/api/v1/namespaces/{self._namespace}/configmaps/{run}"
        try:
            headers = {"Authorization": f"Bearer {(self._account / 'token').read_text().strip()}"}
            trust = ssl.create_default_context(cafile=str(self._account / "ca.crt"))
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=REQUEST_S, context=trust)
            try:
                content = json.dumps(body) if body else None
                connection.request(method, path, content, {**headers, "Content-Type": "application/json"})
                answer = connection.getresponse()
                status, told = answer.status, answer.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise TroubleError(f"the API server cannot be reached: {error}") from error
        if status == 404:
            return None
        if not 200 <= status < 300:
            passes = status >= 500 or status in (409, 429)  # 409: another object since it was read
            raise TroubleError(f"the API server answers {status}: {told[:300].decode(errors='replace')}", passes)
        found: dict[str, Any] = json.loads(told)
        return found


def end(server: Server, run: str) -> str:
    """One try; what came of it. Raises TroubleError."""
    found = server.call("GET", run)
    if found is None:
        return f"run {run} is gone"
    metadata = found["metadata"]
    expires = str((metadata.get("labels") or {}).get(EXPIRES_LABEL, ""))
    left_s = int(expires) - time.time() if expires.isdigit() else 0
    if left_s > 0:
        return f"run {run} is not over: its lease has {left_s:.0f} s left"
    body = {"propagationPolicy": "Foreground", "preconditions": {"uid": metadata["uid"]}}
    if server.call("DELETE", run, body) is None:
        return f"run {run} is gone"
    return f"run {run} is over: its object is being deleted, and all that it owns"


def main() -> int:
    """Entry point."""
    server = Server(Path(os.environ.get(ACCOUNT_ENV, ACCOUNT)))
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            sys.stdout.write(end(server, sys.argv[1]) + "\n")
        except TroubleError as error:
            sys.stderr.write(f"{error}\n")
            if not error.passes or time.monotonic() > until:
                return 1
            time.sleep(PAUSE_S)
        else:
            return 0


if __name__ == "__main__":
    sys.exit(main())
