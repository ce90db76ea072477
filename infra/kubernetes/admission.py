"""Admission on Kubernetes: everything that would fail later, said before the first write, from reads side by side.

Access reviews and a dry run are asked by POST, and store nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from dhctl.infra.errors import AdmissionError
from dhctl.infra.kubernetes import kuberay
from dhctl.infra.kubernetes.admission_cluster import (
    account_requirements,
    class_requirements,
    namespace_requirements,
    node_requirements,
    pod_requirements,
    rights_requirements,
)
from dhctl.infra.kubernetes.admission_quota import (
    Bounds,
    fit,
    quota_requirements,
    range_requirements,
    read_bounds,
)
from dhctl.infra.kubernetes.client import Cluster, ClusterApiError, api_errors
from dhctl.infra.kubernetes.looking import look
from dhctl.infra.kubernetes.pod_objects import DATA_FOLDER, PREFIX
from dhctl.infra.kubernetes.section import KubernetesSection
from dhctl.infra.spec import PHANTOMS, RunSpec
from dhctl.infra.target import Requirement

OLDEST = (1, 30)
"""The first release in which all that dhctl uses is on by default, time zones of cron jobs among it."""

IMAGE = re.compile(
    r"(?:(?:[a-zA-Z0-9.-]+|\[[0-9a-fA-F:]+\])(?::\d+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"
    r"(?::\w[\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9+._-]*:[0-9a-fA-F]{32,})?"
)
"""Reference of an image, as registries take it (github.com/distribution/reference)."""

HOST_PATH = "hostPath"


def admit(spec: RunSpec, cluster: Cluster) -> list[Requirement]:
    """All rows of `plan`, problems and warnings in them. Writes nothing. Raises ClusterApiError."""
    basics = [*_image(spec), *_storage(spec), *_volumes(spec.kubernetes), *_own_namespace(spec.kubernetes)]
    try:
        entry = list(_version(cluster))
    except ClusterApiError as error:
        return [Requirement("cluster", "answers", "no", str(error)), *basics]
    if any(row.problem for row in entry):
        return [*entry, *basics]
    checks: tuple[Callable[[RunSpec, Cluster], Iterable[Requirement]], ...] = (
        namespace_requirements,
        rights_requirements,
        account_requirements,
        class_requirements,
        node_requirements,
        kuberay.requirements,
    )
    with api_errors("look at the cluster"), ThreadPoolExecutor(len(checks) + 1) as pool:
        limits = pool.submit(bounds_of, spec.kubernetes, cluster)
        looks = [pool.submit(_listed, check, spec, cluster) for check in checks]
        rows = [row for each in looks for row in each.result()]
        bounds = limits.result()
    judged = [*quota_requirements(spec, bounds), *range_requirements(spec, bounds)]
    found = [*entry, *basics, *rows, *judged]
    if not any(row.problem for row in found):  # else it says the same once more
        found += pod_requirements(spec, cluster, cpu_limits=bounds.cpu_limits)
    return found


def bounds_of(section: KubernetesSection, cluster: Cluster) -> Bounds:
    """Quotas and limits of the namespace; of one that is made with the run none are known. Raises ClusterApiError."""
    return Bounds() if section.namespace is None else read_bounds(cluster, section.namespace)


def shrink(spec: RunSpec, cluster: Cluster) -> tuple[RunSpec, str]:
    """The spec with workers.max, and job.workers where it is above, lowered to what fits; and a warning, or "".

    Raises AdmissionError when not even workers.min fits; ClusterApiError.
    """
    fits = fit(spec, bounds_of(spec.kubernetes, cluster))
    if fits.problems:
        raise AdmissionError(spec.target.value, list(fits.problems.values()))
    if not fits.shortage:
        return spec, ""
    workers = spec.workers.model_copy(update={"max": fits.workers})
    return spec.model_copy(
        update={"workers": workers, "job": spec.job.lowered(fits.workers)}
    ), f"{fits.shortage}; workers.max is lowered to {fits.workers}"


def _listed(
    check: Callable[[RunSpec, Cluster], Iterable[Requirement]], spec: RunSpec, cluster: Cluster
) -> list[Requirement]:
    return list(check(spec, cluster))  # what a generator reads is read in the thread that lists it


def _version(cluster: Cluster) -> Iterator[Requirement]:
    """Also whether the cluster answers at all."""
    told = look(cluster, "/version").body or {}
    digits = [re.sub(r"\D", "", str(told.get(part, ""))) for part in ("major", "minor")]
    need, have = ".".join(map(str, OLDEST)), str(told.get("gitVersion") or "unknown")
    old = all(digits) and tuple(map(int, digits)) < OLDEST
    problem = f"the cluster is of version {have} and {need} is needed; ask its operator for an upgrade"
    yield Requirement("version", f"{need} or newer", f"{have} at {cluster.host}", problem if old else "")


def _image(spec: RunSpec) -> Iterator[Requirement]:
    image = spec.kubernetes.image
    problem = ""
    if image is None:
        problem = "kubernetes.image is not set; set it to an image with Ray (docs/kubernetes.md, “Image”)"
    elif not IMAGE.fullmatch(image):
        problem = f"kubernetes.image {image!r} is no reference of an image; write one such as registry.org/ray:2.60.0"
    yield Requirement("image", "a reference", image or "none", problem)


def _storage(spec: RunSpec) -> Iterator[Requirement]:
    """Only what is refused (the common admission has the rows): folders of this machine are out of the pods' reach."""
    data, output = spec.data, spec.output or ""
    if data not in {None, PHANTOMS} and not (data.startswith("s3://") or spec.kubernetes.has_folder(data)):
        told = "data is neither an s3:// URL nor in a volume of the pods, and they reach nothing else"
        fix = "set it to s3://BUCKET/PREFIX, or to a folder in a mount of kubernetes.volume_mounts"
        yield Requirement("data in reach", "s3:// URL or volume", data, f"{told}; {fix}")
    if not output.startswith("s3://"):
        told = "output is not an s3:// URL, and pods reach nothing else that stays"
        yield Requirement("output on S3", "s3:// URL", output or "not set", f"{told}; set it to s3://BUCKET/PREFIX")


def _volumes(section: KubernetesSection) -> Iterator[Requirement]:
    """Names and places that are dhctl's, and mounts of what is no volume."""
    names = [volume["name"] for volume in section.volumes]
    problems = [
        f"kubernetes.volumes: names that begin with {PREFIX} are dhctl's; rename {name}"
        for name in names
        if name.startswith(PREFIX)
    ]
    twice = sorted({name for name in names if names.count(name) > 1})
    problems += [f"kubernetes.volumes has {name} twice; rename one" for name in twice]
    for mount in section.volume_mounts:
        path = mount.get("mountPath")
        if mount["name"] not in names:
            problems.append(f"kubernetes.volume_mounts: {mount['name']} is none of kubernetes.volumes; add it there")
        if not isinstance(path, str) or not path.startswith("/"):
            problems.append(f"kubernetes.volume_mounts: {mount['name']} has no absolute mountPath; add one")
        elif section.data_volume is not None and path.rstrip("/") == DATA_FOLDER:
            problems.append(f"kubernetes.volume_mounts: {DATA_FOLDER} is the data volume's; mount it elsewhere")
    yield from (Requirement("volumes", "fit", "do not fit", problem) for problem in problems)


def _own_namespace(section: KubernetesSection) -> Iterator[Requirement]:
    """What a namespace that is made for the run cannot have."""
    if section.namespace is not None:
        return
    claims = [v["persistentVolumeClaim"].get("claimName") for v in section.volumes if v.get("persistentVolumeClaim")]
    named = {
        "kubernetes.service_account": [section.service_account] if section.service_account else [],
        "kubernetes.image_pull_secrets": list(section.image_pull_secrets),
        "kubernetes.volumes": claims,
    }
    for key, values in named.items():
        if values:
            told = f"{key} names {', '.join(map(str, values))}, and a namespace that is made for the run has none"
            yield Requirement(key, "an existing namespace", "a new one", f"{told}; set kubernetes.namespace")
    hosts = [volume["name"] for volume in section.volumes if HOST_PATH in volume]
    if hosts:
        told = f"kubernetes.volumes: {', '.join(hosts)} is of kind hostPath, which the run's own namespace refuses"
        yield Requirement(
            "volumes", "no hostPath", "hostPath", f"{told}; set kubernetes.namespace to one that takes it"
        )
