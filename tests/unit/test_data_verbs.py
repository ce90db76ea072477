"""`dhctl data` as a data manager meets it: list, stage with checks, go on after an interruption, verify."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from dhctl.cli.main import run_group
from dhctl.infra.data import destination as destination_module
from dhctl.infra.data.destination import FolderDestination, Transfer
from dhctl.infra.home import Home
from dhctl.ray_jobs import storage
from dhctl.ray_jobs.storage import Store, StoredFile, open_store

Run = Callable[..., tuple[int, str, str]]
STORES = """
stores:
  hospital: {{url: {0}/hospital, residency: site-a}}
  cloud: {{url: {0}/cloud}}
  twin: {{url: {0}/twin, residency: site-a}}
  open: {{url: {0}/open}}
"""


@pytest.fixture
def place(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stores of a user, with a dataset in two of them."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "config" / "dhctl").mkdir(parents=True)
    (tmp_path / "config" / "dhctl" / "stores.yaml").write_text(STORES.format(tmp_path))
    for name in ("hospital", "open"):
        (tmp_path / name / "slides" / "case").mkdir(parents=True)
        (tmp_path / name / "slides" / "train.csv").write_text("slide,patient\n")
        (tmp_path / name / "slides" / "case.mrxs").write_bytes(b"m" * 100)
        (tmp_path / name / "slides" / "case" / "Data0000.dat").write_bytes(b"d" * 1000)
    return tmp_path


@pytest.fixture
def data(place: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `dhctl data ...`: exit code, stdout, stderr."""

    def running(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_group(["data", *words])
        out, err = capsys.readouterr()
        return int(code), out, err

    return running


def summary(out: str) -> dict[str, Any]:
    lines = [json.loads(line) for line in out.splitlines()]
    (found,) = (line for line in lines if line["event"] == "Summary")
    return dict(found)


def test_stores_are_listed(data: Run, place: Path) -> None:
    code, out, _ = data("ls")
    assert code == 0
    assert [line.split() for line in out.splitlines()[1:3]] == [
        ["cloud", f"{place}/cloud"],
        ["hospital", f"{place}/hospital", "site-a"],
    ]
    assert {row["name"] for row in json.loads(data("ls", "--json")[1])} == {"hospital", "cloud", "twin", "open"}


def test_without_stores_the_file_for_them_is_named(data: Run, place: Path) -> None:
    (place / "config" / "dhctl" / "stores.yaml").unlink()
    told = " ".join(data("ls")[1].split())  # a long path begins a line of its own
    assert f"no stores are defined in {place}/config/dhctl/stores.yaml" in told


@pytest.mark.parametrize("words", [("hospital:slides",), ("hospital:slides/",)])
def test_a_folder_is_listed_with_files_and_bytes(data: Run, words: tuple[str, ...]) -> None:
    code, out, _ = data("ls", *words)
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert rows[1:4] == [["case/", "1", "1000", "B"], ["case.mrxs", "1", "100", "B"], ["train.csv", "1", "14", "B"]]
    assert rows[4] == ["in", "all", "3", "1.1", "KiB"]
    assert "may be used at site-a only (store hospital)" in out
    body = json.loads(data("ls", *words, "--json")[1])
    assert (body["files"], body["size_bytes"], body["labels"][0]["residency"]) == (3, 1114, "site-a")


def test_a_store_by_its_name_alone_and_a_plain_folder(data: Run, place: Path) -> None:
    assert data("ls", "open")[1].splitlines()[1].split()[:2] == ["slides/", "3"]
    assert data("ls", str(place / "open"))[1].splitlines()[1].split()[:2] == ["slides/", "3"]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("ls", "nowhere:x"), 2, "'nowhere:x' is in the store nowhere, which is not defined (known: cloud,"),
        (("ls", "hospital:gone"), 1, "there is no folder"),
        (("ls", "ftp://x/y"), 1, "of an unknown kind"),
        (("stage", "open:slides", "--to", "open:slides/copy"), 2, "lie in one another"),
        (("stage", "open:none", "--to", "cloud:x"), 1, "there is no folder"),
        (("stage", "open:empty", "--to", "cloud:x"), 1, "open:empty holds no files; check the folder"),
        (("verify", "open:slides"), 1, "open:slides has no manifest.json; `dhctl data stage` writes one"),
    ],
)
def test_a_mistake_is_a_sentence(data: Run, place: Path, words: tuple[str, ...], code: int, sentence: str) -> None:
    (place / "open" / "empty").mkdir()
    told = data(*words)
    assert told[0] == code, told
    assert sentence in told[2]


def test_a_dataset_is_copied_with_its_manifest_and_verified(data: Run, place: Path) -> None:
    code, out, err = data("stage", "open:slides", "--to", "cloud:s", "--json")
    assert code == 0, err
    assert (summary(out)["files"], summary(out)["there_already"]) == (3, 0)
    manifest = json.loads((place / "cloud" / "s" / "manifest.json").read_text())
    told = {row["key"]: row["sha256"] for row in manifest["files"]}
    assert told["case/Data0000.dat"] == hashlib.sha256(b"d" * 1000).hexdigest()
    assert {path.name for path in (place / "cloud" / "s").iterdir()} == {
        "case",
        "case.mrxs",
        "train.csv",
        "manifest.json",
    }
    code, out, _ = data("verify", "cloud:s", "--json")
    assert code == 0
    assert summary(out)["differences"] == []


def test_called_again_only_what_changed_is_copied(data: Run, place: Path) -> None:
    data("stage", "open:slides", "--to", "cloud:s")
    (place / "open" / "slides" / "case.mrxs").write_bytes(b"n" * 100)
    (place / "cloud" / "s" / "train.csv").unlink()
    code, out, _ = data("stage", "open:slides", "--to", "cloud:s", "--json")
    assert code == 0
    assert summary(out)["there_already"] == 1
    assert (place / "cloud" / "s" / "case.mrxs").read_bytes() == b"n" * 100
    assert data("verify", "cloud:s")[0] == 0


def test_what_differs_is_named(data: Run, place: Path) -> None:
    data("stage", "open:slides", "--to", "cloud:s")
    copy = place / "cloud" / "s"
    (copy / "case" / "Data0000.dat").write_bytes(b"e" * 1000)
    (copy / "case.mrxs").write_bytes(b"m")
    (copy / "train.csv").unlink()
    (copy / "new.txt").write_text("x")
    code, out, err = data("verify", "cloud:s", "--json")
    assert code == 1
    assert [(row["file"], row["what"]) for row in summary(out)["differences"]] == [
        ("case.mrxs", "another size"),
        ("case/Data0000.dat", "another content"),
        ("new.txt", "not in the manifest"),
        ("train.csv", "missing"),
    ]
    assert "cloud:s is not what its manifest says:\n  - case.mrxs: another size" in err


def test_an_interrupted_copy_goes_on(data: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = FolderDestination.put

    def stumbling(self: FolderDestination, file: StoredFile, source: Store, transfer: Transfer) -> str:
        if file.key == "train.csv":
            transfer.stop.wait(0.2)
            raise KeyboardInterrupt
        return put(self, file, source, transfer)

    monkeypatch.setattr(FolderDestination, "put", stumbling)
    assert data("stage", "open:slides", "--to", "cloud:s")[0] == 130
    copy = place / "cloud" / "s"
    assert (copy / "manifest.unfinished.json").exists()
    assert not (copy / "manifest.json").exists(), "a manifest means a whole copy"
    monkeypatch.setattr(FolderDestination, "put", put)
    assert summary(data("stage", "open:slides", "--to", "cloud:s", "--json")[1])["there_already"] == 2
    assert not (copy / "manifest.unfinished.json").exists()


def test_a_file_that_was_broken_off_goes_on_where_it_stopped(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "CHUNK_BYTES", 300)
    source, target = open_store(str(place / "open" / "slides")), open_store(str(place / "cloud"))
    (file,) = source.files("case")
    chunks, asked = Store.chunks, list[int]()

    def breaking(self: Store, key: str, start: int = 0) -> Iterator[bytes]:
        asked.append(start)
        for index, content in enumerate(chunks(self, key, start)):
            if len(asked) == 1 and index == 2:
                raise ConnectionResetError
            yield content

    monkeypatch.setattr(Store, "chunks", breaking)
    where = destination_module.destination(target)
    moved: list[int] = []
    with pytest.raises(ConnectionResetError):
        where.put(file, source, Transfer(moved.append))
    assert not (place / "cloud" / "case" / "Data0000.dat").exists()
    assert where.put(file, source, Transfer(moved.append)) == hashlib.sha256(b"d" * 1000).hexdigest()
    assert asked == [0, 600]
    assert moved == [0, 300, 300, 600, 300, 100]
    assert [path.name for path in (place / "cloud" / "case").iterdir()] == ["Data0000.dat"]


def test_labelled_data_goes_only_where_the_same_label_is(data: Run, place: Path) -> None:
    code, _, err = data("stage", "hospital:slides", "--to", "cloud:s")
    assert code == 1
    assert (
        "hospital:slides must stay at site-a (store hospital), but the store of cloud:s says no residency; choose a "
        "store with `residency: site-a`"
    ) in err
    assert not (place / "cloud").exists()
    assert data("stage", "hospital:slides", "--to", "twin:s")[0] == 0
    (place / "open" / "dataset.yaml").write_text("residency: site-b\n")
    assert "must stay at site-b" in data("stage", "open:slides", "--to", "twin:t")[2]


def test_another_programs_manifest_is_not_written_over(data: Run, place: Path) -> None:
    (place / "cloud" / "s").mkdir(parents=True)
    (place / "cloud" / "s" / "manifest.json").write_text('{"name": "a web page"}')
    code, _, err = data("stage", "open:slides", "--to", "cloud:s")
    assert code == 1
    assert "has a manifest.json of another program" in err


def test_content_that_is_not_the_sources_manifest_stops_the_copy(data: Run, place: Path) -> None:
    data("stage", "open:slides", "--to", "cloud:s")
    (place / "cloud" / "s" / "case.mrxs").write_bytes(b"x" * 100)
    code, _, err = data("stage", "cloud:s", "--to", f"{place}/third")
    assert code == 1
    assert "the content of case.mrxs is not what the manifest of" in err


@pytest.fixture
def scans(place: Path) -> Path:
    """DICOM files with what scanners write into them."""
    folder = place / "open" / "slides"
    for name in ("CT_small.dcm", "MR_small.dcm"):
        (folder / name).write_bytes(Path(str(get_testdata_file(name))).read_bytes())
    return folder


def test_identifiers_are_named_and_refused(data: Run, scans: Path, place: Path) -> None:
    code, out, err = data("stage", "open:slides", "--to", "cloud:s", "--json")
    assert code == 1
    assert not (place / "cloud").exists(), "nothing is copied before all are checked"
    told = summary(out)["findings"]
    assert {"CT_small.dcm", "MR_small.dcm"} == {finding["file"] for finding in told}
    assert "(0010,0010) PatientName: can be a name; in 2, such as CT_small.dcm" in err
    assert "CompressedSamples" not in out + err, "a value is never shown"
    assert "or give --allow-identifiers where that is allowed" in err


def test_identifiers_can_be_allowed_and_are_told(data: Run, scans: Path) -> None:
    code, out, _ = data("stage", "open:slides", "--to", "cloud:s", "--allow-identifiers")
    assert code == 0
    assert "identifiers in DICOM headers were copied with them (--allow-identifiers)" in out


def test_the_data_of_a_spec_is_staged_with_the_specs_stores(data: Run, place: Path) -> None:
    spec = place / "trial.yaml"
    body = {
        "name": "trial",
        "job": {"name": "prostate"},
        "data": "mine:slides",
        "stores": {"mine": {"url": "./open"}, "there": {"url": "./there"}},
    }
    spec.write_text(json.dumps(body))
    assert data("stage", str(spec), "--to", "there:s")[0] == 0
    assert (place / "there" / "s" / "manifest.json").exists()
    spec.write_text(json.dumps({**body, "data": "phantoms"}))
    code, _, err = data("stage", str(spec), "--to", "there:s")
    assert code == 2
    assert "names no data to move" in err


def test_a_full_disk_is_told_and_what_is_there_is_kept(data: Run, place: Path, small_disk: Path) -> None:
    (place / "open" / "slides" / "large.bin").write_bytes(b"l" * 3 * 2**20)
    code, _, err = data("stage", "open:slides", "--to", f"{small_disk}/copy")
    assert code == 1
    assert "cannot go on: [Errno 28] No space left on device" in err
    (place / "open" / "slides" / "large.bin").unlink()
    next((small_disk / "copy").glob(".large.bin.*.part")).unlink()
    assert summary(data("stage", "open:slides", "--to", f"{small_disk}/copy", "--json")[1])["there_already"] < 3
    assert data("verify", f"{small_disk}/copy")[0] == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system to fill")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
