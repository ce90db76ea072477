"""Runs in the validator's own environment: CRATE WORK PROFILE SEVERITY -> a JSON object on the last line."""

from __future__ import annotations

import io
import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from requests.adapters import BaseAdapter, HTTPAdapter
from requests_cache import CachedSession
from rocrate_validator import models, services
from urllib3.response import HTTPResponse

CONTEXT = "https://w3id.org/ro/crate/1.1/context"


class Shipped(BaseAdapter):
    """Answers with the context that a package carries."""

    def send(self, request: Any, **options: Any) -> Any:
        content = files("rocrate").joinpath("data/ro-crate.jsonld").read_bytes()
        assert json.loads(content)["@id"] == CONTEXT
        headers = {"Content-Type": "application/ld+json"}
        raw = HTTPResponse(io.BytesIO(content), headers, status=200, preload_content=False)
        return HTTPAdapter().build_response(request, raw)

    def close(self) -> None:
        """Nothing is open."""


def main() -> None:
    crate, work, profile, severity = sys.argv[1:]
    cache = Path(work) / "http"
    with CachedSession(cache_name=str(cache), backend="sqlite", expire_after=-1) as session:
        session.mount(CONTEXT, Shipped())
        session.get(CONTEXT)
    settings = services.ValidationSettings(
        rocrate_uri=crate,
        profile_identifier=profile,
        requirement_severity=models.Severity[severity],
        offline=True,
        cache_path=str(cache),
    )
    result = services.validate(settings)
    told = {
        "passed": result.passed(),
        "profiles": sorted({check.requirement.profile.identifier for check in result.executed_checks}),
        "checks": len(result.executed_checks),
        "issues": [f"{issue.check.identifier}: {issue.message}" for issue in result.get_issues()],
    }
    print(json.dumps(told))  # noqa: T201


main()
