"""What may go into a crate of a spec, key by key; all else is withheld, and named for whoever reproduces the run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Set
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from dhctl.infra.crate.allowed import LEFT_OUT, Rule, label, number, setting, word
from dhctl.infra.spec import PHANTOMS, Job, RunSpec, TargetName
from dhctl.ray_jobs.catalog import JOBS

_STORE = re.compile(r"[a-z][a-z0-9-]{0,39}:[\w./-]{0,200}")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][\w.-]*(\[[\w,-]+\])?( ?(==|>=|<=|~=|!=|<|>) ?[\w.*+!]+,?)*")
_IMAGE = re.compile(r"[\w./:-]+(@sha256:[0-9a-f]{64})?")
_URL_OPTIONS = ("region", "scheme", "endpoint_override")
LONGEST_WORD = 20
"""Of a command line: what is longer may be a key, unless it names a file."""


def place(value: Any) -> Any:
    """phantoms, a named store with its folder, or an s3:// URL without login; no folder of a machine."""
    if not isinstance(value, str):
        return value if value is None else LEFT_OUT
    if value == PHANTOMS or (_STORE.fullmatch(value) and "://" not in value):
        return value
    parts = urlsplit(value)
    if parts.scheme != "s3" or "@" in parts.netloc:
        return LEFT_OUT
    options = {k: v[-1] for k, v in parse_qs(parts.query).items() if k in _URL_OPTIONS}
    return f"s3://{parts.netloc}{parts.path}" + (f"?{urlencode(options)}" if options else "")


def command(value: Any) -> Any:
    """A command line of plain words: a long one may be a key, unless it is a path or an option's name."""
    if not isinstance(value, str):
        return value if value is None else LEFT_OUT
    for part in shlex.split(value):
        plain = re.fullmatch(r"[\w./=:,+ -]+", part)
        if not plain or (len(part) > LONGEST_WORD and not re.search(r"\.(py|sh|ya?ml|toml)$|^--?[a-z-]+$", part)):
            return LEFT_OUT
    return value


def image(value: Any) -> Any:
    """A container image, by tag or digest, without login."""
    return value if value is None or (isinstance(value, str) and _IMAGE.fullmatch(value)) else LEFT_OUT


def requirements(value: Any) -> Any:
    """Packages by name and version; no URL, which may carry a login."""
    listed = value.get("packages") if isinstance(value, dict) else value
    plain = isinstance(listed, list) and all(isinstance(one, str) and _REQUIREMENT.fullmatch(one) for one in listed)
    return listed if plain else LEFT_OUT


def count_or_range(value: Any) -> Any:
    """A number, or min and max of an elastic job."""
    return {k: number(v) for k, v in value.items() if k in ("min", "max")} if isinstance(value, dict) else number(value)


def text(value: Any) -> Any:
    """Nothing, true or false, a number, or a few plain words."""
    return label(value) if isinstance(value, str) else number(value)


def amount(value: Any) -> Any:
    """A duration or a size with its unit."""
    return word(value) if isinstance(value, str) else number(value)


_WORKERS: dict[str, Any] = dict.fromkeys(("min", "max", "cpus", "gpus", "memory", "idle_timeout"), amount)
_JOB: dict[str, Any] = {
    "name": text,
    "entrypoint": command,
    "workers": count_or_range,
    "timeout": amount,
    "head_restarts": number,
    "runtime_env": {"pip": requirements, "uv": requirements},
}
_OPENSTACK = ("image", "flavor", "head_flavor", "floating_ip", "availability_zone", "server_group", "boot_volume")
_KUBERNETES = ("ray", "python", "head_cpus", "head_memory", "user_id", "data_volume", "strict_network")
_ELSEWHERE = ("job.params", "job.folder")
"""Judged one by one; said by the code in the crate."""

KEYS: dict[str, Any] = {
    "name": word,
    "target": word,
    "lease": amount,
    "workers": _WORKERS,
    "job": _JOB,
    "data": place,
    "output": place,
    "cache": {},
    "local": {"dashboard_port": number, "site": word},
    "openstack": {**dict.fromkeys(_OPENSTACK, text), "volume_type": text, "config_drive": number},
    "kubernetes": {
        **dict.fromkeys(_KUBERNETES, amount),
        **dict.fromkeys(("image", "gpu_resource"), image),
        **dict.fromkeys(("runtime_class", "priority_class"), text),
    },
}
"""Keys of a spec that may go into a crate: a rule, or the keys of a section."""


def allowed_spec(body: Mapping[str, Any], with_params: Set[str] = frozenset()) -> tuple[dict[str, Any], list[str]]:
    """A spec (as JSON) as it may go into a crate, and the keys that were withheld although they say something.

    Of `job.params` numbers stay; texts stay where the job comes with dhctl, and where `with_params` names them.
    """
    withheld: list[str] = []
    elsewhere = {name.value for name in TargetName} - {body.get("target", TargetName.LOCAL)}
    kept = _filtered({k: v for k, v in body.items() if k not in elsewhere}, KEYS, _defaults(), "", withheld)
    job = body.get("job") or {}
    params, known = job.get("params") or {}, job.get("name") in JOBS
    rules: dict[str, Rule] = {key: setting if known or key in with_params else number for key in params}
    found = {key: rule(params[key]) for key, rule in rules.items()}
    withheld += [f"job.params.{key}" for key, value in found.items() if value is LEFT_OUT]
    if params:
        kept.setdefault("job", {})["params"] = {k: v for k, v in found.items() if v is not LEFT_OUT}
    return kept, sorted(withheld)


def _filtered(
    body: Mapping[str, Any], keys: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str, withheld: list[str]
) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in body.items():
        rule, default = keys.get(key), defaults.get(key)
        if isinstance(rule, dict) and isinstance(value, Mapping):
            below = default if isinstance(default, Mapping) else {}
            section = _filtered(value, rule, below, f"{prefix}{key}.", withheld)
            kept |= {key: section} if section else {}
            continue
        found = rule(value) if callable(rule) else LEFT_OUT
        if found is not LEFT_OUT:
            kept[key] = found
        elif value not in (None, "", [], {}, False, default) and f"{prefix}{key}" not in _ELSEWHERE:
            withheld.append(f"{prefix}{key}")
    return kept


@cache
def _defaults() -> Mapping[str, Any]:
    """What a spec says that says nothing, as JSON."""
    return RunSpec(name="nothing", job=Job(name="nothing")).model_dump(mode="json")
