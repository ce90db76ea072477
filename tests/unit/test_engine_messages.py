"""What the engine says when it fails, as a user should read it."""

from __future__ import annotations

import pytest

from dhctl.infra.engine import clean_message

TRACEBACK = """<{%reset%}>Exception calling application: port 8265 is taken by nginx (pid 7); set local.dashboard_port
<{%reset%}>"""

DYNAMIC = """  error: <{%reset%}>Traceback (most recent call last):
  File "/venv/bin/pulumi-python-dynamic", line 120, in Create
    result = provider.create(props)
             ^^^^^^^^^^^^^^^^^^^^^^
  File "/src/stacks/local/resources.py", line 81, in create
    started = head.start_head(_settings(props))
dhctl.infra.errors.ClusterError: Ray's head did not come up; its log ends: Address already in use
<{%reset%}>
error: update failed"""

CHAINED = """Traceback (most recent call last):
  File "a.py", line 1, in f
OSError: [Errno 98] Address already in use

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "b.py", line 1, in g
dhctl.infra.errors.ClusterError: port 8265 is taken; set local.dashboard_port to a free one"""


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (DYNAMIC, "Ray's head did not come up; its log ends: Address already in use"),
        (CHAINED, "port 8265 is taken; set local.dashboard_port to a free one"),
        ("grpc._channel.InactiveRpcError: Exception calling application: no space left", "no space left"),
        ("\x1b[31mquota exceeded\x1b[0m\n", "quota exceeded"),
        ("<{%fg 1%}>quota exceeded<{%reset%}>\nupdate failed\n", "quota exceeded"),
        ("update failed", ""),
        ("resource registration failed\n", ""),
        ("", ""),
        ("  first\n\n  second ", "first second"),
    ],
)
def test_a_diagnostic_is_reduced_to_its_reason(said: str, read: str) -> None:
    assert clean_message(said) == read


def test_an_exception_of_a_dynamic_provider_loses_its_frame() -> None:
    assert "port 8265 is taken by nginx (pid 7); set local.dashboard_port" in clean_message(TRACEBACK)
    assert "<{%" not in clean_message(TRACEBACK)


def test_grpcs_frame_goes_wherever_it_stands() -> None:
    assert clean_message(TRACEBACK) == "port 8265 is taken by nginx (pid 7); set local.dashboard_port"


@pytest.mark.parametrize("raised", ["KeyError: 'address'", "ValueError: 7"])
def test_an_exception_without_a_sentence_keeps_its_type(raised: str) -> None:
    assert clean_message(f"Traceback (most recent call last):\n  File ...\n{raised}") == raised


def test_a_long_message_is_cut() -> None:
    assert len(clean_message("word " * 1000)) <= 600
