"""The last look: values of secrets and identifiers of the run's tables, wherever they would be."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from dhctl.infra.crate.identifiers import identifiers_of
from dhctl.infra.crate.search import Searcher
from dhctl.infra.crate.secrets import secrets_of
from dhctl.infra.crate.write import Wanted, write_crate
from dhctl.infra.home import Home
from dhctl.infra.run_secrets import RunSecrets
from unit.crate_runs import finished_run
from unit.http_store import HttpStore


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dhctl.infra.crate.secrets.store_environment", dict)


def found(folder: Path, secrets: dict[bytes, str], identifiers: dict[str, str]) -> list[str]:
    return [finding.text for finding in Searcher(secrets, identifiers).search(folder)]


def test_secrets_of_the_run_and_of_the_shell(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = finished_run(home, tmp_path, job={"params": {"api_key": "sk-of-a-param"}})
    RunSecrets.of(record).make()
    token = RunSecrets.of(record).token_file.read_text()
    record.engine_dir.mkdir()
    (record.engine_dir / "passphrase").write_text("pass-phrase-1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a/secret+key")
    monkeypatch.setenv("SOME_PATH", "not-a-secret")
    known = secrets_of(record)
    assert {token.encode(), b"pass-phrase-1", b"a/secret+key", b"a%2Fsecret%2Bkey", b"sk-of-a-param"} <= set(known)
    assert b"not-a-secret" not in known
    assert known[b"a/secret+key"] == "AWS_SECRET_ACCESS_KEY"


def test_identifiers_come_from_tables_and_from_the_result(home: Home, tmp_path: Path) -> None:
    record = finished_run(home, tmp_path)
    shards = Path(record.output) / "shards"
    shards.mkdir()
    (shards / "index-0a1b.json").write_text('{"bags": [{"patient": "Rossi", "shard": {"slide": "X_7", "tiles": 3}}]}')
    found = identifiers_of(record)
    assert set(found.known) == {"p-1001", "p-1002", "s-0007", "s-0008", "rossi"}
    assert found.known["rossi"] == "shards/index-0a1b.json, patient"
    assert found.unsearchable == 1  # X_7 is too short


def test_identifiers_of_a_bucket(home: Home, tmp_path: Path, http_store: HttpStore) -> None:
    http_store.objects["bucket/in/train.csv"] = b"image_id,isup_grade\nSLIDE_99,1\n"
    record = finished_run(home, tmp_path, data="s3://bucket/in")
    assert identifiers_of(record).known["slide_99"] == "train.csv, image_id"


def test_images_of_a_datasets_yaml(home: Home, tmp_path: Path) -> None:
    record = finished_run(home, tmp_path)
    (tmp_path / "data" / "isic.yml").write_text('images:\n  - location: "pictures/ISIC_0024306.jpg"\n    label: nv\n')
    assert identifiers_of(record).known["isic_0024306"] == "isic.yml, image"


def test_a_table_that_is_too_large_is_told(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = finished_run(home, tmp_path)
    monkeypatch.setattr("dhctl.infra.crate.identifiers.TABLE_LIMIT_BYTES", 10)
    assert identifiers_of(record).unread == 2
    remarks = write_crate(record, tmp_path / "crate", Wanted()).remarks
    assert "2 tables are too large or too many: their identifiers were not searched for" in remarks


def test_a_secret_is_found_in_any_file_and_told_without_itself(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_bytes(b"import os\nkey = 'hunter2hunter2'\n")
    (told,) = found(tmp_path, {b"hunter2hunter2": "AWS_SECRET_ACCESS_KEY"}, {})
    assert told == "code/main.py, line 2: the value of AWS_SECRET_ACCESS_KEY"


def test_an_identifier_is_a_whole_word_whatever_its_case(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("p-10012 xP-1001\nsee (P-1001), and patient_p-1001\n")
    assert found(tmp_path, {}, {"p-1001": "train.csv, patient_id"}) == [
        "a.txt, line 2: an identifier of train.csv, patient_id"
    ]
    (tmp_path / "a.txt").write_text("p-10012 xP-1001\n")
    assert found(tmp_path, {}, {"p-1001": "train.csv, patient_id"}) == []


def test_an_identifier_in_a_files_name(tmp_path: Path) -> None:
    (tmp_path / "P-1001.py").write_text("")
    assert len(found(tmp_path, {}, {"p-1001": "train.csv, patient_id"})) == 1


def test_an_identifier_inside_a_torch_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02X\x06\x00\x00\x00P-1001q\x00.")
        archive.writestr("model/data/0", b"P-1001")  # numbers of a tensor
    (told,) = found(tmp_path, {}, {"p-1001": "index, patient"})
    assert told.startswith("model.pt (model/data.pkl)")
