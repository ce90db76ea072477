"""The object store from the client: each reason why a bucket cannot be used is a sentence, before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError

from dhctl.infra import object_store
from dhctl.infra.admission import requirements
from dhctl.infra.errors import ExitCode
from dhctl.infra.events import Event, Warned
from dhctl.infra.job_outcome import JobOutcome, save_outcome
from dhctl.infra.object_store import ObjectStoreError, Place, keep_files, problem_with
from dhctl.infra.record import RunRecord
from dhctl.infra.target import Requirement
from unit.fakes import FakeTarget, make_record, make_spec
from unit.http_store import HttpStore


@pytest.fixture
def store(http_store: HttpStore) -> HttpStore:
    http_store.objects["bucket/slides/one.tif"] = b"1"
    return http_store


def test_an_url_is_bucket_prefix_and_options() -> None:
    place = Place.of("s3://bucket/a/b/?endpoint_override=store:9000&scheme=http&region=eu")
    assert (place.bucket, place.prefix) == ("bucket", "a/b")
    assert place.options == {"endpoint_override": "store:9000", "scheme": "http", "region": "eu"}
    assert place.key("jobs/1/driver.log") == "a/b/jobs/1/driver.log"
    assert Place.of("s3://bucket").key("x") == "x"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3:///prefix", "'s3:///prefix' names no bucket; write s3://BUCKET/PREFIX"),
        ("s3://bucket/x?endpoint=store", "has the option endpoint; use endpoint_override, region, scheme"),
    ],
)
def test_an_url_that_says_nothing_useful_is_told(url: str, told: str) -> None:
    assert told in problem_with(url, "output", wants_files=False)
    with pytest.raises(ObjectStoreError) as caught:
        Place.of(url)
    assert caught.value.exit_code is ExitCode.REFUSED


def test_what_can_be_used_has_no_problem(store: HttpStore) -> None:
    assert problem_with("s3://bucket/slides", "data", wants_files=True) == ""
    assert problem_with("s3://bucket/new", "output", wants_files=False) == ""
    assert {call.split()[0] for call in store.asked} == {"GET"}, "only reads"
    assert all(call.split()[1].startswith("/bucket?") for call in store.asked), "path style"


def test_data_must_be_there(store: HttpStore) -> None:
    told = problem_with("s3://bucket/none", "data", wants_files=True)
    assert told == "data s3://bucket/none is empty; check the prefix, or put the files there first"


@pytest.mark.parametrize(
    ("status", "code", "next_step"),
    [
        (404, "NoSuchBucket", "make the bucket first, or name one that is there"),
        (403, "AccessDenied", "the keys have no right to it; ask its owner"),
        (403, "InvalidAccessKeyId", "check AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "check AWS_SECRET_ACCESS_KEY"),
        (400, "Strange", "check bucket, keys and endpoint"),
    ],
)
def test_a_refusal_is_told_with_what_to_do(store: HttpStore, status: int, code: str, next_step: str) -> None:
    store.refuses["bucket"] = [(status, code)]
    told = problem_with("s3://bucket/slides", "data", wants_files=True)
    assert told == f"data s3://bucket/slides cannot be listed ({code}); {next_step}"


def test_a_store_in_trouble_is_asked_again(store: HttpStore) -> None:
    store.refuses["bucket"] = [(503, "SlowDown"), (200, "")]
    assert problem_with("s3://bucket/slides", "data", wants_files=True) == ""
    assert len(store.asked) == 2


def test_a_store_where_nobody_answers_is_told(store: HttpStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "TRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    told = problem_with("s3://bucket/slides", "data", wants_files=True)
    assert told.startswith("data s3://bucket/slides cannot be reached (Could not connect to the endpoint URL")
    assert told.endswith("set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL")


def test_no_keys_are_told(store: HttpStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    told = problem_with("s3://bucket/slides", "data", wants_files=True)
    assert "Unable to locate credentials" in told
    assert store.asked == []


def test_an_endpoint_in_the_url_goes_before_that_of_the_environment(
    store: HttpStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    host = store.url.partition("://")[2]
    url = f"s3://bucket/slides?endpoint_override={host}&scheme=http&region=lab"
    assert problem_with(url, "data", wants_files=True) == ""
    assert store.signed_for == {"lab"}


def test_a_store_without_regions_gets_some(store: HttpStore, monkeypatch: pytest.MonkeyPatch) -> None:
    problem_with("s3://bucket/slides", "data", wants_files=True)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    problem_with("s3://bucket/slides", "data", wants_files=True)
    assert store.signed_for == {"us-east-1", "eu-central-1"}


def rows(**spec: str) -> dict[str, Requirement]:
    return {row.what: row for row in requirements(make_spec(**spec), FakeTarget())}


def test_admission_looks_at_data_and_output(store: HttpStore) -> None:
    found = rows(data="s3://bucket/none?region=lab", output="s3://other/out")
    assert (found["data"].have, found["output"].have) == ("s3://bucket/none", "s3://other/out")
    assert (
        found["data"].problem
        == "data s3://bucket/none?region=lab is empty; check the prefix, or put the files there first"
    )
    assert "make the bucket first" in found["output"].problem
    found = rows(data="s3://bucket/slides", output="s3://bucket/out")
    assert (found["data"].problem, found["output"].problem) == ("", "")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    (tmp_path / "driver.log").write_text("epoch 1\n")
    (tmp_path / "result.json").write_text("{}")
    return [tmp_path / "driver.log", tmp_path / "metrics.jsonl", tmp_path / "result.json"]


def test_a_jobs_files_are_copied_beside_its_checkpoints(store: HttpStore, files: list[Path]) -> None:
    keep_files("s3://bucket/out/dh-aaaabbbbcc?region=lab", "jobs/1", files)
    assert store.objects["bucket/out/dh-aaaabbbbcc/jobs/1/driver.log"] == b"epoch 1\n"
    assert store.objects["bucket/out/dh-aaaabbbbcc/jobs/1/result.json"] == b"{}"
    assert not any("metrics" in key for key in store.objects)


def test_a_copy_that_fails_is_told(store: HttpStore, files: list[Path]) -> None:
    with pytest.raises(ObjectStoreError, match=r"could not be copied to s3://gone/out .*; it lies in the record"):
        keep_files("s3://gone/out", "jobs/1", files)


@pytest.mark.parametrize("trouble", ["answers", "silent"])
def test_a_copy_waits_for_a_store_that_is_away_for_a_while(
    store: HttpStore, files: list[Path], monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """Longer than boto3's own tries."""
    monkeypatch.setattr(object_store, "TRIES", 1)
    monkeypatch.setattr(object_store, "LONGEST_PAUSE_S", 0.01)
    if trouble == "answers":
        store.refuses["bucket"] = [(503, "SlowDown")] * 5 + [(200, "")]
    else:
        failures = iter([EndpointConnectionError(endpoint_url=store.url)] * 5)
        client = Place.of("s3://bucket/out").client()
        whole = client.upload_file

        def upload(*words: str) -> None:
            for error in failures:
                raise error
            whole(*words)

        monkeypatch.setattr(client, "upload_file", upload)
        monkeypatch.setattr(Place, "client", lambda place: client)
    keep_files("s3://bucket/out", "jobs/1", files)
    assert store.objects["bucket/out/jobs/1/driver.log"] == b"epoch 1\n"


def test_a_copy_gives_up_on_a_store_that_stays_away(
    store: HttpStore, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "TRIES", 1)
    monkeypatch.setattr(object_store, "AWAY_S", 0.2)
    monkeypatch.setattr(object_store, "LONGEST_PAUSE_S", 0.01)
    store.refuses["bucket"] = [(503, "SlowDown")]
    with pytest.raises(ObjectStoreError, match="it lies in the record"):
        keep_files("s3://bucket/out", "jobs/1", files)
    assert len(store.asked) > 1


OUTCOME = JobOutcome(1, "SUCCEEDED", 0, "done", 5.0, 9.0, {"auc": 0.9})


@pytest.fixture
def stored(record: RunRecord) -> RunRecord:
    """A run with its output in the bucket, whose job has ended."""
    kept = make_record(record.home, output="s3://bucket/out")
    kept.job_dir(1).mkdir(parents=True)
    (kept.job_dir(1) / "driver.log").write_text("epoch 1\n")
    return kept


def test_an_outcome_is_kept_in_the_record_and_in_the_store(
    store: HttpStore, stored: RunRecord, told: list[Event]
) -> None:
    save_outcome(stored, OUTCOME, told.append)
    kept = {key.rpartition("/")[2] for key in store.objects if f"/{stored.run_id}/jobs/1/" in key}
    assert kept == {"driver.log", "result.json"}
    assert told == []


def test_a_store_that_is_gone_is_a_warning_and_the_record_has_all(
    store: HttpStore, stored: RunRecord, told: list[Event]
) -> None:
    store.buckets.clear()
    save_outcome(stored, OUTCOME, told.append)
    assert (stored.job_dir(1) / "result.json").exists()
    (warned,) = told
    assert isinstance(warned, Warned)
    assert "it lies in the record" in warned.text


def test_a_run_with_a_folder_asks_no_store(store: HttpStore, record: RunRecord, told: list[Event]) -> None:
    save_outcome(record, OUTCOME, told.append)
    assert (store.asked, told) == ([], [])
    assert (record.job_dir(1) / "result.json").exists()
