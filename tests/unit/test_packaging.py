"""What is installed is what is on disk: the written-out package list, the wheel, the entry point, the pins."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
ROOMS = ("infra", "stacks", "ray_jobs", "cli")
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())


def packages_on_disk() -> list[str]:
    folders = {path.parent.relative_to(REPO) for room in ROOMS for path in (REPO / room).rglob("*.py")}
    return sorted(".".join(["dhctl", *folder.parts]) for folder in folders)


def modules_on_disk() -> set[str]:
    return {f"dhctl/{path.relative_to(REPO)}" for room in ROOMS for path in (REPO / room).rglob("*.py")}


def test_package_list_is_what_is_on_disk() -> None:
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == packages_on_disk()


def test_every_package_has_an_init() -> None:
    folders = [REPO / name.removeprefix("dhctl.").replace(".", "/") for name in packages_on_disk()]
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_every_room_is_typed() -> None:
    assert [room for room in ROOMS if not (REPO / room / "py.typed").exists()] == []


def test_pins_cover_the_dependencies_and_name_no_place() -> None:
    text = (REPO / "constraints.txt").read_text()
    pinned = {_normal(name) for name in re.findall(r"^([\w.-]+)==", text, flags=re.MULTILINE)}
    groups = [
        PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"].values(),
        *PROJECT["dependency-groups"].values(),
    ]
    wanted = {_normal(re.match(r"[\w.-]+", line)[0]) for lines in groups for line in lines}  # type: ignore[index]
    assert wanted - pinned == {"dhctl"}, "the extra `jobs` names dhctl itself"
    assert not re.search(r"://|--index|--find-links| @ |^/|\s/", text, flags=re.MULTILINE)


def test_direct_pins_agree_with_the_constraints() -> None:
    lines = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["prostate"]]
    pinned = (REPO / "constraints.txt").read_text().splitlines()
    for line in lines:
        name, equals, version = re.sub(r"\[.*\]", "", line).partition("==")
        if equals:
            assert any(pin.split(" ")[0] == f"{name}=={version}" for pin in pinned), line


def others_on_disk() -> set[str]:
    """Files of the packages that are no modules."""
    found = (path for room in ROOMS for path in (REPO / room).rglob("*") if path.is_file())
    return {f"dhctl/{path.relative_to(REPO).as_posix()}" for path in found if path.suffix not in (".py", ".pyc")}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, so that no build/ or egg-info appears in the checkout, with the build backend that is here."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((REPO / name).read_bytes())
    for room in ROOMS:
        for path in (REPO / room).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                target = source / path.relative_to(REPO)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--skip-dependency-check", "-o", str(out)]
    done = subprocess.run([*build, str(source)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return zipfile.ZipFile(built)


def test_wheel_holds_dhctl_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"dhctl", f"dhctl-{PROJECT['project']['version']}.dist-info"}
    assert {name for name in names if name.endswith(".py")} == modules_on_disk()
    assert "dhctl/infra/py.typed" in names
    assert others_on_disk() <= set(names), "package-data names what is no Python, such as templates"
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_wheel_names_the_command(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "dhctl = dhctl.cli.main:main" in wheel.read(name).decode()


def test_command_of_this_installation_loads() -> None:
    (command,) = entry_points(group="console_scripts", name="dhctl")
    assert callable(command.load())
