"""What makes a job one of its own, as a table of functions: the rest is the same for all (job.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from dhctl.ray_jobs.storage import Store
from dhctl.ray_jobs.training.settings import TrainingSettings

if TYPE_CHECKING:
    from dhctl.ray_jobs.pipeline.job import Job
    from dhctl.ray_jobs.training.task import Task


class Cohort(Protocol):
    """All usable cases of a data store, as `prepare` left them."""

    @property
    def digest(self) -> str:
        """SHA-256 in hex over contents, labels and split: another digest is another training."""
        ...

    @property
    def skipped(self) -> Sequence[Any]:
        """Cases left out: dataclasses that name the case and the `reason`."""
        ...

    def part(self, name: str) -> Sequence[Any]:
        """The cases of train, validation or test."""
        ...


SettingsT = TypeVar("SettingsT", bound=TrainingSettings)
CohortT = TypeVar("CohortT", bound=Cohort)


@dataclass(frozen=True)
class Recipe(Generic[SettingsT, CohortT]):
    """One job that comes with dhctl. All functions are module-level: they are pickled by name."""

    name: str
    """As in job.name of a spec."""
    summary: str
    """One sentence, the help of its command."""
    sample: str
    """What progress and rates count: slide, lesion, scan."""
    what_phantoms_are: str
    """What a result says of generated data."""
    settings: Callable[[Mapping[str, Any]], SettingsT]
    """job.params -> settings. Raises RefusedInputError."""
    phantoms: Callable[[Job[SettingsT]], Store]
    """Generate sample data into the job's output, unless it is there; gives its store. See `Job.generate`."""
    prepare: Callable[[Job[SettingsT], Store], CohortT]
    """A data store -> shards and their index in `job.shards`; what is there already is not made again."""
    read_cohort: Callable[[Job[SettingsT]], CohortT]
    """The cohort that `prepare` left. Raises RefusedInputError where it has not run with these settings."""
    task: Callable[[Job[SettingsT], CohortT], Task]
    """What is trained."""
    evaluate: Callable[[Job[SettingsT], CohortT, Mapping[str, Any]], dict[str, Any]]
    """The model's state dict -> `{"metric": {...}, ...}` on the test part.

    It runs on a worker (as one Ray task of a worker's size, torch's threads set); `job.device` is where the model goes.
    `metric` has name, value, ci95 [low, high], baseline {name, value} and baselines [the same, ...].
    """
    predict: Callable[[Job[SettingsT], Store], dict[str, Any]] | None = None
    """A data store -> results in the output and a summary of them; runs on the driver.

    The model is read where it is used (`read_model`): the driver's copy would be sent along with every sample.
    """
    packages: tuple[str, ...] = ()
    """Distributions whose versions a result names, beside those of the core."""
