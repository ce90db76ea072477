"""Memory that a training process freed and needs again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dhctl.ray_jobs.training.allocator import ENVIRONMENT

STEPS = """
import resource, sys, threading
import torch
from dhctl.ray_jobs.training.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    activations = [torch.ones(megabytes << 18) for megabytes in (1, 8, 20, 40, 80)]
    return sum(float(one[0]) for one in activations)

def train():
    if sys.argv[1] == "keep":
        assert keep_freed_memory()
    for _ in range(10):  # until the heap is as long as a step needs it
        step()
    before = faults()
    for _ in range(10):
        step()
    print((faults() - before) // 10)

torch.set_num_threads(1)
if sys.argv[2] == "thread":
    other = threading.Thread(target=train)
    other.start()
    other.join()
else:
    train()
"""


def faults_a_step(how: str, where: str) -> int:
    command = [sys.executable, "-c", STEPS, how, where]
    env = {**os.environ, **ENVIRONMENT} if how == "keep" else None
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.parametrize("where", ["main", "thread"])
def test_a_step_does_not_ask_the_kernel_for_the_same_pages_again(where: str) -> None:
    assert faults_a_step("keep", where) < faults_a_step("plain", where) / 4
