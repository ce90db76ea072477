"""A headless Chromium, driven over its DevTools protocol (https://chromedevtools.github.io/devtools-protocol).

It resolves no host name, so that a page that wants anything from a network is seen to want it, and does not get it.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websocket

from testbeds.errors import TestbedError

PACKAGE, VERB = "chromium", "make browser-install"
START_S, ANSWER_S = 60.0, 60.0
SETTLE_S = 0.3
"""After a page is loaded: what a script would fetch later is seen too."""

OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # root, as in CI; the pages are the tests' own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)


def missing() -> str:
    """Why there is no browser, with the verb that installs it; "" where there is one."""
    return "" if shutil.which(PACKAGE) else f"Chromium is not installed: {VERB} (root, once) installs Debian's"


@dataclass
class Page:
    """One page as it was shown. `requested` are URLs beside its own; `complaints` what the console has of errors."""

    image: bytes
    requested: list[str]
    complaints: list[str]
    answers: dict[str, Any] = field(default_factory=dict)


class Browser:
    """A tab. Each page is opened anew, at a width in CSS pixels."""

    def __init__(self, channel: websocket.WebSocket) -> None:
        self._channel, self._numbers = channel, itertools.count(1)
        self._events: list[dict[str, Any]] = []
        for domain in ("Page", "Network", "Log", "Runtime", "Accessibility"):
            self._call(f"{domain}.enable")

    def show(self, path: Path, width: int, *, dark: bool = False, ask: dict[str, str] | None = None) -> Page:
        """Opens a file and takes a picture of all of it. `ask`: JavaScript expressions by name."""
        url = path.absolute().as_uri()
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._call("Emulation.setEmulatedMedia", features=scheme)
        self._events.clear()
        self._call("Page.navigate", url=url)
        self._await("Page.loadEventFired")
        time.sleep(SETTLE_S)
        answers = {name: self.evaluate(script) for name, script in (ask or {}).items()}
        picture = self._call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        return Page(base64.b64decode(picture["data"]), self._requested(url), self._complaints(), answers)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def accessible(self) -> list[tuple[str, str]]:
        """Role and name of everything that a screen reader is told of."""
        nodes = self._call("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
        ]

    def printed(self) -> bytes:
        """The page that is open, as a PDF."""
        return base64.b64decode(self._call("Page.printToPDF", printBackground=False)["data"])

    def _requested(self, own: str) -> list[str]:
        urls = [e["params"]["request"]["url"] for e in self._events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if url != own and not url.startswith("data:")]

    def _complaints(self) -> list[str]:
        found = []
        for event in self._events:
            if event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(str(event["params"]["entry"]["text"]))
            elif event["method"] == "Runtime.exceptionThrown":
                found.append(str(event["params"]["exceptionDetails"]["text"]))
        return found

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._channel.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            told = self._receive()
            if told.get("id") == number:
                assert "error" not in told, f"{method}: {told['error']}"
                result: dict[str, Any] = told["result"]
                return result

    def _await(self, method: str) -> None:
        while not any(event["method"] == method for event in self._events):
            self._receive()

    def _receive(self) -> dict[str, Any]:
        """One message; the socket has a deadline."""
        told: dict[str, Any] = json.loads(self._channel.recv())
        if "method" in told:
            self._events.append(told)
        return told


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser whose files are all in `folder`. Raises TestbedError when it does not start."""
    folder.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "TMPDIR": str(folder), "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            (PACKAGE, *OPTIONS, f"--user-data-dir={folder / 'profile'}", "about:blank"),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        channel = websocket.create_connection(_address(folder, process), timeout=ANSWER_S)
        try:
            yield Browser(channel)
        finally:
            channel.close()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """Of the tab's channel; the browser writes its port into its profile."""
    told, end = folder / "profile" / "DevToolsActivePort", time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            port = int(told.read_text().splitlines()[0])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=5) as answer:
                tabs = json.load(answer)
            return str(next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"))
        except (OSError, ValueError, IndexError, StopIteration):
            time.sleep(0.05)
    tail = (folder / "chromium.log").read_text(errors="replace")[-1500:]
    raise TestbedError(f"Chromium did not start within {START_S:.0f} s:\n{tail}")
