"""Spec files: every mistake is a sentence with the key and the next step; folders are taken from the file's own."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from dhctl.infra.errors import ExitCode, SpecError
from dhctl.infra.spec_file import load_spec, parse_spec
from dhctl.infra.yaml_model import nearest

JOB = "job: {name: prostate}\n"
OWN = "job: {folder: code, entrypoint: python main.py}\n"


def problems(text: str, base: Path = Path("/specs")) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, source="trial.yaml", base=base)
    assert caught.value.exit_code is ExitCode.USAGE
    assert str(caught.value).startswith("trial.yaml: ")
    assert str(caught.value).endswith("`dhctl schema` prints every key")
    assert len(caught.value.problems) == 1 or str(caught.value).count("\n  - ") == len(caught.value.problems)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: a\nworker: {max: 2}\n" + JOB, "unknown key 'worker'; did you mean 'workers'?"),
        ("name: a\nworkers: {maximum: 2}\n" + JOB, "unknown key 'workers.maximum'; did you mean 'max'?"),
        (
            "name: a\nlocal: {zone: 2}\n" + JOB,
            "unknown key 'local.zone' (known here: scratch, dashboard_port, site)",
        ),
        ("name: a\n", "key 'job' is missing"),
        (
            "name: a\ntarget: openstak\n" + JOB,
            "target: 'openstak' is not known; choose 'local', 'openstack' or 'kubernetes'",
        ),
        (
            "name: My_Run\n" + JOB,
            "name: 'My_Run' does not fit; use small letters, digits and dashes, at most 40 characters",
        ),
        ("name: yes\n" + JOB, "name: input should be a valid string, not True"),
        (
            "name: a\nlease: 2\n" + JOB,
            "lease: 2 is not a duration; write a number with a unit, such as 90s, 30m, 2h or 1d12h",
        ),
        (
            "name: a\nworkers: {memory: 2}\n" + JOB,
            "workers.memory: 2 is not a size; write a number with a unit, such as 512MiB or 2GiB",
        ),
        (
            "name: a\nworkers: {min: 3, max: 1}\n" + JOB,
            "workers: workers.min is 3 but workers.max is 1; lower min or raise max",
        ),
        (
            "name: a\nworkers: {max: 2}\njob: {name: prostate, workers: 3}\n",
            "job.workers is 3 but workers.max is 2; the job would wait for ever",
        ),
        (
            "name: a\nworkers: {max: 2}\njob: {name: prostate, workers: {max: 3}}\n",
            "job.workers.max is 3 but workers.max is 2; the job would wait for ever",
        ),
        (
            "name: a\njob: {folder: code}\n",
            "job: a job of your own needs both folder and entrypoint; one that comes with dhctl needs name",
        ),
        (
            "name: a\njob: {name: prostate, entrypoint: x}\n",
            "job: give either name (a job that comes with dhctl) or folder and entrypoint (your own)",
        ),
        (
            "name: a\njob: {folder: code, entrypoint: ' '}\n",
            "job.entrypoint: entrypoint is empty; write the command that starts your job, such as python main.py",
        ),
        ("name: a\njob: {folder: code, entrypoint: 'python \"x'}\n", "job.entrypoint: No closing quotation"),
        (
            "name: a\njob: {folder: c, entrypoint: x, runtime_env: {working_dir: y}}\n",
            "job.runtime_env: working_dir is set by dhctl from job.folder; use folder instead",
        ),
        (
            "name: a\njob: {folder: c, entrypoint: x, runtime_env: {env_vars: 3}}\n",
            "job.runtime_env: env_vars must be a mapping of names to texts",
        ),
        ("name: a\nname: b\n" + JOB, "line 2: key 'name' is given twice"),
        ("name: a\nworkers: {max: 1, max: 2}\n" + JOB, "line 2: key 'max' is given twice"),
        ("name: a\njob: *other\n", "line 2: found undefined alias 'other'"),
        ("name: [a\n", "line 2: expected ',' or ']', but got '<stream end>'"),
        ("- name\n", "is not a mapping of keys to values; see examples/prostate-local.yaml"),
        ("", "is not a mapping of keys to values; see examples/prostate-local.yaml"),
        ("name: a\n1: 2\n" + JOB, "1: keys should be strings, not 1"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_key(text: str, sentence: str) -> None:
    assert problems(text) == (sentence,)


@pytest.mark.parametrize(
    ("text", "key", "limit"),
    [
        ("name: a\nlease: 1s\n" + JOB, "lease", "30 seconds"),
        ("name: a\nworkers: {max: 0}\n" + JOB, "workers.max", "greater than or equal to 1"),
        ("name: a\nworkers: {gpus: -1}\n" + JOB, "workers.gpus", "greater than or equal to 0"),
        ("name: a\nlocal: {dashboard_port: 80}\n" + JOB, "local.dashboard_port", "1024"),
        ("name: a\njob: {name: prostate, timeout: 1s}\n", "job.timeout", "5 seconds"),
    ],
)
def test_a_value_out_of_bounds_names_the_bound(text: str, key: str, limit: str) -> None:
    (told,) = problems(text)
    assert told.startswith(f"{key}: ")
    assert limit in told


def test_all_mistakes_are_told_at_once() -> None:
    told = problems("name: a\nleese: 1h\nworkers: {max: two}\n")
    assert [t.split(":")[0].split(" ")[0] for t in told] == ["workers.max", "key", "unknown"]


def test_a_control_character_is_told_as_bad_yaml() -> None:
    (told,) = problems("name: a\x01\n")
    assert told.startswith("is not valid YAML")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("name: 2026-13-45\n" + JOB, id="a date that is none"),
        pytest.param("name: !!int abc\n" + JOB, id="a forced type"),
        pytest.param("name: " + "[" * 600 + "]" * 600, id="deep nesting"),
        pytest.param("name: a\nlease: 9999999999999d\n" + JOB, id="a lease beyond the calendar"),
        pytest.param("name: a\ndata: ~nosuchuser/slides\n" + JOB, id="a home of nobody"),
        pytest.param('name: a\ndata: "a\\0b"\n' + JOB, id="a NUL in a path"),
    ],
)
def test_a_malformed_value_is_a_spec_error(text: str) -> None:
    assert problems(text)


def test_yaml_merge_keys_work() -> None:
    spec = parse_spec("name: a\nworkers: {<<: {min: 1}, max: 2}\n" + JOB, source="s", base=Path("/specs"))
    assert (spec.workers.min, spec.workers.max) == (1, 2)


def test_a_file_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"absent\.yaml: cannot be read \(No such file or directory\)"):
        load_spec(tmp_path / "absent.yaml")


def test_a_folder_is_no_spec_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cannot be read \(Is a directory\)"):
        load_spec(tmp_path)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    with pytest.raises(SpecError, match="is not UTF-8 text; save it as UTF-8"):
        load_spec(tmp_path / "latin.yaml")


def test_relative_folders_are_taken_from_the_files_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "a.yaml").write_text("name: a\ndata: ../slides\noutput: out\nlocal: {scratch: /s}\n" + OWN)
    monkeypatch.chdir(tmp_path)
    spec = load_spec(Path("specs/a.yaml"))
    assert spec.data == str(tmp_path / "slides")
    assert spec.output == str(tmp_path / "specs" / "out")
    assert spec.job.folder == str(tmp_path / "specs" / "code")
    assert spec.local.scratch == "/s"


def test_the_users_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert parse_spec("name: a\ndata: ~/slides\n" + JOB, source="s", base=Path("/x")).data == "/home/ada/slides"


@pytest.mark.parametrize("data", ["s3://bucket/slides", "phantoms"])
def test_urls_and_phantoms_are_no_folders(data: str) -> None:
    assert parse_spec(f"name: a\ndata: {data}\n" + JOB, source="s", base=Path("/x")).data == data


def test_a_folder_of_ones_own_may_be_called_phantoms() -> None:
    text = "name: a\noutput: phantoms\njob: {folder: phantoms, entrypoint: python main.py}\n"
    spec = parse_spec(text, source="s", base=Path("/x"))
    assert (spec.output, spec.job.folder) == ("/x/phantoms", "/x/phantoms")


def test_empty_data_is_refused() -> None:
    assert problems("name: a\ndata: ''\n" + JOB)


def test_both_kinds_of_job_are_read() -> None:
    ours = parse_spec("name: a\njob: {name: prostate, params: {seed: 7}}\n", source="s", base=Path("/x"))
    own = parse_spec("name: a\njob: {folder: /c, entrypoint: ./go, timeout: 5m}\n", source="s", base=Path("/x"))
    assert (ours.job.name, ours.job.params) == ("prostate", {"seed": 7})
    assert (own.job.folder, own.job.entrypoint, own.job.timeout) == ("/c", "./go", timedelta(minutes=5))


def test_a_job_trains_on_all_workers_unless_told_otherwise() -> None:
    text = "name: a\nworkers: {max: 4}\njob: {name: prostate%s}\n"
    assert parse_spec(text % "", source="s", base=Path("/x")).job_workers == 4
    assert parse_spec(text % ", workers: 3", source="s", base=Path("/x")).job_workers == 3


@pytest.mark.parametrize(
    ("workers", "bounds", "lowered"),
    [("3", (3, 3), 2), ("{max: 4}", (1, 4), (1, 2)), ("{min: 3, max: 4}", (3, 4), (2, 2)), ("1", (1, 1), 1)],
)
def test_bounds_of_a_job(workers: str, bounds: tuple[int, int], lowered: int | tuple[int, int]) -> None:
    text = f"name: a\nworkers: {{max: 4}}\njob: {{name: prostate, workers: {workers}}}\n"
    spec = parse_spec(text, source="s", base=Path("/x"))
    assert (spec.job_workers_min, spec.job_workers) == bounds
    fewer = spec.job.lowered(2).workers
    assert (fewer if isinstance(fewer, int) else fewer and (fewer.min, fewer.max)) == lowered


def test_the_command_lines_target_replaces_the_files() -> None:
    spec = parse_spec("name: a\ntarget: elsewhere\n" + JOB, source="s", base=Path("/x"), target="local")
    assert spec.target == "local"


def test_a_spec_survives_being_stored() -> None:
    text = "name: a\nlease: 1h30m\nworkers: {memory: 1.5GiB, idle_timeout: 90s}\n" + OWN
    spec = parse_spec(text, source="s", base=Path("/x"))
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec


def test_nearest_names_one_or_lists_all() -> None:
    assert nearest("prostrate", ["prostate", "skin"]) == "; did you mean 'prostate'?"
    assert nearest("zzz", ["prostate", "skin"]) == " (known here: prostate, skin)"
    assert nearest("zzz", []) == ""
