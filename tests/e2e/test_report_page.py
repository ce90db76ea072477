"""The report as people see it: the page of a real run, and of runs in every state, in a real browser.

Pictures lie in pytest's folder of the test; DHCTL_TEST_PICTURES names a folder that keeps them.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from PIL import Image

from dhctl.infra.home import Home
from dhctl.infra.record import RunRecord
from dhctl.infra.report_page.page import render
from dhctl.infra.report_page.tariff import load_tariff
from e2e.driver import Dhctl, assert_gone
from testbeds.browser.chromium import Browser, Page
from testbeds.browser.fixtures import chromium  # noqa: F401 - a fixture
from unit.report_records import (
    BEGIN,
    HOSTILE,
    damaged_run,
    failed_run,
    living_run,
    old_run,
    whole_run,
    write_tariff,
)

WIDTHS = (1280, 390)
ASKED = {
    "width": "document.documentElement.scrollWidth",
    "title": "document.title",
    "outside": """[...document.querySelectorAll("body *")].filter((one) => {
        if (one.closest("svg svg, .scroll, pre") || getComputedStyle(one).display === "none") return false;
        const place = one.getBoundingClientRect();
        return place.width > 0 && (place.right > innerWidth + 1 || place.left < -1);
    }).map((one) => one.tagName + "." + (one.className.baseVal ?? one.className))""",
    "small": """[...document.querySelectorAll("body *")].filter((one) =>
        one.children.length === 0 && one.textContent.trim() && !one.closest("title, desc, script, style")
        && parseFloat(getComputedStyle(one).fontSize) < 11).map((one) => one.textContent)""",
}


def seen(browser: Browser, path: Path, width: int, *, dark: bool = False) -> Page:
    """Shows a page, keeps its picture, and looks at what must hold of every page."""
    page = browser.show(path, width, dark=dark, ask=ASKED)
    folder = Path(os.environ.get("DHCTL_TEST_PICTURES") or path.parent)
    (folder / f"{path.stem}-{width}{'-dark' if dark else ''}.png").write_bytes(page.image)
    assert page.requested == [], "the page wants something from elsewhere"
    assert page.complaints == []
    assert page.answers["width"] <= width, "the page is wider than the window"
    assert page.answers["outside"] == []
    assert page.answers["small"] == []
    return page


def colours(page: Page) -> dict[tuple[int, ...], float]:
    """Share of each colour of a picture."""
    picture = Image.open(io.BytesIO(page.image)).convert("RGB")
    counted = picture.getcolors(picture.width * picture.height) or []
    return {colour: count / (picture.width * picture.height) for count, colour in counted}  # type: ignore[misc]


def is_drawn(page: Page) -> bool:
    """A blank page, or one without its style, has few colours, or one that is nearly everywhere."""
    found = colours(page)
    return len(found) > 100 and max(found.values()) < 0.97


def test_the_page_of_a_real_run(dhctl: Dhctl, chromium: Browser, tmp_path: Path) -> None:  # noqa: F811
    ended = dhctl("run", dhctl.spec("learn"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    record = dhctl.record()
    tariff = write_tariff(tmp_path)
    told = dhctl("report", "learn", "-o", "learn.html", "--tariffs", str(tariff))
    assert told.returncode == 0, told.stdout + told.stderr
    path = tmp_path / "learn.html"
    for width in WIDTHS:
        assert is_drawn(seen(chromium, path, width))
    dark = seen(chromium, path, 1280, dark=True)
    brightest = max(colours(dark), key=colours(dark).__getitem__)
    assert sum(brightest) < 3 * 60, "most of a dark page is dark"
    text = chromium.evaluate("document.body.innerText")
    for words in (record.run_id, "Succeeded", "no training", "2 of 2", "EUR", "<made up>", "nothing"):
        assert words in text, words
    assert "in Ray after" in text, "the ledger tells when workers joined"
    heard = chromium.accessible()
    names = {name for role, name in heard if role == "heading"}
    assert {"Timeline", "Workers over time", "Receipt", "How to reproduce"} <= names
    pictures = [name for role, name in heard if role in ("image", "img", "graphics-document")]
    assert {"loss", "slope", "up", "down", "Workers over time"} <= set(pictures)
    assert chromium.printed().startswith(b"%PDF")
    assert_gone(record)


@pytest.mark.parametrize("make", [whole_run, failed_run, living_run, old_run, damaged_run])
def test_pages_of_all_states(make: Callable[[Home], RunRecord], chromium: Browser, tmp_path: Path) -> None:  # noqa: F811
    tariff = load_tariff(write_tariff(tmp_path)) if make is whole_run else None
    path = tmp_path / f"{make.__name__}.html"
    path.write_text(render(make(Home(tmp_path / "home")), tariff, BEGIN + timedelta(minutes=20))[0])
    for width in WIDTHS:
        page = seen(chromium, path, width)
        assert is_drawn(page)
        assert page.answers["title"].startswith("trial · ")
    seen(chromium, path, 1280, dark=True)


def test_the_browser_sees_what_a_page_must_not_do(chromium: Browser, tmp_path: Path) -> None:  # noqa: F811
    bad = tmp_path / "bad.html"
    bad.write_text(f"<title>bad</title><div style='width: 2000px; font-size: 6px'>wide</div>{HOSTILE}")
    page = chromium.show(bad, 390, ask=ASKED)
    assert any("stranger.example" in url for url in page.requested)
    assert page.complaints
    assert page.answers["outside"] == ["DIV."]
    assert "wide" in page.answers["small"]
    assert not is_drawn(page)
