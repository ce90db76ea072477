"""What it takes to run the same again: the spec as it was given, digests, versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from dhctl.infra.crate.secrets import SECRET_NAME
from dhctl.infra.report_page.story import RunStory
from dhctl.infra.spec import TargetName

MASKED = "(not shown)"
SHOWN_FIRST = ("ray", "torch", "monai", "pulumi", "numpy", "scikit-learn")
"""Packages whose versions are told before all others."""

DEEPEST = 12


def spec_text(story: RunStory) -> str:
    """The spec as YAML; "" where there is none. Of one as admitted, what says nothing is left out.

    Values of environment variables are masked, and so are those whose names say secret.
    """
    spec = story.given if story.given_by_user else _telling(story.given, story.target)
    masked = _masked(spec, 0, in_environment=False)
    return yaml.safe_dump(masked, sort_keys=False, allow_unicode=True) if spec else ""


def _telling(spec: Mapping[str, Any], target: str) -> Mapping[str, Any]:
    """Without sections of other targets, and without keys that are not set."""
    others = {name.value for name in TargetName} - {target}
    return {
        key: _telling(value, target) if isinstance(value, dict) else value
        for key, value in spec.items()
        if key not in others and value not in (None, [], {})
    }


def _masked(value: Any, depth: int, *, in_environment: bool) -> Any:
    if depth > DEEPEST:
        return "..."
    if isinstance(value, list):
        return [_masked(one, depth + 1, in_environment=in_environment) for one in value]
    if not isinstance(value, dict):
        return MASKED if in_environment else value
    return {
        str(key): MASKED
        if SECRET_NAME.search(str(key))
        else _masked(one, depth + 1, in_environment=in_environment or key in ("env_vars", "env"))
        for key, one in value.items()
    }


def versions(story: RunStory) -> list[tuple[str, str]]:
    """dhctl, Python, platform, images, and the packages that matter most."""
    environment = story.job.environment if story.job else {}
    found = [("dhctl", story.version)]
    found += [(key, str(environment.get(key, ""))) for key in ("python", "platform")]
    packages = all_packages(story)
    named = {name.lower(): version for name, version in packages}
    found += [(name, named[name]) for name in SHOWN_FIRST if name in named]
    found += [(f"image of {name}", digest) for name, digest in story.images]
    return [(name, version) for name, version in found if version]


def all_packages(story: RunStory) -> list[tuple[str, str]]:
    """What the job's driver found installed; of a job that told its versions only in its result, these."""
    environment = story.job.environment if story.job else {}
    told = environment.get("packages")
    if not isinstance(told, dict):
        told = story.job.result.get("versions") if story.job else None
    return [(str(name), str(version)) for name, version in told.items()] if isinstance(told, dict) else []


def digests(story: RunStory) -> list[tuple[str, str]]:
    """By which another run is compared: code, data, seed, models."""
    job, found = story.job, []
    if job and job.code_sha256:
        found.append(("code", job.code_sha256))
    if story.data.get("sha256"):
        kind, files = story.data.get("kind", ""), story.data.get("files", "")
        found.append((f"data ({kind} of {files} files)", str(story.data["sha256"])))
    result = job.result if job else {}
    told = result.get("digests")
    found += [
        (f"{key}, as the job says", str(value)) for key, value in (told.items() if isinstance(told, dict) else ())
    ]
    if "seed" in result:
        found.append(("seed", str(result["seed"])))
    return found


def flat(value: Any, prefix: str = "", depth: int = 0) -> list[tuple[str, str]]:
    """A JSON value as rows of dotted names and texts, for a table."""
    if isinstance(value, dict) and depth < DEEPEST and value:
        return [row for key, one in value.items() for row in flat(one, f"{prefix}.{key}".lstrip("."), depth + 1)]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return [(prefix, text if len(text) <= 600 else f"{text[:600]} ...")]
