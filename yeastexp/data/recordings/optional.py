"""Packages that read a format, and are only needed for it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from yeastexp.errors import UserError


def optional(package: str, path: Path, format_name: str) -> Any:
    """A package. Raises UserError with the command that installs it if it is not there."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(f"{path}: is {format_name}, which needs another package; pip install {package}") from None
