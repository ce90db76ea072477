"""Hours and prices: what a run held, and what that cost by a tariff; every mistake in a tariff is a sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dhctl.cli.main import run_group
from dhctl.infra.errors import ExitCode, TariffError
from dhctl.infra.home import Home
from dhctl.infra.report_page.story import read_story
from dhctl.infra.report_page.tariff import Cost, Tariff, cost_of, load_tariff
from dhctl.infra.report_page.usage import Size, Usage, size_of, usage_of
from unit.fakes import make_spec
from unit.report_records import BEGIN, whole_run, write_tariff

OPENSTACK = {
    "target": "openstack",
    "openstack": {
        "image": "debian",
        "flavor": "g1.a100",
        "head_flavor": "m1.small",
        "ssh_from": ["10.0.0.0/8"],
        "external_network": "public",
    },
}


def bill(usage: list[Usage], **prices: object) -> Cost:
    return cost_of(usage, Tariff.model_validate({"currency": "EUR", **prices}))


def test_hours_of_a_run(home: Home) -> None:
    head, workers = usage_of(read_story(whole_run(home), BEGIN).nodes, make_spec(workers={"cpus": 2, "memory": "2GiB"}))
    assert (head.nodes, head.hours_of(head.size.cpus)) == (2, None)
    assert workers.nodes == 5
    each = (167.25, 40.0, 165.25, 124.25, 77.25)
    assert workers.hours == pytest.approx(sum(each) / 3600)
    assert workers.hours_of(workers.size.cpus) == pytest.approx(2 * sum(each) / 3600)
    assert workers.hours_of(workers.size.memory_gib) == pytest.approx(2 * sum(each) / 3600)


def test_sizes_of_each_target() -> None:
    assert size_of(None, is_head=True) == Size()
    assert size_of(make_spec(), is_head=True) == Size()
    spec = make_spec(**OPENSTACK, workers={"cpus": 8, "gpus": 1, "memory": "64GiB"})
    assert size_of(spec, is_head=True) == Size("m1.small")
    assert size_of(spec, is_head=False) == Size("g1.a100", 8, 1, 64)
    pods = make_spec(target="kubernetes", kubernetes={"head_cpus": "500m", "head_memory": "3GiB"})
    assert size_of(pods, is_head=True) == Size("", 0.5, 0, 3)


def test_a_flavor_goes_before_a_node_and_a_node_before_its_parts() -> None:
    usage = [Usage("workers", Size("g1", 8, 1, 64), 2, 3.0)]
    assert bill(usage, flavors={"g1": 2.5}, worker_hour=9, cpu_hour=1).total == 7.5
    assert bill(usage, flavors={"other": 2.5}, worker_hour=9, cpu_hour=1).total == 27
    parts = bill(usage, cpu_hour=0.1, gpu_hour=2, gib_hour=0.01)
    assert parts.total == pytest.approx(3 * (8 * 0.1 + 2 + 64 * 0.01))
    assert parts.positions[0].how == "8 core at 0.1 + 1 GPU at 2 + 64 GiB at 0.01 an hour"


def test_what_has_no_price_is_said() -> None:
    cost = bill([Usage("head", Size(), 1, 1.0), Usage("workers", Size("", 1, 0, 1), 1, 2.0)], cpu_hour=0.5)
    assert (cost.total, cost.complete) == (1.0, False)
    assert cost.positions[0].how == "the tariff has no price for it"
    assert bill([Usage("head", Size(), 1, 1.0)], head_hour=0).complete


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("currency: EUR\nworker_hour: -1", "worker_hour: input should be greater than or equal to 0, not -1"),
        ("currency: EUR\nworker_hour: .nan", "worker_hour: "),
        ("currency: EUR\nworker_hour: much", "worker_hour: "),
        ("currency: euro\nworker_hour: 1", "'euro' is no currency; write its three letters, such as EUR"),
        ("worker_hour: 1", "key 'currency' is missing"),
        ("currency: EUR", "it has no price; give at least one of flavors, worker_hour, head_hour"),
        ("currency: EUR\nworkers_hour: 1", "unknown key 'workers_hour'; did you mean 'worker_hour'?"),
        ("currency: EUR\nflavors: {a: -1}", "flavors.a is -1.0; a price is a number of at least 0"),
        ("currency: EUR\nflavors: {a: .inf}", "flavors.a is inf"),
        ("currency: EUR\ncpu_hour: 1\ncpu_hour: 2", "line 3: key 'cpu_hour' is given twice"),
        ("[1", "tariffs.yaml: line"),
        ("just a text", "is not a mapping of keys to values; see docs/report.md"),
    ],
)
def test_a_wrong_tariff_is_a_sentence(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(TariffError) as error:
        load_tariff(write_tariff(tmp_path, text))
    assert told in str(error.value)
    assert str(error.value).endswith('docs/report.md, "Cost", shows a tariff')


def test_a_tariff_that_is_not_there_is_a_usage_error(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = whole_run(home)
    none = str(tmp_path / "none.yaml")
    assert run_group(["report", record.run_id, "--tariffs", none]) == ExitCode.USAGE
    assert "none.yaml: cannot be read (No such file or directory)" in capsys.readouterr().err


def test_the_tariff_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
    (told,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    keys = Tariff.model_validate(yaml.safe_load(told)).model_fields_set
    assert keys == set(Tariff.model_fields), "the docs show every key"
