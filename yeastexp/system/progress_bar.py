"""The type of what shows progress over items."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")

ProgressBar = Callable[[Iterable[Item]], Iterable[Item]]
"""Passes items on as they are, and shows how many of them are done; `iter` shows nothing."""
