"""The spec: what a user asks for, as one frozen tree. One common part, and one section per target."""

from __future__ import annotations

import shlex
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Self, assert_never

from pydantic import BaseModel, Discriminator, Field, Tag, field_validator, model_validator
from pydantic.json_schema import GenerateJsonSchema

from dhctl.infra.data.section import CacheSection, DataStore
from dhctl.infra.kubernetes.section import KubernetesSection
from dhctl.infra.openstack.section import OpenStackSection
from dhctl.infra.spec_base import Frozen, Name
from dhctl.infra.units import Duration, Size, format_duration

PHANTOMS = "phantoms"
"""The value of `data` with which a job that comes with dhctl makes its own sample data."""

_GIB = 2**30


class TargetName(StrEnum):
    """Where a run can live."""

    LOCAL = "local"
    OPENSTACK = "openstack"
    KUBERNETES = "kubernetes"


class Workers(Frozen):
    """The worker group: how many nodes Ray's autoscaler may hold, and how large each one is."""

    min: int = Field(default=0, ge=0, le=1000)
    """Workers that are kept even when idle."""
    max: int = Field(default=1, ge=1, le=1000)
    """Workers at most, for all jobs of the run together."""
    cpus: int = Field(default=1, ge=1, le=1024)
    """CPU cores of each worker."""
    gpus: int = Field(default=0, ge=0, le=64)
    """GPUs of each worker."""
    memory: Size = Field(default=2 * _GIB, ge=_GIB // 4, json_schema_extra={"default": "2GiB"})
    """Memory of each worker that Ray may plan with, such as 2GiB."""
    idle_timeout: Duration = Field(default=timedelta(seconds=60), ge=timedelta(seconds=1), le=timedelta(hours=24))
    """After this long without work a worker above `min` leaves."""

    @model_validator(mode="after")
    def _min_below_max(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"workers.min is {self.min} but workers.max is {self.max}; lower min or raise max")
        return self


class ElasticWorkers(Frozen):
    """As many workers as there are, within bounds: the job trains on while some are lost or others need them."""

    min: int = Field(default=1, ge=1, le=1000)
    """The job waits until it has so many."""
    max: int = Field(ge=1, le=1000)
    """It takes no more than so many."""

    @model_validator(mode="after")
    def _min_below_max(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"job.workers.min is {self.min} but job.workers.max is {self.max}; lower min or raise max")
        return self


HowMany = Annotated[
    Annotated[int, Field(ge=1, le=1000), Tag("<number>")] | Annotated[ElasticWorkers, Tag("<bounds>")],
    Discriminator(lambda value: "<bounds>" if isinstance(value, dict | ElasticWorkers) else "<number>"),
]
"""A number of workers, or bounds. Tags in angle brackets are left out of what a user is told (yaml_model.py)."""


class Job(Frozen):
    """What runs on the cluster: a job that comes with dhctl (`name`), or your own (`folder` and `entrypoint`)."""

    name: str | None = None
    """A job that comes with dhctl, such as prostate."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Settings of that job, such as profile and seed; your own job finds them in DHCTL_JOB_PARAMS."""
    folder: str | None = None
    """Your own job: this folder is copied to the cluster and is the working directory there."""
    entrypoint: str | None = None
    """Your own job: the command line that starts it, such as `python main.py`."""
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    """Ray's runtime environment for your own job: pip, uv, env_vars, py_modules ..."""
    workers: HowMany | None = None
    """How many workers the job trains on, by default workers.max; or `{min: 1, max: 4}`: as many as there are."""
    timeout: Duration = Field(default=timedelta(hours=24), ge=timedelta(seconds=5), le=timedelta(days=14))
    """A job that runs longer is stopped and counts as failed."""
    head_restarts: int = Field(default=1, ge=0, le=20)
    """How often a head that was lost is replaced, and the job sent again, which goes on from its last checkpoint."""

    @field_validator("runtime_env")
    @classmethod
    def _ours_in_runtime_env(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "working_dir" in value:
            raise ValueError("working_dir is set by dhctl from job.folder; use folder instead")
        if not isinstance(value.get("env_vars", {}), dict):
            raise ValueError("env_vars must be a mapping of names to texts")  # noqa: TRY004 - what Pydantic turns into a sentence
        return value

    @field_validator("entrypoint")
    @classmethod
    def _parsable(cls, value: str | None) -> str | None:
        if value is not None and not shlex.split(value):
            raise ValueError("entrypoint is empty; write the command that starts your job, such as python main.py")
        return value

    @property
    def most_workers(self) -> int | None:
        """How many workers it trains on at most; None leaves it to workers.max."""
        return self.workers.max if isinstance(self.workers, ElasticWorkers) else self.workers

    def lowered(self, workers: int) -> Self:
        """This job where the run has only so many workers."""
        match self.workers:
            case None:
                return self
            case int():
                trains: int | ElasticWorkers = min(self.workers, workers)
            case ElasticWorkers(min=least, max=most):
                trains = ElasticWorkers(min=min(least, workers), max=min(most, workers))
        return self.model_copy(update={"workers": trains})

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.name and (self.folder or self.entrypoint or self.runtime_env):
            raise ValueError("give either name (a job that comes with dhctl) or folder and entrypoint (your own)")
        if not self.name and not (self.folder and self.entrypoint):
            raise ValueError("a job of your own needs both folder and entrypoint; one that comes with dhctl needs name")
        return self


class LocalSection(Frozen):
    """Only for target local."""

    scratch: str | None = None
    """Folder for the files of the living cluster (short path, local disk); by default under /tmp."""
    dashboard_port: int | None = Field(default=None, ge=1024, le=65535)
    """Port of Ray's dashboard on 127.0.0.1; by default a free one."""
    site: Name = "local"
    """Where this machine stands: data with another `residency` is refused."""


class RunSpec(Frozen):
    """One training run: where, for how long at most, on how many workers, which job on which data."""

    name: Name
    """Name of the run for people: small letters, digits and dashes."""
    target: TargetName = TargetName.LOCAL
    """Where the run lives."""
    lease: Duration = Field(default=timedelta(hours=4), ge=timedelta(seconds=30), le=timedelta(days=14))
    """Until when the run may live at all, counted from its start; then it is taken down, finished or not."""
    workers: Workers = Workers()
    job: Job
    data: str | None = Field(default=None, min_length=1)
    """Input of the job: a folder, an s3:// URL, `STORE:FOLDER` in a store of `stores`, or `phantoms` where the job can
    make sample data."""
    output: str | None = Field(default=None, min_length=1)
    """Where checkpoints and results go: a folder, an s3:// URL or `STORE:FOLDER`, in which each run gets a folder of
    its own; by default the run's own record."""
    resume: str | None = None
    """Output of an earlier run, a folder or an s3:// URL, from whose last checkpoint the job goes on; set by
    `dhctl run --resume RUN`."""
    stores: dict[Name, DataStore] = Field(default_factory=dict)
    """Places with data, by name: each with `url`, and `residency` where the data may not leave a site."""
    cache: CacheSection = CacheSection()
    local: LocalSection = LocalSection()
    openstack: OpenStackSection = OpenStackSection()
    kubernetes: KubernetesSection = KubernetesSection()

    @model_validator(mode="after")
    def _job_fits(self) -> Self:
        most = self.job.most_workers
        if most is not None and most > self.workers.max:
            name = "job.workers.max" if isinstance(self.job.workers, ElasticWorkers) else "job.workers"
            raise ValueError(f"{name} is {most} but workers.max is {self.workers.max}; the job would wait for ever")
        return self

    @property
    def site(self) -> str | None:
        """Where the target stands, None when the spec does not say it."""
        match self.target:
            case TargetName.LOCAL:
                return self.local.site
            case TargetName.OPENSTACK:
                return self.openstack.site
            case TargetName.KUBERNETES:
                return self.kubernetes.site
            case _:
                assert_never(self.target)

    @property
    def job_workers(self) -> int:
        """How many workers the job trains on at most."""
        return self.job.most_workers or self.workers.max

    @property
    def job_workers_min(self) -> int:
        """How many workers the job needs; as many as `job_workers` where the job is not elastic."""
        return self.job.workers.min if isinstance(self.job.workers, ElasticWorkers) else self.job_workers


def schema() -> dict[str, Any]:
    """The JSON schema of a spec file (draft 2020-12)."""
    body = RunSpec.model_json_schema(schema_generator=_UnitsInDefaults)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **body}


class _UnitsInDefaults(GenerateJsonSchema):
    """Defaults as a spec file would say them."""

    def encode_default(self, dft: Any) -> Any:
        """A part's default is said by its own keys, and a duration is written with its unit."""
        if isinstance(dft, BaseModel):
            return {}
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)
