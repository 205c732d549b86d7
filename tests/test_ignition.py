"""Ignite without what only distributed training asks for: not loaded, and nevertheless answered rightly."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import yeastexp

UNLOADED = """
import sys
import yeastexp.execution
print([name for name in ("torch.distributed.optim", "sympy") if name in sys.modules])
"""
RECOGNISED = """
from yeastexp.ignition import ZeroRedundancyOptimizer as StandIn
from ignite.handlers import checkpoint
assert checkpoint.ZeroRedundancyOptimizer is StandIn
nothing = object()
print(isinstance(nothing, StandIn))
from torch.distributed.optim import ZeroRedundancyOptimizer
one = object.__new__(ZeroRedundancyOptimizer)
print(isinstance(nothing, StandIn), isinstance(one, StandIn), StandIn is ZeroRedundancyOptimizer)
"""
OTHER_NAMES = """
from yeastexp.ignition import _postponed
with _postponed():
    from torch.distributed.optim import PostLocalSGDOptimizer, ZeroRedundancyOptimizer
print(PostLocalSGDOptimizer.__module__)
"""
LOADED_BEFORE = """
from torch.distributed.optim import ZeroRedundancyOptimizer
import yeastexp.ignition
from ignite.handlers import checkpoint
print(checkpoint.ZeroRedundancyOptimizer is ZeroRedundancyOptimizer)
"""


@pytest.mark.parametrize(
    "program, printed",
    [
        (UNLOADED, "[]"),
        (RECOGNISED, "False\nFalse True False"),
        (OTHER_NAMES, "torch.distributed.optim.post_localSGD_optimizer"),
        (LOADED_BEFORE, "True"),
    ],
)
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
