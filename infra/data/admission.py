"""What admission asks of data: that its labels allow the target's site, and that caches can be where the spec wants."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dhctl.infra.data.labels import Label, LabelError, labels_of, store_labels
from dhctl.infra.home import nearest_existing
from dhctl.infra.spec import PHANTOMS, RunSpec, TargetName
from dhctl.infra.target import Requirement


def residency(spec: RunSpec) -> Iterator[Requirement]:
    """Whether data with a label may be used on this target, and what comes of it be kept in this output."""
    if spec.data in {None, PHANTOMS}:
        return
    assert spec.data is not None
    try:
        labels = store_labels(spec.data, spec.stores) if _in_pods(spec) else labels_of(spec.data, spec.stores)
    except LabelError as error:
        yield Requirement("residency", "a label that can be read", "none", str(error))
        return
    if not labels:
        return
    wanted = ", ".join(sorted({label.residency for label in labels}))
    yield Requirement("residency", wanted, spec.site or "no site", _problem(spec, labels))
    yield from _output(spec, labels)


def _problem(spec: RunSpec, labels: Sequence[Label]) -> str:
    told = " and ".join(f"{label.residency} only ({label.by})" for label in labels)
    where = f"data {spec.data} may be used at {told}"
    target = spec.target.value
    sites = {label.residency for label in labels}
    if len(sites) > 1:
        return f"{where}, and no target is at both; ask the data manager which label is right"
    if spec.site is None:
        return f"{where}, and the spec does not say where target {target} is; set {target}.site"
    if spec.site not in sites:
        return f"{where}, and target {target} is at {spec.site}; run it on a target at {sites.pop()}"
    return ""


def _output(spec: RunSpec, labels: Sequence[Label]) -> Iterator[Requirement]:
    """Shards and predictions are patients' data too: they stay at the site where the data must stay."""
    allowed = {label.residency for label in labels}
    for other in store_labels(spec.output, spec.stores) if spec.output else []:
        if {other.residency} != allowed:
            told = f"output {spec.output} is kept at {other.residency} ({other.by}), but the data may be used at"
            problem = f"{told} {', '.join(sorted(allowed))} only; choose an output there"
            yield Requirement("residency of output", ", ".join(sorted(allowed)), other.residency, problem)


def caches(spec: RunSpec) -> Iterator[Requirement]:
    """Only what is refused: a cache that cannot be used costs its gain, and is better known before."""
    for key, folder in (("cache.folder", spec.cache.folder), ("cache.shared", spec.cache.shared)):
        if folder is None:
            continue
        problem = ""
        if spec.target is TargetName.LOCAL and not os.access(nearest_existing(Path(folder)), os.W_OK | os.X_OK):
            problem = f"no permission to write in {key} {folder}; choose a folder of yours"
        elif key == "cache.shared" and spec.target is TargetName.KUBERNETES and not spec.kubernetes.has_folder(folder):
            problem = f"{key} {folder} is in no volume of the pods; mount one there with kubernetes.volume_mounts"
        yield Requirement("cache", "writable", folder, problem)


def _in_pods(spec: RunSpec) -> bool:
    """A folder in a volume of the pods cannot be looked at from here."""
    return bool(spec.data) and spec.target is TargetName.KUBERNETES and spec.kubernetes.has_folder(spec.data or "")
