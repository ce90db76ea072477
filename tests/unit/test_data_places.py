"""Stores by name: `STORE:FOLDER` becomes a URL or a folder, with the stores of the spec and those of the user."""

from __future__ import annotations

from pathlib import Path

import pytest

from dhctl.infra.data.places import NamedPlace, PlaceError, beneath, covers
from dhctl.infra.data.section import DataStore
from dhctl.infra.data.user_stores import merged, user_stores, user_stores_path
from dhctl.infra.errors import SpecError
from dhctl.infra.spec import RunSpec
from dhctl.infra.spec_file import load_spec, parse_spec

JOB = "name: a\njob: {name: prostate}\n"
STORES = "stores:\n  slides: {url: 's3://bucket/all?endpoint_override=s3.site-a:9000&scheme=http', residency: site-a}\n"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own configuration folder, with no stores.yaml yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "dhctl").mkdir(parents=True)
    return tmp_path / "config" / "dhctl"


def spec(text: str, users: dict[str, DataStore] | None = None) -> RunSpec:
    return parse_spec(JOB + text, source="trial.yaml", base=Path("/specs"), users=users)


def problem(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        spec(text)
    (told,) = caught.value.problems
    return told


def test_a_store_with_a_folder_is_a_url_with_the_stores_options() -> None:
    found = spec(STORES + "data: slides:2025/biopsies\noutput: slides:out\n")
    assert found.data == "s3://bucket/all/2025/biopsies?endpoint_override=s3.site-a:9000&scheme=http"
    assert found.output == "s3://bucket/all/out?endpoint_override=s3.site-a:9000&scheme=http"
    assert spec(STORES + "data: 'slides:'\n").data == "s3://bucket/all?endpoint_override=s3.site-a:9000&scheme=http"


def test_a_store_may_be_a_folder_or_a_volume() -> None:
    found = spec("stores: {mine: {url: ./scans}, shared: {url: /volumes/ct}}\ndata: mine:a//b/.\noutput: shared:o\n")
    assert (found.data, found.output) == ("/specs/scans/a/b", "/volumes/ct/o")
    assert found.stores["mine"].url == "/specs/scans"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            STORES + "data: slide:x\n",
            "data: 'slide:x' is in the store slide, which is not defined (known: slides); add it to stores, or write "
            "./slide:x for a folder of that name",
        ),
        ("output: x:y\n", "output: 'x:y' is in the store x, which is not defined (none is defined); add it to stores"),
        (STORES + "data: slides:../other\n", "data: 'slides:../other' leads out of the store slides"),
        (STORES + "data: 'slides:x?region=eu'\n", "leads out of the store slides"),
        (STORES + "data: slides\n", "data: 'slides' is a store; write slides: for all of it, or slides:FOLDER"),
        ("stores: {Slides: {url: x}}\n", "stores.Slides.[key]: 'Slides' does not fit; use small letters"),
        ("stores: {a: {url: x, keys: y}}\n", "unknown key 'stores.a.keys'"),
        ("stores: {a: {url: x, residency: Site A}}\n", "stores.a.residency: 'Site A' does not fit"),
        ("stores: {a: {url: ~nobodysuch/x}}\n", "home"),
        ("cache: {size: 2}\n", "cache.size: 2 is not a size"),
        ("openstack: {site: ''}\n", "openstack.site: '' does not fit"),
    ],
)
def test_a_mistake_is_a_sentence(text: str, sentence: str) -> None:
    assert sentence in problem(text)


def test_todays_forms_stay(tmp_path: Path) -> None:
    for text, wanted in (
        ("./a:b", "/specs/a:b"),
        ("phantoms", "phantoms"),
        ("s3://b/p", "s3://b/p"),
        ("d", "/specs/d"),
    ):
        assert spec(f"data: '{text}'\n").data == wanted


def test_caches_are_folders_beside_the_spec_file() -> None:
    assert spec("cache: {folder: cache, shared: /volumes/cache}\n").cache.folder == "/specs/cache"


@pytest.mark.parametrize(("target", "wanted"), [("local", "local"), ("openstack", None), ("kubernetes", "site-b")])
def test_each_target_stands_at_a_site(target: str, wanted: str | None) -> None:
    text = f"target: {target}\nkubernetes: {{site: site-b}}\n"
    assert spec(text).site == wanted


def test_the_users_stores_are_for_all_specs(config: Path, tmp_path: Path) -> None:
    assert user_stores() == {}
    assert user_stores_path() == config / "stores.yaml"
    (config / "stores.yaml").write_text(
        STORES + "  mine: {url: scans}\n  unused: {url: /x}\n  bound: {url: /y, residency: b}\n"
    )
    (tmp_path / "a.yaml").write_text(JOB + "data: slides:x\noutput: mine:out\n")
    found = load_spec(tmp_path / "a.yaml")
    assert found.output == f"{config}/scans/out"
    assert set(found.stores) == {"slides", "mine"}, "only what the run touches goes into its record"


def test_a_label_holds_however_the_place_is_written(config: Path, tmp_path: Path) -> None:
    (config / "stores.yaml").write_text("stores: {bound: {url: /volumes/ct, residency: site-a}}\n")
    (tmp_path / "a.yaml").write_text(JOB + "data: /volumes/ct/2025\n")
    assert load_spec(tmp_path / "a.yaml").stores["bound"].residency == "site-a"


def test_a_store_of_the_spec_goes_before_the_users_but_both_labels_hold() -> None:
    users = {"ct": DataStore(url="/site/ct", residency="site-a")}
    found = spec("stores: {ct: {url: /mine}}\ndata: ct:x\n", users)
    assert found.data == "/mine/x"
    assert found.stores["ct"].residency == "site-a"
    with pytest.raises(
        ValueError, match=r"stores\.ct: the spec and .* say different residencies \(site-a and site-b\)"
    ):
        merged({"ct": DataStore(url="/mine", residency="site-b")}, users)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("stores: [a]\n", "stores: input should be a valid dictionary"),
        ("store: {}\n", "unknown key 'store'; did you mean 'stores'?"),
        ("- a\n", 'is not a mapping of keys to values; see docs/data.md, "Stores for all specs"'),
        ("stores: {a: {url: '~nobodysuch/x'}}\n", "holds what is no path"),
    ],
)
def test_a_mistake_in_the_users_file_names_the_file(config: Path, text: str, sentence: str) -> None:
    (config / "stores.yaml").write_text(text)
    with pytest.raises(SpecError, match=r"stores\.yaml: ") as caught:
        user_stores()
    assert sentence in caught.value.problems[0]


@pytest.mark.parametrize(
    ("store", "place", "wanted"),
    [
        ("s3://b/p", "s3://b/p", True),
        ("s3://b/p", "s3://b/p/q?endpoint_override=x", True),
        ("s3://b/p?endpoint_override=http://x", "s3://b/p/q?endpoint_override=x", True),
        ("s3://b/p?endpoint_override=y", "s3://b/p/q?endpoint_override=x", False),
        ("s3://b/p", "s3://b/pq", False),
        ("s3://b/p", "s3://c/p", False),
        ("/a", "/a/b", True),
        ("/a", "/ab", False),
        ("/b/p", "s3://b/p", False),
    ],
)
def test_whether_a_place_lies_in_a_store(store: str, place: str, wanted: bool) -> None:
    assert covers(DataStore(url=store), place) == wanted


def test_places_are_parsed_and_refused() -> None:
    assert NamedPlace.parse("a:b/c") == NamedPlace("a", "b/c")
    assert NamedPlace.parse("s3://a/b") is None
    assert NamedPlace.parse("/a:b") is None
    assert beneath("s3://b", "c") == "s3://b/c"
    with pytest.raises(PlaceError):
        NamedPlace.parse("a:../b")
