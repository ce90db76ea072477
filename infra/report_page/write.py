"""Writing the page into a file."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from dhctl.infra.errors import RefusedError
from dhctl.infra.home import storage_errors
from dhctl.infra.record import RunRecord
from dhctl.infra.report_page.page import render
from dhctl.infra.report_page.tariff import Tariff
from dhctl.infra.report_page.verdict import Verdict


def write_page(record: RunRecord, path: Path, tariff: Tariff | None) -> tuple[Path, Verdict]:
    """Renders a run and writes the page so that a reader sees the old or the new one; where it is, and its verdict.

    Raises RefusedError when it cannot be written there, StateFolderError when the record holds neither ledger nor spec.
    """
    place = path.expanduser().absolute()
    if place.is_dir():
        raise RefusedError(f"{place} is a folder", f"name a file in it, such as -o {path / (record.run_id + '.html')}")
    if not place.parent.is_dir():
        raise RefusedError(f"there is no folder {place.parent}", "make it, or name another file with -o")
    page, verdict = render(record, tariff, datetime.now(UTC))
    with storage_errors(place.parent, RefusedError):
        temporary = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            temporary.write_text(page, encoding="utf-8", errors="replace")
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
    return place, verdict
