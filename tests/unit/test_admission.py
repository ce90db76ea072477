"""Admission: everything that would fail later, said before the first write, all at once."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dhctl.infra.admission import admit, requirements
from dhctl.infra.errors import AdmissionError, ExitCode
from dhctl.infra.events import Event, Warned, ignore
from dhctl.infra.local import machine
from dhctl.infra.spec import RunSpec
from dhctl.infra.target import Requirement
from dhctl.stacks.local.target import LocalTarget
from unit.fakes import FakeTarget, make_spec


@pytest.fixture(autouse=True)
def _roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same machine wherever the tests run."""
    monkeypatch.setattr(machine, "look", lambda folder: machine.Machine(8, 16 * 2**30, 2, 50 * 2**30))


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "code" / "bin").mkdir(parents=True)
    (tmp_path / "code" / "main.py").write_text("")
    (tmp_path / "code" / "bin" / "go").write_text("")
    return tmp_path / "code"


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a path short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="d") as folder:
        yield Path(folder)


@pytest.fixture
def own(code: Path, short: Path) -> dict[str, Any]:
    return {"job": {"folder": str(code), "entrypoint": "python main.py"}, "local": {"scratch": str(short / "s")}}


@dataclass
class FullTarget(FakeTarget):
    """A place that has a problem of its own."""

    left: tuple[()] = ()
    fails: dict[str, Exception] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def admit(self, spec: RunSpec) -> list[Requirement]:
        return [Requirement("room", "1", "0", "no room here; free some")]


def problems(**changes: Any) -> list[str]:
    return [r.problem for r in requirements(make_spec(**changes), LocalTarget()) if r.problem]


def test_what_fits_is_admitted_and_nothing_is_written(own: dict[str, Any], tmp_path: Path, short: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    spec, told = make_spec(**own), list[Event]()
    found = requirements(spec, LocalTarget())
    assert admit(spec, LocalTarget(), told.append) == spec
    assert told == []
    assert [r.problem for r in found if r.problem] == []
    assert {r.what for r in found} == {"job", "CPU cores", "GPUs", "memory", "scratch folder", "disk"}
    assert sorted(tmp_path.rglob("*")) == before
    assert list(short.iterdir()) == []


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    spec = make_spec(
        job={"folder": str(tmp_path / "gone"), "entrypoint": "x"}, data=str(tmp_path / "none"), output="ftp://x/y"
    )
    with pytest.raises(AdmissionError) as caught:
        admit(spec, FullTarget(), ignore)
    assert caught.value.exit_code is ExitCode.REFUSED
    told = str(caught.value)
    assert told.startswith("target local cannot take this run: ")
    assert len(caught.value.problems) == 4
    for part in ("job.folder", "data folder", "output ftp://x/y", "no room here; free some"):
        assert part in told


def test_an_unknown_job_names_the_nearest() -> None:
    (told,) = problems(job={"name": "prostrate"}, data="phantoms")
    assert told == "no job 'prostrate' comes with dhctl; did you mean 'prostate'?"


def test_a_job_that_comes_with_dhctl_needs_data() -> None:
    told = problems(job={"name": "prostate"})
    assert told[-1] == "job prostate needs data: a folder, an s3:// URL, or phantoms"


def test_its_settings_are_judged_before_anything_is_made() -> None:
    told = problems(job={"name": "prostate", "params": {"profile": "tinny"}}, data="phantoms")
    assert len(told) == 1
    assert "tiny" in told[0]


@pytest.mark.parametrize(
    ("entrypoint", "absent"),
    [
        ("python train.py --epochs 3", "train.py"),
        ("python3 sub/train.py", "sub/train.py"),
        ("./run.sh", "./run.sh"),
        ("bin/run", "bin/run"),
        ("no-such-program x", "no-such-program"),
    ],
)
def test_a_missing_entrypoint_is_named(own: dict[str, Any], code: Path, entrypoint: str, absent: str) -> None:
    own["job"]["entrypoint"] = entrypoint
    assert problems(**own) == [f"job.entrypoint starts {absent}, but it is not in {code}"]


@pytest.mark.parametrize(
    "entrypoint", ["python main.py", "bin/go now", "sh -c 'echo x'", "python -m main", "/bin/true"]
)
def test_an_entrypoint_that_is_there_is_taken(own: dict[str, Any], entrypoint: str) -> None:
    own["job"]["entrypoint"] = entrypoint
    assert problems(**own) == []


@pytest.mark.parametrize(
    "entrypoint",
    [
        "SEED=7 python main.py",
        "cd bin && ./go",
        "torchrun main.py",
        pytest.param("exec python main.py"),
        pytest.param("accelerate launch main.py"),
    ],
)
def test_a_command_line_that_works_on_the_cluster_is_taken(
    own: dict[str, Any], entrypoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # as with pipx: dhctl's own venv is not on it
    own["job"] |= {"entrypoint": entrypoint, "runtime_env": {"pip": ["accelerate"]}}
    assert problems(**own) == []


def large(path: Path) -> None:
    """A file of 600 MiB that takes no room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(600 * 2**20)


def test_a_job_folder_above_what_ray_takes_is_refused(own: dict[str, Any], code: Path) -> None:
    large(code / "slides" / "a.svs")
    assert problems(**own) == [f"job.folder {code} is above 512 MiB; keep data out of it and set data to it"]


def test_what_is_never_sent_does_not_count(own: dict[str, Any], code: Path) -> None:
    large(code / ".venv" / "lib" / "torch.so")
    assert problems(**own) == []


def test_a_missing_job_folder_is_named(tmp_path: Path) -> None:
    (told,) = problems(job={"folder": str(tmp_path / "gone"), "entrypoint": "python x.py"})
    assert told.startswith(f"job.folder {tmp_path / 'gone'} is not a folder; ")


def test_a_missing_data_folder_is_named(own: dict[str, Any], tmp_path: Path) -> None:
    (told,) = problems(**own, data=str(tmp_path / "none"))
    assert told.startswith(f"data folder {tmp_path / 'none'} does not exist; ")


@pytest.mark.parametrize("key", ["data", "output"])
def test_urls_of_an_unknown_kind_are_refused(own: dict[str, Any], key: str) -> None:
    assert problems(**own, **{key: "gs://b/x"}) == [
        f"{key} gs://b/x is of an unknown kind; use a folder or an s3:// URL"
    ]


def test_output_needs_a_folder_above_it(own: dict[str, Any], code: Path) -> None:
    (told,) = problems(**own, output=str(code / "main.py" / "out"))
    assert told.startswith("no permission to write output in")


@pytest.mark.parametrize("key", ["data", "output"])
def test_a_path_that_cannot_be_looked_at_is_no_bug(own: dict[str, Any], key: str) -> None:
    told = problems(**own, **{key: "/" + "x" * 300})  # too long a name; EACCES does the same to a user who is not root
    assert told or key == "output"


@pytest.mark.parametrize(
    ("workers", "told"),
    [
        (
            {"max": 9, "memory": "1GiB"},
            "9 workers need 9 CPU cores and this machine has 8; lower workers.max or make the workers smaller",
        ),
        (
            {"max": 2, "gpus": 2},
            "2 workers need 4 GPUs and this machine has 2; lower workers.max or make the workers smaller",
        ),
        (
            {"max": 4, "memory": "4GiB"},
            "4 workers and the head need 16.9 GiB memory and 16 GiB are free; "
            "lower workers.max or make the workers smaller",
        ),
    ],
)
def test_more_than_the_machine_holds_is_refused(own: dict[str, Any], workers: dict[str, Any], told: str) -> None:
    assert problems(**own, workers=workers) == [told]


def test_a_full_disk_is_refused(own: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "look", lambda folder: machine.Machine(8, 16 * 2**30, 2, 2**29))
    (told,) = problems(**own)
    assert told.startswith("1 GiB are needed under ")
    assert told.endswith(" and 512 MiB are free; free some or set local.scratch")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_that_is_taken_is_refused_with_its_holder(own: dict[str, Any], taken: int) -> None:
    own["local"]["dashboard_port"] = taken
    (told,) = problems(**own)
    assert told.startswith(f"port {taken} is taken by ")
    assert f"(pid {os.getpid()}); set local.dashboard_port to a free one, or leave it out" in told


def test_a_free_port_is_admitted(own: dict[str, Any], taken: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own["local"]["dashboard_port"] = port
    assert problems(**own) == []


def test_a_scratch_path_too_long_for_sockets_is_refused(own: dict[str, Any], tmp_path: Path) -> None:
    own["local"]["scratch"] = str(tmp_path / ("x" * 100))
    (told,) = problems(**own)
    assert "is too long a path for Ray's sockets; set local.scratch to one of at most " in told


def test_a_file_in_the_place_of_the_scratch_folder_is_refused(own: dict[str, Any], short: Path) -> None:
    (short / "s").write_text("")
    (told,) = problems(**own)
    assert told == f"no permission to make {short / 's'}; set local.scratch to a folder of yours"


def test_a_scratch_folder_of_another_user_is_refused(
    own: dict[str, Any], short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (short / "s").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    (told,) = problems(**own)
    assert told == f"{short / 's'} belongs to another user; set local.scratch to a folder of yours"


class NarrowTarget(FakeTarget):
    """Has room for two workers."""

    def admit(self, spec: RunSpec) -> list[Requirement]:
        many = spec.workers.max > 2
        return [Requirement("quota: cores", str(spec.workers.max), "2", warning="only 2 fit; ask for quota" * many)]

    def settle(self, spec: RunSpec) -> RunSpec:
        return spec

    def shrink(self, spec: RunSpec) -> tuple[RunSpec, str]:
        workers = spec.workers.model_copy(update={"max": 2})
        return spec.model_copy(update={"workers": workers}), "workers.max is lowered to 2"


def test_a_place_too_narrow_for_all_workers_gets_fewer_with_a_warning(own: dict[str, Any]) -> None:
    told: list[Event] = []
    admitted = admit(make_spec(**own, workers={"max": 5}), NarrowTarget(), told.append)
    assert admitted.workers.max == 2
    assert told == [Warned("workers.max is lowered to 2")]


def test_strict_refuses_instead(own: dict[str, Any]) -> None:
    with pytest.raises(AdmissionError, match="only 2 fit"):
        admit(make_spec(**own, workers={"max": 5}), NarrowTarget(), ignore, strict=True)
    spec = make_spec(**own, workers={"max": 2})
    assert admit(spec, NarrowTarget(), ignore, strict=True) == spec
