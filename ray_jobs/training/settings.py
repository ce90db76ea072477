"""Settings that every training has, and how a profile and a user's changes become settings."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dhctl.ray_jobs.environment import RefusedInputError


class TrainingSettings(BaseModel):
    """What the training core reads; a job adds its own fields. Frozen; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    without_effect: ClassVar[frozenset[str]] = frozenset(
        {"stage", "model_from", "max_failures", "resize_interval_s", "keep_checkpoints", "loader_threads"}
    )
    """Fields that do not change the model: a training goes on from its checkpoint when they are changed."""

    profile: str = "tiny"
    """Which profile the other settings come from."""
    stage: Literal["all", "predict"] = "all"
    """all: prepare, train and evaluate. predict: what a trained model makes of the data, where the job has that."""
    model_from: str | None = None
    """For predict: output of the run whose model is used, a folder or an s3:// URL; by default this run's own."""
    seed: int = Field(default=0, ge=0)
    """Seed of the weights and the order of training, and of all else that is drawn."""
    epochs: int = Field(ge=1, le=1000)
    """Rounds of training at most; after each comes a validation score and a checkpoint."""
    draws_per_epoch: int = Field(default=1, ge=1)
    """How often each sample is drawn in an epoch, varied anew each time."""
    batch: int = Field(ge=1)
    """Samples per optimiser step over all workers together, whatever their number."""
    learning_rate: float = Field(gt=0)
    """Peak of the one-cycle schedule of AdamW, which counts samples, not steps."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Weight decay of AdamW."""
    largest_gradient: float = Field(default=2.0, gt=0)
    """Gradients are cut to this norm: small batches have outliers."""
    patience: int | None = Field(default=None, ge=1)
    """Training ends after this many epochs without a better validation score; null never ends it early."""
    max_failures: int = Field(default=3, ge=-1)
    """How often training restarts from its last checkpoint after a lost worker; -1 is without end."""
    resize_interval_s: float = Field(default=60, ge=1)
    """How often an elastic training looks whether there are more or fewer workers for it; a change costs the epoch."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """How many of the last checkpoints are kept."""
    loader_threads: int = Field(default=0, ge=0)
    """Threads per train worker that read samples ahead; 0 reads each batch when it is wanted."""

    def digest(self, *names: str) -> str:
        """First 12 hex digits of SHA-256 over the named fields, or over those that change the model."""
        chosen = set(names) or set(type(self).model_fields) - self.without_effect
        text = json.dumps(self.model_dump(include=chosen, mode="json", by_alias=True), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @classmethod
    def spoken(cls, name: str) -> str:
        """What a user calls the field in job.params: its alias, where a job gives it one."""
        return cls.model_fields[name].alias or name


SomeSettings = TypeVar("SomeSettings", bound=TrainingSettings)


def settings_from(
    kind: type[SomeSettings], profiles: Mapping[str, Mapping[str, Any]], params: Mapping[str, Any]
) -> SomeSettings:
    """The profile named in `params` (else the first), changed by the rest of them.

    Raises RefusedInputError, one sentence a problem.
    """
    profile = params.get("profile", next(iter(profiles)))
    if profile not in profiles:
        raise RefusedInputError(f"job.params.profile is '{profile}'; use one of {', '.join(profiles)}")
    known = [kind.spoken(name) for name in kind.model_fields]
    unknown = [name for name in params if name not in known]
    if unknown:
        raise RefusedInputError("; ".join(_unknown(name, known) for name in unknown))
    try:
        return kind.model_validate({"profile": profile, **profiles[profile], **params})
    except ValidationError as error:
        raise RefusedInputError("; ".join(map(_sentence, error.errors()))) from error


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"job.params has no setting '{name}'; did you mean {near[0]}?"


def _sentence(problem: Any) -> str:
    where = ".".join(str(part) for part in ("job.params", *problem["loc"]))
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}"
