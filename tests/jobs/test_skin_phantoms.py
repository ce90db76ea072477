"""Phantoms: the same from a seed, in both formats, imbalanced, and not to be told by their mean colour."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dhctl.ray_jobs.pipeline.baselines import mean_colour_baseline
from dhctl.ray_jobs.skin.drawing import SIZE_PX, STRUCTURES, draw
from dhctl.ray_jobs.skin.listing import list_pictures
from dhctl.ray_jobs.skin.phantoms import DATASET, LABELS, PhantomTask, plan_phantoms, write_descriptions, write_phantom
from dhctl.ray_jobs.skin.scores import balanced_accuracy
from dhctl.ray_jobs.skin.split import parts_of_lesions
from dhctl.ray_jobs.storage import Store, open_store
from jobs.sample_pictures import quick_settings

SETTINGS = quick_settings(phantom_lesions=60, seed=3)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = open_store(str(tmp_path_factory.mktemp("phantoms")))
    phantoms = plan_phantoms(SETTINGS)
    for phantom in phantoms:
        write_phantom(PhantomTask(phantom, store))
    write_descriptions(store, phantoms, SETTINGS)
    return store


def test_classes_are_imbalanced_and_lesions_have_several_pictures() -> None:
    phantoms = plan_phantoms(quick_settings(phantom_lesions=200))
    lesions = Counter({p.lesion: p.label for p in phantoms}.values())
    assert set(lesions) == set(STRUCTURES)
    assert lesions["NV"] > 4 * lesions["DF"]
    assert {Counter(p.lesion for p in phantoms)[p.lesion] for p in phantoms} == {1, 2, 3}
    assert phantoms == plan_phantoms(quick_settings(phantom_lesions=200))
    assert phantoms != plan_phantoms(quick_settings(phantom_lesions=200, seed=1))


def test_both_descriptions_say_the_same(made: Store) -> None:
    by_yaml = list_pictures(made, SETTINGS)
    by_tables = list_pictures(made, quick_settings(phantom_lesions=60, seed=3, table=LABELS))
    assert by_yaml.classes == by_tables.classes == tuple(STRUCTURES)
    assert [(p.name, p.label, p.lesion, p.file) for p in by_yaml.pictures] == [
        (p.name, p.label, p.lesion, p.file) for p in by_tables.pictures
    ]
    assert {p.lesion: p.part for p in by_yaml.pictures} == parts_of_lesions(by_tables.pictures, SETTINGS)
    assert made.read(DATASET).startswith(b"name: isic_phantom\n")
    assert b"generated phantoms, not patients" in made.read(DATASET)


def test_the_same_seed_gives_the_same_picture() -> None:
    def picture(view: int) -> np.ndarray:  # type: ignore[type-arg]
        return draw("MEL", np.random.default_rng(1), np.random.default_rng(view))

    assert picture(1).shape == (*SIZE_PX, 3)
    assert (picture(1) == picture(1)).all()
    assert (picture(1) != picture(2)).any()


def test_mean_colour_says_little() -> None:
    labels = np.arange(280) % 7
    names = list(STRUCTURES)
    middle = slice(20, 140)
    colours = [
        draw(names[label], np.random.default_rng([0, n]), np.random.default_rng([1, n]))[:, middle].mean(axis=(0, 1))
        for n, label in enumerate(labels)
    ]
    guesses = mean_colour_baseline(colours[:140], labels[:140].tolist(), colours[140:], balanced=True)
    assert 1 / 7 - 0.05 < balanced_accuracy(labels[140:], np.array(guesses)) < 0.45
