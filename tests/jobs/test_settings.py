"""Profiles and what users change of them."""

from __future__ import annotations

import pytest

from dhctl.ray_jobs.environment import RefusedInputError
from dhctl.ray_jobs.prostate.settings import PROFILES, settings_from


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_loads(profile: str) -> None:
    settings = settings_from({"profile": profile, "seed": 7})
    assert (settings.profile, settings.seed) == (profile, 7)


def test_the_default_is_tiny() -> None:
    assert settings_from({}).profile == "tiny"


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"epoch": 3}, "job.params has no setting 'epoch'; did you mean epochs?"),
        ({"profile": "huge"}, "job.params.profile is 'huge'; use one of tiny, full"),
        ({"epochs": 0}, "job.params.epochs: Input should be greater than or equal to 1"),
        ({"encoder": "vgg"}, "job.params.encoder: Input should be 'small'"),
    ],
)
def test_what_is_wrong_is_said(params: dict[str, object], sentence: str) -> None:
    with pytest.raises(RefusedInputError) as refused:
        settings_from(params)
    assert sentence in str(refused.value)


def test_the_digest_follows_what_changes_the_model() -> None:
    base = settings_from({})
    assert base.digest() == settings_from({"max_failures": 9}).digest()
    assert base.digest() != settings_from({"seed": 1}).digest()
    assert base.digest("tile_px") == settings_from({"seed": 1}).digest("tile_px")
