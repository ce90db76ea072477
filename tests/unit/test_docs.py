"""The docs say what the code does: tables are compared with the code, quick commands are run, specs are parsed.

Commands that need a cluster are run by tests/e2e/test_docs.py, which takes their list from here.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import click
import pytest
import yaml
from pydantic import TypeAdapter

from dhctl.cli.main import VERBS, group, run_group
from dhctl.infra import events
from dhctl.infra.errors import ExitCode
from dhctl.infra.kubernetes.rights import tenant_rules
from dhctl.infra.spec import TargetName, schema
from dhctl.infra.spec_file import parse_spec
from dhctl.infra.units import format_duration, format_size

REPO = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/guide.md",
    "docs/reference.md",
    "docs/data.md",
    "docs/report.md",
    "docs/record.md",
    "docs/openstack.md",
    "docs/kubernetes.md",
    "docs/jobs/nodules.md",
    "docs/jobs/prostate.md",
    "docs/jobs/skin.md",
)
SESSION = "docs/guide.md"
"""Its cluster commands are run in their order; those of other pages must be among them."""

NOT_RUN = {
    "make demo": ".ci/run runs it",
    "make test": ".ci/run runs it, and this test within",
    "make lint": ".ci/run runs it",
    "make unit": "a part of make test",
    "make format": "rewrites the checkout",
    "make bootstrap": "the first step of make demo and make test",
    "make constraints": "resolves all packages anew",
    "pip install .": "tests/unit/test_packaging.py builds and reads the wheel",
    "pip install '.[jobs]'": "some 5 GB; the same extra is installed by make bootstrap",
    "dhctl run examples/prostate-local.yaml": "make demo is this command",
    "dhctl run examples/prostate-panda.yaml": "needs GPUs and the PANDA slides",
    "dhctl plan examples/prostate-panda.yaml": "needs GPUs and the PANDA slides",
    "dhctl doctor --install": "make bootstrap is this command",
    "dhctl data stage pathology:panda --to cloud:panda": "tests/unit/test_data_verbs.py does so with other names",
    "dhctl data verify cloud:panda": "as the one before",
    "dhctl report own-job --tariffs tariffs.yaml -o own-job.html": "tests/e2e/test_report_page.py does so",
}
"""Commands of the docs that no test runs, and why."""

CLUSTER_VERBS = ("run", "up", "train", "down", "status", "logs", "report", "export", "reproduce", "doctor")
"""Run by tests/e2e/test_docs.py. doctor is among them because its exit code says whether the engine is there."""


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (REPO / page).read_text(), flags=re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """The commands of a page in their order: one a line in blocks tagged sh or console."""
    lines = [line for block in [*blocks(page, "(?:sh|console)")] for line in block.splitlines()]
    return [line.removeprefix("$ ").strip() for line in lines if line.strip() and not line.startswith("#")]


def is_cluster_command(command: str) -> bool:
    """Whether a command needs a cluster or the engine."""
    return command not in NOT_RUN and bool(
        re.search(rf"\bdhctl ({'|'.join(CLUSTER_VERBS)})\b(?! (-h|--help))", command)
    )


def follows_cluster(page: str) -> list[str]:
    """What e2e runs of a page: cluster commands, and commands that read a file that one of them wrote."""
    found, written = [], set[str]()
    for command in commands(page):
        words = shlex.split(command)
        if is_cluster_command(command) or written & set(words):
            found.append(command)
            written |= {words[i + 1] for i, word in enumerate(words) if word == ">"}
    return found


def quick_commands() -> list[str]:
    """All others."""
    found = []
    for page in PAGES:
        skipped = {*NOT_RUN, *follows_cluster(page)}
        found += [command for command in commands(page) if command not in skipped]
    return sorted(set(found))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples in it, and an empty home."""
    (tmp_path / "examples").symlink_to(REPO / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DHCTL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin")
    return tmp_path


@pytest.mark.parametrize("command", quick_commands())
def test_quick_command_of_the_docs(command: str, workplace: Path) -> None:
    assert re.match(r"dhctl |eval |tail ", command), f"neither run by a test nor in NOT_RUN with a reason: {command}"
    if re.search(r"[|<>$;&]", command):
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
    else:
        assert run_group(shlex.split(command)[1:]) == ExitCode.DONE
    if "schema >" not in command:
        assert not (workplace / "home").exists(), "a quick command writes nothing"


def test_cluster_commands_of_all_pages_are_in_the_session() -> None:
    session = follows_cluster(SESSION)
    assert [c for page in PAGES for c in follows_cluster(page) if c not in session] == []


def test_commands_that_are_not_run_are_in_the_docs() -> None:
    told = {command for page in PAGES for command in commands(page)}
    assert set(NOT_RUN) - told == set(), "remove what the docs do not say any more from NOT_RUN"


@pytest.mark.parametrize("page", PAGES)
def test_specs_of_the_docs_are_accepted(page: str) -> None:
    for text in blocks(page, "yaml"):
        if re.search(r"^name:", text, flags=re.MULTILINE):
            parse_spec(text, source=page, base=REPO / "examples")


@pytest.mark.parametrize("example", sorted(REPO.glob("examples/*.yaml")), ids=lambda path: path.name)
def test_examples_are_accepted(example: Path) -> None:
    parse_spec(example.read_text(), source=example.name, base=example.parent)


@pytest.mark.parametrize("page", [*PAGES, *(str(p.relative_to(REPO)) for p in sorted(REPO.glob("docs/adr/*.md")))])
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", (REPO / page).read_text()):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = (REPO / page).parent / path if path else REPO / page
            assert target.exists(), f"{page} leads to {link}"
            headings = re.findall(r"^#+ (.+)$", target.read_text(), flags=re.MULTILINE) if anchor else []
            anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert not anchor or anchor in anchors, f"{page} leads to {link}, which is none of {sorted(anchors)}"


def verbs_and_subverbs() -> Iterator[tuple[str, click.Command]]:
    """`data` is a group: its own verbs stand in the table."""
    for verb in VERBS:
        command = group.get_command(click.Context(group), verb)  # type: ignore[attr-defined]
        subverbs = command.commands if isinstance(command, click.Group) else {}
        yield from ((f"{verb} {name}", subverb) for name, subverb in subverbs.items())
        if not subverbs:
            yield verb, command


def options_table() -> str:
    """docs/reference.md, all verbs with their options, from click."""
    rows = ["| verb | option | what it does |", "|---|---|---|"]
    for verb, command in verbs_and_subverbs():
        words = [verb]
        found = []
        for param in command.params:
            if isinstance(param, click.Argument):
                words.append(param.metavar or "|".join(param.type.choices))
            elif not param.hidden:
                value = f" {param.metavar}" if param.metavar else ""
                found.append((f"`{', '.join(param.opts)}{value}`", param.help))
        first, *_ = (command.help or "").split("\n")
        title = "`dhctl " + " ".join(words).replace("|", "\\|") + "`"
        rows += [f"| {title} | | {first} |", *(f"| | {option} | {told} |" for option, told in found)]
    return "\n".join(rows)


def spec_table() -> str:
    """docs/reference.md, every key of a spec, from the JSON schema."""
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    tree = schema()
    return "\n".join([*rows, *_spec_rows(tree, tree["$defs"], "")])


def _spec_rows(tree: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in tree["properties"].items():
        node = definitions[value["$ref"].rpartition("/")[2]] if "$ref" in value else value
        if "properties" in node:
            yield f"| `{prefix}{key}` | section | | {_flat(node['description'])} |"
            yield from _spec_rows(node, definitions, f"{prefix}{key}.")
            continue
        required = key in tree.get("required", [])
        default = "required" if required else _default(value.get("default", {}), node)
        told = _flat(value.get("description") or node["description"])
        kind = _kind(node, definitions)
        yield f"| `{prefix}{key}` | {kind} | {default} | {told} |".replace("|  |", "| |")


def _kind(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "anyOf" in node:
        first, *others = (kind for kind in node["anyOf"] if kind.get("type") != "null")
        if others:
            return " or ".join(_kind({"anyOf": [kind]}, definitions) for kind in (first, *others))
        node = definitions[first["$ref"].rpartition("/")[2]] if "$ref" in first else first
    if "oneOf" in node:
        return _kind({"anyOf": node["oneOf"]}, definitions)
    if "enum" in node or "const" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    if "examples" in node:
        return f"text such as `{node['examples'][0]}`"
    words = {
        "string": "text",
        "object": "mapping",
        "integer": "whole number",
        "boolean": "`true` or `false`",
        "array": "list of mappings" if node.get("items", {}).get("type") == "object" else "list of texts",
    }[node["type"]]
    return words + (f", {node['minimum']} to {node['maximum']}" if "minimum" in node else "")


def _default(value: Any, node: Mapping[str, Any]) -> str:
    """With a unit, as a user writes it, however the schema writes it."""
    if value is None:
        return ""
    if "examples" in node and isinstance(value, int):
        value = format_size(value).replace(" ", "")
    elif "examples" in node and value.startswith("P"):
        value = format_duration(TypeAdapter(timedelta).validate_python(value))
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _flat(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def events_table() -> str:
    """docs/reference.md, the events with --json, from their classes."""
    rows = ["| event | fields | when |", "|---|---|---|"]
    for kind in get_args(events.Event):
        names = ", ".join(f"`{field.name}`" for field in fields(kind))
        rows.append(f"| `{kind.__name__}` | {names} | {_flat(kind.__doc__)} |")
    return "\n".join(rows)


@pytest.mark.parametrize("make", [options_table, spec_table, events_table])
def test_table_of_the_reference(make: Any) -> None:
    text, wanted = (REPO / "docs/reference.md").read_text(), make()
    assert wanted in text, f"docs/reference.md is behind the code; put this table in:\n\n{wanted}\n"


def test_exit_codes_of_the_reference() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", (REPO / "docs/reference.md").read_text(), flags=re.MULTILINE)
    assert rows == [(str(code.value), code.name) for code in ExitCode]


def test_verbs_of_the_readme() -> None:
    text = (REPO / "README.md").read_text()
    assert re.findall(r"^\| `dhctl (\w+)", text, flags=re.MULTILINE) == list(VERBS)


def test_targets_of_the_readme() -> None:
    text = (REPO / "README.md").read_text()
    assert [name for name in TargetName if f"`{name.value}`" not in text] == []


def test_environment_of_a_job_in_the_guide() -> None:
    source = (REPO / "infra/bundle.py").read_text()
    told = set(re.findall(r"^\| `(DHCTL_\w+)` \|", (REPO / "docs/guide.md").read_text(), flags=re.MULTILINE))
    assert told == set(re.findall(r'"(DHCTL_\w+)":', source))


def test_the_tenants_role_is_what_admission_asks_for() -> None:
    text = (REPO / "docs" / "kubernetes.md").read_text()
    (role,) = re.findall(r"```yaml\n(.*?kind: Role\nmetadata: \{name: dhctl-tenant\}.*?)```", text, re.DOTALL)
    assert yaml.safe_load(role)["rules"] == list(tenant_rules())
