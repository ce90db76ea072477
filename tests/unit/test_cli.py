"""The command line as a user meets it: help, exit codes, JSON, and verbs that write nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dhctl.cli import main
from dhctl.cli.main import VERBS, run_group
from dhctl.infra.home import Home
from dhctl.infra.interrupts import StopNow
from dhctl.infra.mark import RUN_ID
from dhctl.infra.record import RunRecord
from unit.fakes import make_record

HEAVY = ("ray", "pulumi", "torch", "boto3", "pydantic", "requests", "grpc", "psutil", "rich", "yaml")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dhctl(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in a folder of its own: exit code, stdout, stderr."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("COLUMNS", "200")

    def running(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_group(list(words))
        out, err = capsys.readouterr()
        return int(code), out, err

    return running


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_text("")
    body = {
        "name": "trial",
        "workers": {"max": 1, "memory": "256MiB"},
        "job": {"folder": str(tmp_path / "code"), "entrypoint": "python main.py"},
        "local": {"scratch": "/tmp/dhctl-t"},
    }
    path = tmp_path / "trial.yaml"
    path.write_text(json.dumps(body))
    return path


def changed(path: Path, **changes: Any) -> str:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return str(path)


@pytest.mark.parametrize("verb", VERBS)
def test_help_begins_with_a_sentence_and_ends_with_an_example(dhctl: Run, verb: str) -> None:
    code, out, _ = dhctl(verb, "--help")
    assert code == 0
    usage, _, sentence, *_ = [line.strip() for line in out.splitlines()]
    assert usage.startswith(f"Usage: dhctl {verb}")
    assert sentence[0].isupper()
    example = [line for line in out.splitlines() if line.strip()][-1]
    assert example.strip().startswith("Example:")
    assert f"dhctl {verb}" in example


def test_the_help_of_all_lists_every_verb_in_the_order_of_a_runs_life(dhctl: Run) -> None:
    code, out, _ = dhctl("--help")
    assert code == 0
    listed = [line.split()[0] for line in out.partition("Commands:")[2].splitlines() if line.startswith("  ")]
    assert [word for word in listed if word in VERBS] == list(VERBS)
    assert out.rstrip().splitlines()[-1].strip().startswith("Example:")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["stauts", "x"], "no verb 'stauts'; did you mean 'status'?"),
        (["zzz"], "no verb 'zzz' (known: run, up, train, down"),
        (["run"], "Missing argument 'SPEC'"),
        (["run", "--nope", "x"], "No such option"),
        (["down"], "Missing argument 'RUN'"),
        (["completion", "tcsh"], "is not one of"),
    ],
)
def test_a_wrong_command_line_is_usage(dhctl: Run, words: list[str], told: str) -> None:
    code, _, err = dhctl(*words)
    assert code == 2
    assert told in err


@pytest.mark.parametrize("verb", ["run", "up", "plan"])
def test_a_wrong_spec_is_usage_and_makes_nothing(dhctl: Run, home: Home, spec_file: Path, verb: str) -> None:
    code, _, err = dhctl(verb, changed(spec_file, worker=1))
    assert code == 2
    assert "unknown key 'worker'; did you mean 'workers'?" in err
    assert not home.root.exists()


@pytest.mark.parametrize("verb", ["run", "up", "plan"])
def test_what_is_refused_at_admission_makes_nothing(dhctl: Run, home: Home, spec_file: Path, verb: str) -> None:
    code, _, err = dhctl(verb, changed(spec_file, data="/not/there"))
    assert code == 1
    assert "data folder /not/there does not exist" in err
    assert not home.root.exists()


@pytest.mark.parametrize("verb", ["train", "down", "status", "logs"])
def test_an_unknown_run_is_usage(dhctl: Run, home: Home, verb: str) -> None:
    code, _, err = dhctl(verb, "nobody")
    assert code == 2
    assert "no run matches 'nobody' (known: none); `dhctl list` shows them all" in err
    assert not home.root.exists()


@pytest.mark.parametrize("verb", ["list", "plan", "doctor", "status"])
def test_a_home_of_a_newer_dhctl_is_refused(dhctl: Run, home: Home, spec_file: Path, verb: str) -> None:
    home.root.mkdir()
    (home.root / "format").write_text('{"format": 2}')
    words = {"plan": [str(spec_file)], "status": ["x"]}.get(verb, [])
    code, _, err = dhctl(verb, *words)
    assert code == 1
    assert "was written by a newer dhctl" in err


def test_train_on_a_run_that_is_not_up_is_refused(dhctl: Run, record: RunRecord) -> None:
    code, _, err = dhctl("train", record.run_id)
    assert code == 1
    assert f"{record.run_id} is not up but starting; start a run with `dhctl up`" in err


def test_a_job_that_never_was_cannot_be_taken_up(dhctl: Run, record: RunRecord) -> None:
    code, _, err = dhctl("train", "--attach", record.run_id)
    assert code == 1
    assert f"{record.run_id} had no job yet; start it with `dhctl train {record.run_id}`" in err


def test_how_a_job_ended_is_told_to_who_comes_late(dhctl: Run, record: RunRecord) -> None:
    record.ledger.intent("job", number=1, submission="s-1")
    record.ledger.done("job", number=1, status="FAILED", exit_code=7)
    record.write_json(
        record.job_dir(1) / "result.json",
        {"status": "FAILED", "exit_code": 7, "seconds": 5.0, "time_to_model_s": 9.0, "result": None},
    )
    code, out, err = dhctl("train", "--attach", record.run_id)
    assert code == 4
    assert "job 1 has ended already" in out
    assert "the job FAILED with exit code 7" in err


def test_logs_of_a_run_without_a_job_are_refused(dhctl: Run, record: RunRecord) -> None:
    code, _, err = dhctl("logs", record.run_id)
    assert code == 1
    assert f"{record.run_id} had no job yet; start it with `dhctl train {record.run_id}`" in err


def test_logs_of_a_run_that_is_over_are_those_of_its_newest_job(dhctl: Run, record: RunRecord) -> None:
    for number in (1, 2):
        record.ledger.intent("job", number=number, submission="s")
        record.ledger.done("job", number=number)
        record.job_dir(number).mkdir(parents=True)
        (record.job_dir(number) / "driver.log").write_bytes(b"job %d \xff\n" % number)
    assert dhctl("logs", record.run_id)[:2] == (0, "job 2 \ufffd\n")
    assert json.loads(dhctl("logs", "trial", "--json")[1]) == {"event": "JobLogged", "line": "job 2 \ufffd"}


def test_a_bug_is_told_with_a_log_for_the_report(dhctl: Run, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(home: Home) -> None:
        raise ZeroDivisionError("seven by nought")

    monkeypatch.setattr("dhctl.infra.record.all_records", broken)
    code, _, err = dhctl("list")
    assert code == 3
    (log,) = (home.root / "bugs").iterdir()
    assert f"this is a bug in dhctl (ZeroDivisionError: seven by nought); please report it with the log {log}" in err
    assert "Traceback" not in err
    assert log.read_text().startswith("dhctl list\nTraceback")


def test_a_second_request_to_stop_names_what_removes_the_rest(dhctl: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(home: Home) -> None:
        raise StopNow("SIGINT", "dh-aaaabbbbcc")

    monkeypatch.setattr("dhctl.infra.record.all_records", stopped)
    code, out, err = dhctl("list", "--json")
    assert code == 5
    assert "`dhctl down dh-aaaabbbbcc` removes what remains" in err
    assert json.loads(out)["exit_code"] == 5


def test_errors_are_json_too_where_asked(dhctl: Run) -> None:
    code, out, err = dhctl("down", "nobody", "--json")
    assert code == 2
    assert json.loads(out) == {"event": "error", "error": err.strip().removeprefix("Error: "), "exit_code": 2}


def tree(*roots: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.lstat().st_mtime_ns, p.lstat().st_size) for r in roots for p in sorted(r.rglob("*"))}


def test_plan_says_what_would_be_made_and_writes_nothing(
    dhctl: Run, home: Home, spec_file: Path, tmp_path: Path
) -> None:
    before = tree(tmp_path)
    code, out, _ = dhctl("plan", str(spec_file))
    assert code == 0
    for part in ("run-folder", "head", "0 to 1 workers", "memory", "scratch folder", "not known yet"):
        assert part in out
    code, out, _ = dhctl("plan", str(spec_file), "--json")
    body = json.loads(out)
    assert body["spec"]["name"] == "trial"
    assert [r["name"] for r in body["resources"]][:3] == ["run-folder", "token", "head"]
    assert all(not r["problem"] for r in body["requirements"])
    assert body["usual_seconds"]["job"] is None
    assert tree(tmp_path) == before
    assert not home.root.exists()
    assert not Path("/tmp/dhctl-t").exists()


def test_list_of_nothing_says_how_to_begin(dhctl: Run, home: Home) -> None:
    assert dhctl("list")[:2] == (0, "no runs yet; `dhctl run SPEC` starts one\n")
    assert json.loads(dhctl("list", "--json")[1]) == []
    assert not home.root.exists()


def test_list_shows_runs_newest_first_and_only_the_living_where_asked(dhctl: Run, home: Home) -> None:
    old, new = make_record(home, name="old"), make_record(home, name="new")
    old.ledger.done("down", clean=True)
    code, out, _ = dhctl("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == [new.run_id, old.run_id]
    rows = json.loads(dhctl("list", "--json", "--living")[1])
    assert [(r["run"], r["state"]) for r in rows] == [(new.run_id, "starting")]


def test_a_damaged_record_does_not_hide_the_others(dhctl: Run, home: Home) -> None:
    damaged, whole = make_record(home), make_record(home)
    damaged.ledger.path.write_text("")
    code, out, _ = dhctl("list")
    assert code == 0
    assert whole.run_id in out
    assert damaged.run_id in out


def test_status_of_a_run_by_its_name(dhctl: Run, record: RunRecord) -> None:
    code, out, _ = dhctl("status", "trial")
    assert code == 0
    assert record.run_id in out
    body = json.loads(dhctl("status", record.run_id, "--json")[1])
    assert (body["run"], body["state"], body["workers"]) == (record.run_id, "starting", None)


def test_down_of_a_run_that_made_nothing_is_clean_and_can_be_repeated(dhctl: Run, record: RunRecord) -> None:
    for _ in range(2):
        code, out, err = dhctl("down", "trial")
        assert code == 0, err
        assert "clean: nothing is left" in out
    code, out, _ = dhctl("down", record.run_id, "--json")
    assert code == 0
    (receipt,) = [e for e in map(json.loads, out.splitlines()) if e["event"] == "Receipt"]
    assert receipt["clean"] is True
    assert record.state() == "clean"


def test_down_where_something_is_left_is_told_by_its_exit_code(dhctl: Run, record: RunRecord) -> None:
    scratch = Path(str(record.spec.local.scratch))
    (scratch / record.run_id).mkdir(parents=True)
    (scratch / record.run_id / "thesis.pdf").write_text("not the run's: there is no mark")
    code, out, err = dhctl("down", record.run_id)
    assert code == 5
    assert "NOT clean" in out
    assert f"rm -r {scratch / record.run_id}" in err
    assert (scratch / record.run_id / "thesis.pdf").exists()
    assert record.state() == "leftovers"


def test_doctor_is_a_table_or_json_and_writes_nothing(dhctl: Run, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dhctl.infra.doctor.candidates", lambda root: [])
    code, out, err = dhctl("doctor")
    assert code == 1
    assert "Pulumi CLI" in out
    assert "`dhctl doctor --install` installs the engine" in err
    body = json.loads(dhctl("doctor", "--json")[1].rpartition('{"event"')[0])
    assert {f["area"] for f in body} == {"engine", "local", "openstack", "kubernetes", "jobs"}
    assert not home.root.exists()


def test_schema_is_json(dhctl: Run) -> None:
    code, out, _ = dhctl("schema")
    assert code == 0
    assert json.loads(out)["title"] == "RunSpec"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_verbs_and_runs(dhctl: Run, record: RunRecord, shell: str) -> None:
    code, out, _ = dhctl("completion", shell)
    assert code == 0
    assert "_DHCTL_COMPLETE" in out
    from click.shell_completion import ShellComplete

    complete = ShellComplete(main.group, {}, "dhctl", "_DHCTL_COMPLETE")
    assert [c.value for c in complete.get_completions([], "st")] == ["status"]
    assert [c.value for c in complete.get_completions(["down"], "dh-")] == [record.run_id]


def test_ids_in_help_texts_are_no_real_ones(dhctl: Run) -> None:
    for verb in VERBS:
        assert not RUN_ID.search(dhctl(verb, "--help")[1])


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from dhctl.cli.main import run_group; run_group(['--help']);"
        f"print('HEAVY', sorted(m for m in {HEAVY!r} if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def piped(home: Home, *words: str) -> subprocess.CompletedProcess[str]:
    """The command with a stdout whose reader is gone already."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [sys.executable, "-m", "dhctl.cli.main", *words],
            env={**os.environ, "DHCTL_HOME": str(home.root)},
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)


def test_a_reader_that_leaves_is_no_error(home: Home) -> None:
    done = piped(home, "schema")
    assert (done.returncode, done.stderr) == (0, "")
