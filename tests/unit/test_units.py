"""Durations and sizes: what is read, what is written, what is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dhctl.infra.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d12h", 129600), (" 1h30m ", 5400), ("0s", 0), ("1d1h1m1s", 90061)],
)
def test_durations_are_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("wrong", ["", "2", 2, 2.5, None, True, "2 h", "h", "-1h", "1.5h", "1m1h", "1w", ["1h"]])
def test_what_is_no_duration_is_refused_with_an_example(wrong: object) -> None:
    with pytest.raises(ValueError, match="is not a duration; write a number with a unit, such as 90s"):
        parse_duration(wrong)


@pytest.mark.parametrize("seconds", [0, 1, 59, 60, 61, 3600, 5400, 86399, 86400, 129600, 1209600])
def test_durations_survive_a_round_trip(seconds: int) -> None:
    there = format_duration(timedelta(seconds=seconds))
    assert parse_duration(there) == timedelta(seconds=seconds)


def test_durations_are_written_short() -> None:
    assert [format_duration(timedelta(seconds=s)) for s in (5400, 86400, 0, 90)] == ["1h30m", "1d", "0s", "1m30s"]


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("2GiB", 2**31), ("512MiB", 2**29), ("1.5GB", 1_500_000_000), ("1 KiB", 1024), ("1TB", 10**12), ("1kB", 1000)],
)
def test_sizes_are_read(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("wrong", ["", "2", 2, 2.5, None, True, "2gib", "GiB", "-1GiB", "1,5GB", "2GiB x", "1e3GB"])
def test_what_is_no_size_is_refused_with_an_example(wrong: object) -> None:
    with pytest.raises(ValueError, match="is not a size; write a number with a unit, such as 512MiB"):
        parse_size(wrong)


@pytest.mark.parametrize("text", ["1 KiB", "1.5 GiB", "512 MiB", "3 TiB"])
def test_sizes_survive_a_round_trip(text: str) -> None:
    assert format_size(parse_size(text)) == text


def test_sizes_below_a_kibibyte_are_bytes() -> None:
    assert format_size(1023) == "1023 B"


def test_a_duration_beyond_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration("9999999999999d")


def test_a_size_beyond_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size("1" * 400 + "GiB")
