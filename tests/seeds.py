"""Seeds of tests on random cases: some are tried always, the rest in the long form, `pytest -m fuzz`."""

from __future__ import annotations

import pytest


def seeds(usual: int, of: int) -> list[object]:
    """The first ones as they are, the others marked."""
    return [*range(usual), *(pytest.param(seed, marks=pytest.mark.fuzz) for seed in range(usual, of))]
