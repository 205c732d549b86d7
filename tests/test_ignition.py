"""Ignite without what only distributed training asks for: not loaded, and nevertheless answered rightly."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import yeastexp

POSTPONED = """
import sys
import yeastexp.execution
print([name for name in ("torch.distributed.optim", "sympy") if name in sys.modules])

from ignite.handlers import checkpoint
from yeastexp.ignition import ZeroRedundancyOptimizer as StandIn, _postponed
nothing = object()
print(checkpoint.ZeroRedundancyOptimizer is StandIn, isinstance(nothing, StandIn))

with _postponed():
    from torch.distributed.optim import PostLocalSGDOptimizer  # no name that the stand-in has
from torch.distributed.optim import ZeroRedundancyOptimizer
one = object.__new__(ZeroRedundancyOptimizer)
print(isinstance(nothing, StandIn), isinstance(one, StandIn), StandIn is ZeroRedundancyOptimizer)
"""
LOADED_BEFORE = """
from torch.distributed.optim import ZeroRedundancyOptimizer
import yeastexp.ignition
from ignite.handlers import checkpoint
print(checkpoint.ZeroRedundancyOptimizer is ZeroRedundancyOptimizer)
"""


@pytest.mark.parametrize("program, printed", [(POSTPONED, "[]\nTrue False\nFalse True False"), (LOADED_BEFORE, "True")])
def test_what_ignite_asks_for_is_loaded_when_somebody_else_needs_it(program: str, printed: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == printed


def test_no_other_room_imports_ignite() -> None:
    package = Path(yeastexp.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {path.name for name in names if name.split(".")[0] == "ignite"}
    assert found == {"ignition.py"}
