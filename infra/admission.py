"""Admission: everything that would fail later, said before the first write. Common part; targets add their own."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from dhctl.infra import bundle
from dhctl.infra.data.admission import caches, residency
from dhctl.infra.errors import AdmissionError
from dhctl.infra.events import Report, Warned
from dhctl.infra.home import nearest_existing
from dhctl.infra.object_store import problem_with
from dhctl.infra.spec import PHANTOMS, RunSpec, TargetName
from dhctl.infra.target import Requirement, Target
from dhctl.infra.units import format_size
from dhctl.infra.yaml_model import nearest
from dhctl.ray_jobs.catalog import JOBS, BuiltinJob
from dhctl.ray_jobs.environment import RefusedInputError

BRINGS_PROGRAMS = {"pip", "uv", "conda", "py_executable", "container", "image_uri"}
"""Parts of Ray's runtime environment that may install what an entrypoint starts."""

SENT_LIMIT_BYTES = 512 * 2**20
"""What Ray takes as a job's working directory at most (RAY_max_grpc_message_size)."""


def requirements(spec: RunSpec, target: Target) -> list[Requirement]:
    """All that the run needs, with what was found. Writes nothing."""
    return [*_job(spec), *_data(spec), *residency(spec), *_output(spec), *caches(spec), *target.admit(spec)]


def admit(spec: RunSpec, target: Target, report: Report, *, strict: bool = False) -> RunSpec:
    """The spec as it can be run now: with fewer workers at most where the target has no room for all, with a warning.

    Raises AdmissionError with every problem at once; with `strict` a warning is a problem too.
    """
    spec = target.settle(spec)
    found = requirements(spec, target)
    problems = refused(found, strict=strict)
    if problems:
        raise AdmissionError(spec.target.value, problems)
    if any(r.warning for r in found):
        spec, told = target.shrink(spec)
        if told:
            report(Warned(told))
    return spec


def refused(found: Sequence[Requirement], *, strict: bool) -> list[str]:
    """The sentences for which a run is refused."""
    return [told for r in found if (told := r.problem or (r.warning if strict else ""))]


def _job(spec: RunSpec) -> Iterator[Requirement]:
    job = spec.job
    if job.name is None:
        yield from _own_job(spec)
        return
    builtin = JOBS.get(job.name)
    if builtin is None:
        yield Requirement("job", job.name, "unknown", f"no job '{job.name}' comes with dhctl{nearest(job.name, JOBS)}")
        return
    missing = [m for m in builtin.needs if importlib.util.find_spec(m) is None]
    told = f"job {job.name} needs {', '.join(missing)}; pip install 'dhctl[{builtin.extra}]'" if missing else ""
    yield Requirement("job", job.name, "missing modules" if missing else "ready", told)
    yield _params(spec, builtin)


def _params(spec: RunSpec, builtin: BuiltinJob) -> Requirement:
    """Each job that comes with dhctl judges its own settings, in a module that is quick to import."""
    profile, problem = str(spec.job.params.get("profile", builtin.profiles[0])), ""
    try:
        importlib.import_module(f"{builtin.module}.settings").settings_from(spec.job.params)
    except RefusedInputError as error:
        problem = str(error)
    if not spec.data:
        problem = f"job {builtin.name} needs data: a folder, an s3:// URL" + (", or phantoms" * builtin.phantoms)
    return Requirement("job settings", profile, ", ".join(builtin.profiles), problem)


def _own_job(spec: RunSpec) -> Iterator[Requirement]:
    folder, entrypoint = Path(spec.job.folder or ""), spec.job.entrypoint or ""
    problem = ""
    if not os.path.isdir(folder):  # noqa: PTH112 - as above
        problem = f"job.folder {folder} is not a folder; paths in a spec are taken from the spec file's own folder"
    elif absent := _missing_script(folder, entrypoint, bool(spec.job.runtime_env.keys() & BRINGS_PROGRAMS)):
        problem = f"job.entrypoint starts {absent}, but it is not in {folder}"
    elif _too_large(folder):
        problem = (
            f"job.folder {folder} is above {format_size(SENT_LIMIT_BYTES)}; keep data out of it and set data to it"
        )
    yield Requirement("job", entrypoint, str(folder), problem)


_SHELL = re.compile(r"[;&|<>$`(){}*?\n]|^\s*(\w+=|(exec|cd|set|export|source|time|eval|if|for|while|\.)\s)")
"""What makes an entrypoint more than one plain command; then only the shell on the cluster can judge it."""


def _missing_script(folder: Path, entrypoint: str, installs: bool) -> str:
    """The file or program that a plain command line starts, when it is certain that it is not there.

    `installs` says that the job's runtime environment brings programs of its own.
    """
    if _SHELL.search(entrypoint):
        return ""
    program, *arguments = shlex.split(entrypoint)
    if "/" in program:
        return "" if program.startswith("/") or (folder / program).exists() else program
    if program.startswith("python"):
        named = "" if {"-m", "-c"} & set(arguments) else next((w for w in arguments if not w.startswith("-")), "")
        return named if named.endswith(".py") and not (folder / named).exists() else ""
    if installs:
        return ""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return "" if shutil.which(program, path=path) else program


def _size(path: Path) -> int:
    """Bytes that a copy of the file would have; nothing for a link that leads nowhere."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _too_large(folder: Path) -> bool:
    """Whether what would be sent is above what Ray takes; stops counting there."""
    total = 0
    for place, folders, files in os.walk(folder):
        left_out = bundle.LEFT_OUT(place, [*folders, *files])
        folders[:] = [name for name in folders if name not in left_out]
        total += sum(_size(Path(place) / name) for name in files if name not in left_out)
        if total > SENT_LIMIT_BYTES:
            return True
    return False


def _data(spec: RunSpec) -> Iterator[Requirement]:
    if spec.data is None:
        return
    if spec.data.startswith("s3://"):
        problem = problem_with(spec.data, "data", wants_files=True)
        yield Requirement("data", "readable", spec.data.partition("?")[0], problem)
        return
    problem = ""
    if spec.target is TargetName.KUBERNETES and spec.kubernetes.has_folder(spec.data):
        yield Requirement("data", "in a volume of the pods", spec.data)
        return
    if "://" in spec.data:
        problem = f"data {spec.data} is of an unknown kind; use a folder or an s3:// URL"
    elif spec.data == PHANTOMS:
        if spec.job.name and spec.job.name in JOBS and not JOBS[spec.job.name].phantoms:
            problem = f"job {spec.job.name} makes no phantoms; set data to a folder or an s3:// URL"
    elif not os.path.isdir(spec.data):  # noqa: PTH112 - Path.is_dir raises where a folder above is closed
        problem = f"data folder {spec.data} does not exist; paths in a spec are taken from the spec file's own folder"
    elif not os.access(spec.data, os.R_OK | os.X_OK):
        problem = f"no permission to read the data folder {spec.data}"
    yield Requirement("data", "readable", spec.data, problem)


def _output(spec: RunSpec) -> Iterator[Requirement]:
    if spec.output is None:
        return
    if spec.output.startswith("s3://"):
        problem = problem_with(spec.output, "output", wants_files=False)
        yield Requirement("output", "reachable", spec.output.partition("?")[0], problem)
        return
    problem = ""
    if "://" in spec.output:
        problem = f"output {spec.output} is of an unknown kind; use a folder or an s3:// URL"
    else:
        path = Path(spec.output)
        if not os.access(nearest_existing(path), os.W_OK | os.X_OK):
            problem = f"no permission to write output in {spec.output}"
    yield Requirement("output", "writable", spec.output, problem)
