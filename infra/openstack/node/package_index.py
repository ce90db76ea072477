"""uv from a package index (PEP 503), checked against the index' own hash. Standard library only."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
import zipfile
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlparse

DEFAULT_INDEX = "https://pypi.org/simple"
UV_VERSION = "0.13.9"
FETCH_S = 120.0
TRIES = 3


class PackageIndexError(Exception):
    """The index cannot be reached, does not have uv, or its file is not what it says."""


class _Links(HTMLParser):
    """Targets of all links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.targets += [value for name, value in attrs if name == "href" and value]


def fetch_uv(index: str | None, folder: Path, machine: str) -> Path:
    """The path of uv, fetched into `folder` for a processor such as x86_64. Raises PackageIndexError."""
    page = f"{(index or DEFAULT_INDEX).rstrip('/')}/uv/"
    links = _Links()
    links.feed(_get(page).decode(errors="replace"))
    url, digest = _choose([urljoin(page, target) for target in links.targets], machine, page)
    wheel = _get(url)
    if hashlib.sha256(wheel).hexdigest() != digest:
        raise PackageIndexError(f"the index' wheel of uv {UV_VERSION} is not the one its hash tells of")
    return _unpack(wheel, folder)


def _choose(urls: list[str], machine: str, page: str) -> tuple[str, str]:
    """The wheel for Linux with glibc and its SHA-256."""
    for url in urls:
        plain, fragment = urldefrag(url)
        name = Path(urlparse(plain).path).name
        fits = name.startswith(f"uv-{UV_VERSION}-") and "manylinux" in name and name.endswith(f"_{machine}.whl")
        if fits and fragment.startswith("sha256="):
            return plain, fragment[len("sha256=") :]
    raise PackageIndexError(f"{urlparse(page).hostname} has no wheel of uv {UV_VERSION} with a SHA-256 for {machine}")


def _get(url: str) -> bytes:
    """A page or file. The index' own name stands in the error, its path and any password do not."""
    reason = ""
    for _ in range(TRIES):
        try:
            request = urllib.request.Request(url, headers={"Accept": "text/html, application/octet-stream, */*"})
            with urllib.request.urlopen(request, timeout=FETCH_S) as answer:
                body: bytes = answer.read()
                return body
        except (urllib.error.URLError, OSError, ValueError) as error:
            reason = str(getattr(error, "reason", "") or error)
    raise PackageIndexError(f"{urlparse(url).hostname} does not answer ({reason})")


def _unpack(wheel: bytes, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(BytesIO(wheel)) as opened:
            member = next(name for name in opened.namelist() if name.endswith(".data/scripts/uv"))
            content = opened.read(member)
    except (zipfile.BadZipFile, StopIteration) as error:
        raise PackageIndexError("the index' wheel of uv holds no uv") from error
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "uv"
    path.write_bytes(content)
    path.chmod(0o755)
    return path
