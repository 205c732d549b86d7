"""Contenders in processes of their own: turns, rounds, what is left out, and the table made of it."""

from __future__ import annotations

import os
import time

import pytest

from benchmarks import measuring
from benchmarks.measuring import Contender, Measured, Skipped, Tick, measure, table


def steady(tick: Tick, setting: float) -> None:
    """A contender whose answer is how often it worked."""
    for number in range(1, 10**6):
        time.sleep(setting)
        tick(float(number))


def short(tick: Tick, setting: float) -> None:
    """One that ends too soon."""
    tick()


HERE = "tests.test_benchmarks_measuring"


def test_each_contender_works_so_many_units_a_round() -> None:
    contenders = [Contender(name, f"{HERE}:steady") for name in ("one", "two")]
    found = measure([*contenders, Contender("absent", "no_such_library:go")], 0.001, rounds=3, units=4, warm_up=2)
    assert list(found) == ["one", "two", "absent"]
    assert found["absent"] == Skipped("no_such_library is not installed; pip install -e '.[bench]'")
    for name in ("one", "two"):
        one = found[name]
        assert isinstance(one, Measured)
        assert len(one.seconds) == 3 and min(one.seconds) >= 0.001 and one.answer == 2 + 3 * 4 and one.peak_mb > 1


def test_a_contender_that_fails_ends_the_measurement(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="short ended before its rounds did"):
        measure([Contender("short", f"{HERE}:short")], 0.0, rounds=1, units=1, warm_up=2)
    assert "Traceback" not in capfd.readouterr().err


def test_the_ratio_is_the_median_over_rounds() -> None:
    results = {
        "bare": Measured([1.0, 2.0, 4.0], 100),
        "mine": Measured([1.0, 1.0, 1.0], 123.4, answer=0.5),
        "absent": Skipped("not here"),
    }
    assert table(results, "bare", "steps", per_unit=10, answer="IoU").splitlines() == [
        "|  | steps/s (median) | range | × bare | peak memory, MB | IoU |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| bare | 5.00 | 2.50 – 10.0 | 1.00 | 100 | – |",
        "| mine | 10.0 | 10.0 – 10.0 | 2.00 | 123 | 0.500000000 |",
        "| absent | skipped: not here | | | | |",
    ]


def test_the_machine_is_described() -> None:
    found = measuring.machine()
    assert f"{os.cpu_count()} cores" in found and "torch " in found and "load " in found
