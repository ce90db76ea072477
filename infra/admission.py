"""Admission: everything that would fail later, said before the first write. Common part; targets add their own."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from dhctl.infra.errors import AdmissionError
from dhctl.infra.spec import PHANTOMS, RunSpec
from dhctl.infra.spec_file import nearest
from dhctl.infra.target import Requirement, Target
from dhctl.ray_jobs.catalog import JOBS, BuiltinJob
from dhctl.ray_jobs.environment import RefusedInputError


def requirements(spec: RunSpec, target: Target) -> list[Requirement]:
    """All that the run needs, with what was found. Writes nothing."""
    return [*_job(spec), *_data(spec), *_output(spec), *target.admit(spec)]


def admit(spec: RunSpec, target: Target) -> list[Requirement]:
    """As `requirements`. Raises AdmissionError with every problem at once."""
    found = requirements(spec, target)
    problems = [r.problem for r in found if r.problem]
    if problems:
        raise AdmissionError(spec.target.value, problems)
    return found


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
    if not folder.is_dir():
        problem = f"job.folder {folder} is not a folder; paths in a spec are taken from the spec file's own folder"
    elif absent := _missing_script(folder, shlex.split(entrypoint)):
        problem = f"job.entrypoint starts {absent}, but {folder / absent} does not exist"
    yield Requirement("job", entrypoint, str(folder), problem)


def _missing_script(folder: Path, words: list[str]) -> str:
    """The file that a command line starts, when it is plainly one of the folder's and is not there."""
    program, arguments = words[0], words[1:]
    if "/" in program and not program.startswith("/"):
        return "" if (folder / program).exists() else program
    if Path(program).name.startswith("python") and arguments and arguments[0].endswith(".py"):
        return "" if (folder / arguments[0]).exists() else arguments[0]
    return "" if "/" in program or shutil.which(program) or program == "python" else program


def _data(spec: RunSpec) -> Iterator[Requirement]:
    if spec.data is None or spec.data.startswith("s3://"):
        return
    problem = ""
    if "://" in spec.data:
        problem = f"data {spec.data} is of an unknown kind; use a folder or an s3:// URL"
    elif spec.data == PHANTOMS:
        if spec.job.name and spec.job.name in JOBS and not JOBS[spec.job.name].phantoms:
            problem = f"job {spec.job.name} makes no phantoms; set data to a folder or an s3:// URL"
    elif not Path(spec.data).is_dir():
        problem = f"data folder {spec.data} does not exist; paths in a spec are taken from the spec file's own folder"
    elif not os.access(spec.data, os.R_OK | os.X_OK):
        problem = f"no permission to read the data folder {spec.data}"
    yield Requirement("data", "readable", spec.data, problem)


def _output(spec: RunSpec) -> Iterator[Requirement]:
    if spec.output is None or spec.output.startswith("s3://"):
        return
    problem = ""
    if "://" in spec.output:
        problem = f"output {spec.output} is of an unknown kind; use a folder or an s3:// URL"
    else:
        path = Path(spec.output)
        existing = next(p for p in (path, *path.parents) if p.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            problem = f"no permission to write output in {spec.output}"
    yield Requirement("output", "writable", spec.output, problem)
