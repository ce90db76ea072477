"""What this machine can hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dhctl.infra.local import machine
from unit.fakes import script


@pytest.fixture(autouse=True)
def _fresh_look() -> Iterator[None]:
    machine.gpu_indices.cache_clear()
    yield
    machine.gpu_indices.cache_clear()


def test_the_first_free_gpus_are_chosen() -> None:
    assert machine.choose_gpus([0, 1, 2, 3], [[0], [2]], 2) == [1, 3]
    assert machine.choose_gpus([0, 1], [], 0) == []
    assert machine.choose_gpus([], [], 0) == []


def test_too_few_free_gpus_are_refused() -> None:
    with pytest.raises(ValueError, match="a worker needs 2 GPUs and 1 of 3 are free"):
        machine.choose_gpus([0, 1, 2], [[0, 1]], 2)


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str, visible: str | None) -> None:
    """A stand-in for the vendor's tool."""
    script(folder / "nvidia-smi", body)
    monkeypatch.setenv("PATH", str(folder))
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, (0, 1, 10)),
        ("", ()),
        ("1,10", (1, 10)),
        ("0", (0,)),
        pytest.param("0, 1", (0, 1)),
    ],
)
def test_gpus_are_those_that_this_process_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, found: tuple[int, ...]
) -> None:
    nvidia_smi(tmp_path, monkeypatch, "print('0\\n1\\n10')", visible)
    assert machine.gpu_indices() == found


def test_a_tool_without_a_driver_means_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, "import sys; print('failed'); sys.exit(9)", None)
    assert machine.gpu_indices() == ()


def test_a_tool_that_finds_no_devices_means_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, "print('No devices were found')", None)
    assert machine.gpu_indices() == ()


def test_no_tool_means_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpu_indices() == ()


def test_this_machine_has_room(tmp_path: Path) -> None:
    found = machine.look(tmp_path / "not" / "there" / "yet")
    assert found.cpus >= 1
    assert found.memory_bytes > 0
    assert found.disk_bytes > 0
    assert not (tmp_path / "not").exists()
