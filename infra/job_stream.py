"""A job's log as it grows, line by line, through Ray's Jobs API, without ever blocking the reader for long."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from dhctl.infra.errors import ClusterError

RECONNECT_S = 1.0
RECONNECTS = 5
FIRST_OUTPUT_S = 30.0
RAYS_OWN_LINES_S = 3.0
"""From Ray's lines about a job until the job's own are asked for by the tail, which looks every other second."""


class LogStream:
    """Follows a job in a thread of its own. After a broken connection it begins anew and passes over what was seen."""

    def __init__(self, client: Any, submission_id: str) -> None:
        """`client` is Ray's JobSubmissionClient."""
        self._client, self._submission_id = client, submission_id
        self._chunks: queue.Queue[str | None] = queue.Queue()
        self._failure: Exception | None = None
        self._seen = 0
        self._thread = threading.Thread(target=self._follow, daemon=True, name="job-log")
        self._thread.start()

    def _follow(self) -> None:
        self._seen = self._first_output()
        for attempt in range(RECONNECTS + 1):
            try:
                asyncio.run(self._follow_once())
                self._failure = None
                break
            except Exception as error:  # noqa: BLE001 - kept for the reader, who decides
                self._failure = error
                if attempt < RECONNECTS:
                    time.sleep(RECONNECT_S)
        self._chunks.put(None)

    def _first_output(self) -> int:
        """Asks for the log until there is some, and a little longer: Ray begins it with lines of its own, and its tail
        starts slowly, while the job's first line is what a user waits for.

        How many characters came. What fails here fails in the tail too, which has the retries.
        """
        seen, end = 0, time.monotonic() + FIRST_OUTPUT_S
        with suppress(RuntimeError, OSError):
            while time.monotonic() < end:
                text: str = self._client.get_job_logs(self._submission_id)
                if text and not seen:
                    end = time.monotonic() + RAYS_OWN_LINES_S
                if len(text) > seen:
                    self._chunks.put(text[seen:])
                    seen = len(text)
                if self._client.get_job_status(self._submission_id).is_terminal():
                    break
                time.sleep(0.2)
        return seen

    async def _follow_once(self) -> None:
        """Puts what is new behind the characters seen so far into the queue."""
        position = 0
        async for chunk in self._client.tail_job_logs(self._submission_id):
            new = chunk[max(0, self._seen - position) :]
            position += len(chunk)
            if new:
                self._chunks.put(new)
                self._seen = position

    def lines(self, tick_s: float = 0.2) -> Iterator[str | None]:
        """Lines without their ends; None at least every `tick_s` while nothing comes, so that a reader can look around.

        Ends with the log. Raises ClusterError when the connection broke for good.
        """
        rest = ""
        while True:
            try:
                chunk = self._chunks.get(timeout=tick_s)
            except queue.Empty:
                yield None
                continue
            if chunk is None:
                break
            *whole, rest = (rest + chunk).split("\n")
            yield from (line.rstrip("\r") for line in whole)
        if self._failure:  # half a line is none: another stream will give the whole one
            raise ClusterError(f"the connection to the job was lost ({self._failure})")
        if rest:
            yield rest
