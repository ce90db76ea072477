"""The crate's metadata: run and jobs as actions of the Process Run Crate profile, and all that lies in the crate."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dhctl.infra.crate import layout
from dhctl.infra.crate.checkpoints import StoredModel
from dhctl.infra.crate.digests import file_sha256
from dhctl.infra.crate.facts import JobFacts, RunFacts
from dhctl.infra.crate.layout import Agent

_KINDS = {".json": "application/json", ".jsonl": "application/jsonl", ".py": "text/x-python"}

_TOLD = {
    layout.RUN: "The run as dhctl recorded it: versions, nodes with begin and end, lease, digests",
    layout.SPEC: "The spec as admitted, without what is withheld",
    layout.GIVEN: "The spec as its user gave it, without what is withheld",
    layout.RECEIPT: "The receipt: what was left after the run",
    layout.TIMELINE: "The run's ledger: each act with its time",
    "result.json": "What the job said its result is",
    "metrics.jsonl": "Metrics as the job told them, one line a step such as an epoch",
    "environment.json": "Python and packages that the job's driver found",
}


class Description:
    """Builds the graph of one crate whose files lie in `folder` already."""

    def __init__(self, facts: RunFacts, folder: Path, models: Sequence[StoredModel], agent: Agent | None) -> None:
        from rocrate.model import ContextEntity, DataEntity  # a third of a second
        from rocrate.rocrate import ROCrate

        self._facts, self._folder, self._models, self._agent = facts, folder, models, agent
        self._crate = ROCrate(version=layout.RO_CRATE)
        self._crate.metadata.extra_terms = dict(layout.TERMS)
        self._data, self._context = DataEntity, ContextEntity

    def write(self, license_url: str | None) -> None:
        """Writes ro-crate-metadata.json."""
        self._root(license_url)
        self._software()
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            if path.is_file() and not name.startswith((f"{layout.CODE}/", f"{layout.CHECKPOINTS}/")):
                self._file(name, path)
        for model in self._models:
            self._model(model)
        actions = [self._run_action(), *map(self._job_action, self._facts.jobs)]
        self._crate.root_dataset["mentions"] = actions
        self._crate.metadata.write(self._folder)

    def _add(self, kind: Any, known_as: str, type_: Any, /, **properties: Any) -> Any:
        """`known_as`: its @id. What is nothing is not said, and one thing is no list."""
        said = {key: value for key, value in properties.items() if value not in (None, "", [])}
        said = {k: v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in said.items()}
        return self._crate.add(kind(self._crate, known_as, {"@type": type_, **said}))

    def _thing(self, known_as: str, type_: Any, /, **properties: Any) -> Any:
        """Something that is no part of the crate's files."""
        return self._add(self._context, known_as, type_, **properties)

    def _root(self, license_url: str | None) -> None:
        body = self._facts.body
        root = self._crate.root_dataset
        profile = self._thing(layout.PROCESS_PROFILE, "CreativeWork", name="Process Run Crate", version="0.5")
        root["name"] = f"Training run {body['name']} ({body['run']})"
        root["description"] = (
            f"Record of a run of dhctl {body['dhctl']} on {body['target']}: spec, code, versions, nodes, metrics, "
            "result, receipt. Secrets, places and identifiers of patients are withheld."
        )
        root["conformsTo"] = profile
        root["datePublished"] = datetime.now(UTC).isoformat(timespec="seconds")
        root["license"] = (
            self._thing(license_url, "CreativeWork", name=license_url)
            if license_url
            else self._thing("#no-license", "CreativeWork", name="No licence stated: ask whoever gave you this crate")
        )

    def _software(self) -> None:
        """dhctl, the engine with its plugins."""
        body = self._facts.body
        engine = [
            self._thing(f"#{name}", "SoftwareApplication", name=name, softwareVersion=version)
            for name, version in body["engine"].items()
        ]
        self._thing(
            "#dhctl", "SoftwareApplication", name="dhctl", softwareVersion=body["dhctl"], softwareRequirements=engine
        )
        if self._agent:
            self._crate.root_dataset["author"] = self._thing(self._agent.id, "Person", name=self._agent.name)
        digest = body["data"].get("sha256")
        self._thing(
            "#data",
            "CreativeWork",
            name=self._facts.admitted.get("data") or "the run's data; their place is withheld",
            description=f"Known by their {body['data']['kind']}" if digest else "Not digested by dhctl",
            identifier=f"sha256:{digest}" if digest else None,
        )

    def _file(self, name: str, path: Path) -> None:
        self._add(
            self._data,
            name,
            "File",
            name=name,
            description=_TOLD.get(path.name),
            encodingFormat=_KINDS.get(path.suffix, "text/plain"),
            sha256=file_sha256(path),
            contentSize=str(path.stat().st_size),
        )

    def _model(self, model: StoredModel) -> None:
        """By its digest as a URI (RFC 6920) where it is not in the crate."""
        self._add(
            self._data,
            self._model_id(model),
            "File",
            name=model.key,
            description="A model or checkpoint in the run's output",
            encodingFormat="application/octet-stream",
            sha256=model.sha256,
            contentSize=str(model.size_bytes),
        )

    def _model_id(self, model: StoredModel) -> str:
        copied = f"{layout.CHECKPOINTS}/{model.sha256}"
        if (self._folder / copied).exists():
            return copied
        value = base64.urlsafe_b64encode(bytes.fromhex(model.sha256)).decode().rstrip("=")
        return f"ni:///sha-256;{value}?ct=application/octet-stream#{model.key}"

    def _run_action(self) -> Any:
        """The run as a whole: its cluster from the first act to the last."""
        body, files = self._facts.body, (layout.RUN, layout.RECEIPT, layout.TIMELINE)
        spent = self._value("worker-seconds", "time of all workers together", body["worker_seconds"], "s")
        return self._thing(
            "#run",
            "CreateAction",
            name=f"Run {body['run']}",
            description=f"A Ray cluster on {body['target']}, brought up, used and taken down by dhctl",
            instrument=self._crate.get("#dhctl"),
            startTime=_time(body["started"]),
            endTime=_time(body["ended"]),
            agent=self._crate.get(self._agent.id) if self._agent else None,
            object=[self._crate.get(name) for name in (layout.GIVEN, layout.SPEC) if self._crate.get(name)],
            result=[*(self._crate.get(name) for name in files if self._crate.get(name)), spent],
        )

    def _job_action(self, job: JobFacts) -> Any:
        body = self._facts.body
        status = "CompletedActionStatus" if job.succeeded else "FailedActionStatus"
        return self._thing(
            f"#job-{job.number}",
            "CreateAction",
            name=f"Job {job.number} of {body['run']}",
            description=f"Ray job, {job.status}; its exact command and settings are in {layout.SPEC}",
            instrument=self._instrument(job),
            startTime=_time(job.started.isoformat()),
            endTime=_time(job.ended.isoformat() if job.ended else None),
            actionStatus=f"http://schema.org/{status}",
            agent=self._crate.get(self._agent.id) if self._agent else None,
            object=[self._crate.get("#data"), self._crate.get(layout.SPEC)],
            result=list(self._results(job)),
            containerImage=list(self._images()),
        )

    def _instrument(self, job: JobFacts) -> Any:
        """The job's code, with the packages that the first job of this code found."""
        identifier = layout.code_folder(job.code_sha256) if job.code else f"#code-{job.code_sha256[:12]}"
        known = self._crate.get(identifier)
        if known:
            return known
        name = (self._facts.admitted.get("job") or {}).get("name") or "the job's own code"
        packages = job.environment.get("packages", {})
        return self._add(
            self._data if job.code else self._context,
            identifier,
            ["Dataset", "SoftwareSourceCode"] if job.code else "SoftwareSourceCode",
            name=name,
            version=job.code_sha256[:12],
            identifier=f"sha256:{job.code_sha256}",
            runtimePlatform=f"Python {job.environment['python']}" if "python" in job.environment else None,
            softwareRequirements=[self._package(*one) for one in packages.items()],
        )

    def _package(self, name: str, version: str) -> Any:
        """Known by its package URL, which says what it is, not where it was installed from."""
        identifier = f"pkg:pypi/{name}@{quote(version)}"
        return self._crate.get(identifier) or self._thing(
            identifier, "SoftwareApplication", name=name, softwareVersion=version
        )

    def _results(self, job: JobFacts) -> Iterator[Any]:
        for name in ("result.json", "metrics.jsonl", "environment.json"):
            found = self._crate.get(layout.job_file(job.number, name))
            if found:
                yield found
        yield from self._metric(job)
        seconds = job.outcome.get("time_to_model_s")
        if seconds is not None and job.succeeded:
            yield self._value(f"time-to-model-{job.number}", "time from the run's start to its model", seconds, "s")
        if job is self._facts.told_job:
            yield from (self._crate.get(self._model_id(model)) for model in self._models)

    def _metric(self, job: JobFacts) -> Iterator[Any]:
        metric: Mapping[str, Any] = job.result.get("metric") or {}
        if "value" in metric:
            low, high = metric.get("ci95") or (None, None)
            yield self._thing(
                f"#metric-{job.number}",
                "PropertyValue",
                name=metric.get("name", "metric"),
                value=metric["value"],
                minValue=low,
                maxValue=high,
                description="with its 95 % interval",
            )

    def _value(self, identifier: str, name: str, value: Any, unit: str) -> Any:
        return self._thing(f"#{identifier}", "PropertyValue", name=name, value=value, unitText=unit)

    def _images(self) -> Iterator[Any]:
        for number, image in enumerate(self._facts.body["images"], start=1):
            digest = str(image.get("digest", ""))
            yield self._thing(
                f"#image-{number}",
                "ContainerImage",
                name=image.get("name") or image.get("id"),
                sha256=digest.removeprefix("sha256:") if digest.startswith("sha256:") else None,
                identifier=digest,
            )


def _time(told: str | None) -> str | None:
    """As the profile wants it: no microseconds."""
    return datetime.fromisoformat(told).isoformat(timespec="milliseconds") if told else None
