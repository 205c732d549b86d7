"""Memory: what is free, and what ran out."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import forks
import pytest
import torch

from yeastexp.system import memory


def test_what_a_container_may_take_is_its_limit_less_what_it_uses(tmp_path: Path) -> None:
    assert memory._of_container(tmp_path) is None
    for name, text in {
        "memory.max": "1000",
        "memory.current": "700",
        "memory.stat": "anon 5\ninactive_file 50",
    }.items():
        (tmp_path / name).write_text(f"{text}\n")
    assert memory._of_container(tmp_path) == 350
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._of_container(tmp_path) is None


def test_what_is_free_is_some_of_what_there_is() -> None:
    assert 0 < memory.free(torch.device("cpu")) < 2**50


@pytest.mark.parametrize(
    ("error", "exhausted"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("a bug"), False),
    ],
)
def test_what_ran_out_is_told_from_bugs(error: Exception, exhausted: bool) -> None:
    assert memory.is_exhausted(error) == exhausted


STEPS = """
import resource
import torch
from yeastexp.system import memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.zeros(2**20) for _ in range(8)]
    del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with memory.kept_for_next_step():
    print(*(new_pages() for step in range(5)))
print(new_pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_a_step_gets_the_memory_of_those_before() -> None:
    """In a process of its own: what lies about in one that has tested for minutes decides where tensors go."""
    *steps, after = map(int, forks.run([sys.executable, "-c", STEPS], check=True).stdout.split())
    assert steps[0] > 1000 and steps[-1] < 100
    assert after > 1000  # given back at the end
