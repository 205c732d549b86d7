"""A profile says where the time goes and changes no result."""

from __future__ import annotations

import io
import json
from pathlib import Path

import kills
import pytest
from rich.console import Console
from test_resume import EXPERIMENT, here, ran

from yeastexp.training.handlers.profile import covered
from yeastexp.training.profiling import PARTS
from yeastexp.training.run import run

__all__ = ["here"]


def test_a_profile_has_every_part_of_every_step_and_changes_no_result(here: Path) -> None:
    console = Console(file=io.StringIO(), width=160)
    plain = ran(here, EXPERIMENT)
    profiled = run(here / "tiny.toml", console=console, profiled=4).resolve()
    events = json.loads((profiled / "profile.json").read_text())["traceEvents"]
    names = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    assert {part: names.count(f"step: {part}") for part in PARTS} == dict.fromkeys(PARTS, 4)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "4 steps, " in shown and "between steps" in shown and "convolution" in shown
    assert kills.differences(plain, profiled) == []


def test_a_group_without_an_update_and_a_run_that_is_too_short(here: Path) -> None:
    for settings, told in (
        (["train.accumulation_steps=4"], "2 steps, "),
        (["train.steps=5"], "2 steps, "),
        (["train.steps=3"], "--profile: training was over after 3 steps; the first 3 do not count"),
    ):
        console = Console(file=io.StringIO(), width=160)
        (here / "tiny.toml").write_text(EXPERIMENT)
        folder = run(here / "tiny.toml", settings, console=console, profiled=2 if "accumulation" in settings[0] else 50)
        assert told in console.file.getvalue()  # type: ignore[attr-defined]
        assert (folder / "profile.json").exists() == ("steps, " in told)


@pytest.mark.parametrize(
    "spans, length",
    [([], 0), ([(1, 3)], 2), ([(5, 6), (1, 3)], 3), ([(1, 4), (2, 3), (3, 6)], 5), ([(1, 2), (1, 2), (2, 3)], 2)],
)
def test_time_that_two_kernels_share_counts_once(spans: list[tuple[float, float]], length: float) -> None:
    assert covered(spans) == length
