"""Generated slides: real files, the same for the same seed, and blind to colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dhctl.ray_jobs.prostate.labels import locate, read_cases
from dhctl.ray_jobs.prostate.phantoms import PhantomTask, plan_phantoms, render, write_phantom, write_table
from dhctl.ray_jobs.prostate.settings import settings_from
from dhctl.ray_jobs.prostate.slides import open_slide
from dhctl.ray_jobs.prostate.tiles import tissue_tiles
from dhctl.ray_jobs.storage import open_store


def test_phantoms_are_slides_with_a_table(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    phantoms = plan_phantoms(3, seed=1)
    for phantom in phantoms:
        write_phantom(PhantomTask(phantom, store))
    write_table(store, phantoms)
    cases = read_cases(store)
    assert [case.patient for case in cases] == ["patient-000", "patient-001", "patient-002", "patient-002"]
    assert all(row.key for row in locate(store, cases))
    with open_slide(tmp_path / f"{cases[0].slide}.tiff", 9.0) as slide:
        assert slide.um_per_px == pytest.approx(1.0, rel=1e-3)
        assert slide.note is None
        assert slide.handle.level_count == 2
        assert len(tissue_tiles(slide, settings_from({}))) == 24


def test_the_same_seed_gives_the_same_slide() -> None:
    first, again, other = (render(4, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_all_grades_have_equally_many_patients() -> None:
    planned = plan_phantoms(90, seed=2)
    assert len(planned) == 120
    grades = {phantom.case.patient: phantom.case.grade for phantom in planned}
    assert [list(grades.values()).count(grade) for grade in range(6)] == [15] * 6
    assert sorted(sum(phantom.case.grade == grade for phantom in planned) for grade in range(6)) == [15] * 4 + [30] * 2
