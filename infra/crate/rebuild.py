"""From a crate to a run: the spec and the code, and what the crate withholds from whoever reproduces it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dhctl import ray_jobs
from dhctl.infra.bundle import LEFT_OUT, code_digest
from dhctl.infra.crate.read import Crate, CrateError
from dhctl.infra.data.user_stores import user_stores
from dhctl.infra.errors import UsageError
from dhctl.infra.spec import RunSpec
from dhctl.infra.spec_file import EXAMPLE, parse_spec
from dhctl.infra.yaml_model import parse_mapping, read_text
from dhctl.ray_jobs.catalog import JOBS

FREE = ("data", "output", "lease", "target", "workers", "stores", "cache", "local", "openstack", "kubernetes")
FREE_OF_JOB = ("workers", "timeout", "head_restarts")
"""Keys that a run may have anew without being another run: where, for how long, on how much."""


@dataclass(frozen=True)
class Given:
    """What a user adds to a crate."""

    target: str | None = None
    data: str | None = None
    """Where the data lie here."""
    spec_file: Path | None = None
    """A partial spec with what the crate withholds."""
    code: Path | None = None
    """The job's folder, where the crate has not all of it."""


@dataclass(frozen=True)
class Rebuilt:
    """A spec that can be admitted. `code`: how its code compares with the crate's."""

    spec: RunSpec
    code_sha256: str
    code: str


def rebuild(crate: Crate, given: Given, into: Path) -> Rebuilt:
    """The spec and the code of the crate's job, with what was given; `into` is an empty folder that outlives the run.

    Raises CrateError, UsageError and SpecError with what is missing and how to give it.
    """
    tree = _without_nothing(json.loads(json.dumps(crate.spec)))
    _require_known(tree, crate)
    extra, base = _extra(given)
    _require_same(tree, extra)
    tree = _merged(tree, extra)
    sha256, told = _add_code(tree, crate, given, into)
    _require_given(tree, crate)
    text = json.dumps(tree)  # JSON is YAML
    spec = parse_spec(text, source=str(crate.path), base=base, target=given.target, users=user_stores())
    return Rebuilt(spec, sha256, told)


def _without_nothing(tree: dict[str, Any]) -> dict[str, Any]:
    return {k: _without_nothing(v) if isinstance(v, dict) else v for k, v in tree.items() if v is not None}


def _require_known(tree: Mapping[str, Any], crate: Crate) -> None:
    """Raises CrateError for keys of a newer dhctl."""
    unknown = list(_unknown(tree, RunSpec, ""))
    if unknown:
        told = f"the spec in {crate.path} has keys that this dhctl does not know ({', '.join(unknown)})"
        raise CrateError(told, f"it was written by dhctl {crate.run['dhctl']}; upgrade dhctl")


def _unknown(tree: Mapping[str, Any], model: type[BaseModel], prefix: str) -> Iterator[str]:
    for key, value in tree.items():
        field = model.model_fields.get(key)
        if field is None:
            yield f"{prefix}{key}"
        elif isinstance(value, dict) and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _unknown(value, field.annotation, f"{prefix}{key}.")


def _extra(given: Given) -> tuple[dict[str, Any], Path]:
    """The partial spec, and the folder from which its relative paths are taken."""
    tree: dict[str, Any] = {}
    base = Path.cwd()
    if given.spec_file:
        tree = parse_mapping(read_text(given.spec_file), str(given.spec_file), EXAMPLE)
        base = given.spec_file.resolve().parent
    if given.data:
        tree["data"] = given.data if ":" in given.data or given.data == "phantoms" else str(Path(given.data).absolute())
    return tree, base


def _require_same(tree: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    """Raises UsageError where what is given says something else than the crate does."""
    others = [key for key in extra if key not in (*FREE, "job", "name")]
    job, given = tree.get("job", {}), extra.get("job") or {}
    fixed = {key: value for key, value in given.items() if key not in (*FREE_OF_JOB, "params")}
    others += [f"job.{key}" for key, value in fixed.items() if value != job.get(key, value)]
    params, wanted = job.get("params", {}), given.get("params") or {}
    others += [f"job.params.{key}" for key, value in wanted.items() if value != params.get(key, value)]
    if others:
        told = f"{', '.join(others)} would make another run"
        raise UsageError(told, "give only what the crate withholds, and where to run")


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = _merged(found[key], value) if both else value
    return found


def _add_code(tree: dict[str, Any], crate: Crate, given: Given, into: Path) -> tuple[str, str]:
    """Makes the job of the spec one that runs the crate's code; its digest, and a word on it."""
    code, job = crate.job["code"], tree.setdefault("job", {})
    wanted, name = str(code["sha256"]), job.get("name")
    if name in JOBS and installed_digest() == wanted:
        return wanted, "the job that comes with this dhctl is the same"
    folder = into / "code"
    if given.code:
        shutil.copytree(given.code, folder, ignore=LEFT_OUT)
    elif crate.code is None or code["withheld"]:
        lacks = f"{code['withheld']} files of the job's code" if crate.code else "the job's code"
        next_step = f"give the folder with --code; its digest is {wanted[:12]}"
        raise UsageError(f"{crate.path} does not hold {lacks}", next_step)
    else:
        shutil.copytree(crate.code, folder)
    found = code_digest(folder)
    if found != wanted:
        told = f"the code has the digest {found[:12]}, but {wanted[:12]} ran"
        raise UsageError(told, "give the folder that was sent then")
    if name:
        module = JOBS[name].module if name in JOBS else f"dhctl.ray_jobs.{name}"
        tree["job"] = {**{k: v for k, v in job.items() if k != "name"}, "entrypoint": f"python -m {module}"}
    tree["job"]["folder"] = str(folder)
    return wanted, "the crate's code is run"


def installed_digest() -> str:
    """Of the code that would be sent for a job that comes with dhctl."""
    ours = Path(next(iter(ray_jobs.__path__)))
    with tempfile.TemporaryDirectory(prefix="dhctl-code-") as made:
        shutil.copytree(ours, Path(made) / "dhctl" / "ray_jobs", ignore=LEFT_OUT)
        return code_digest(Path(made))


def _require_given(tree: Mapping[str, Any], crate: Crate) -> None:
    """Raises UsageError for what the crate withholds and the job cannot do without."""
    job, missing = tree.get("job", {}), []
    for key in crate.run["withheld"]:
        match key.split("."):
            case ["data"]:
                missing += ["data (--data PLACE)"] if "data" not in tree else []
            case ["job", "params", name]:
                missing += [key] if name not in job.get("params", {}) else []
            case ["job", "runtime_env", name]:
                missing += [key] if name not in job.get("runtime_env", {}) else []
            case ["job", name]:
                missing += [key] if name not in job else []
            case _:
                continue
    if missing:
        raise UsageError(f"{crate.path} withholds {', '.join(missing)}", "give them in a partial spec with --with FILE")
