"""How many cores a process was given, whoever says so."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch

from yeastexp.system import cores


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores, and nobody who says anything."""
    for name in cores.ASKED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "_quotas", lambda: iter([]))


def test_all_cores_of_the_machine() -> None:
    assert cores.allowed() == (8, "cores of the machine")


@pytest.mark.parametrize("name", cores.ASKED)
def test_what_is_asked_for_is_the_most(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "3")
    assert cores.allowed() == (3, name)
    monkeypatch.setenv(name, "64")
    assert cores.allowed()[0] == 8, "no more than there are"


@pytest.mark.parametrize(("value", "threads"), [("2,1", 2), (" 4 ", 4), ("", 8), ("0", 8), ("many", 8), ("-1", 8)])
def test_odd_values(monkeypatch: pytest.MonkeyPatch, value: str, threads: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert cores.allowed()[0] == threads


def test_the_cores_that_a_process_is_bound_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5, 7})
    assert cores.allowed() == (2, "cores that the process is bound to")


@pytest.mark.parametrize(("quota", "threads"), [(0.5, 1), (1.9, 1), (4.0, 4)])
def test_the_limit_of_a_container(monkeypatch: pytest.MonkeyPatch, quota: float, threads: int) -> None:
    monkeypatch.setattr(cores, "_quotas", lambda: iter([6.0, quota]))
    assert cores.allowed() == (threads, "cores that the control group gets")


def test_pytorch_keeps_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes no more than it has."""
    torch.set_num_threads(2)
    cores.keep_to_allowed()
    assert torch.get_num_threads() == 2
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    cores.keep_to_allowed()
    assert torch.get_num_threads() == 1


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_control_groups_of_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    write(tmp_path / "own", "0::/job/step\n")
    write(tmp_path / "groups/job/step/cpu.max", "max 100000\n")
    write(tmp_path / "groups/job/cpu.max", "250000 100000\n")
    assert list(cores._quotas(tmp_path / "groups", tmp_path / "own")) == [2.5]
    write(tmp_path / "groups/cpu.max", "50000 100000\n")
    assert list(cores._quotas(tmp_path / "groups", tmp_path / "none")) == [0.5], "as in a container"


def test_control_groups_of_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    write(tmp_path / "own", "4:memory:/elsewhere\n3:cpu,cpuacct:/job\n0::/\n")
    for folder, quota in (("cpu/job", "300000"), ("cpu", "-1")):
        write(tmp_path / "groups" / folder / "cpu.cfs_quota_us", quota)
        write(tmp_path / "groups" / folder / "cpu.cfs_period_us", "100000\n")
    assert list(cores._quotas(tmp_path / "groups", tmp_path / "own")) == [3.0]


def test_one_thread_and_then_as_many_as_before() -> None:
    def known() -> set[str]:
        return set(re.findall(r"_get_max_threads\(\) : (\d+)", torch.__config__.parallel_info()))

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with cores.OneThread():
            assert known() == {"1"}, "OpenMP, and MKL where there is one"
        assert known() == {"2"}
    finally:
        torch.set_num_threads(before)
