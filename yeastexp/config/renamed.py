"""The present table and name of keys that are in the wrong table or have a former name."""

from __future__ import annotations

from collections.abc import Mapping

from yeastexp.config.settings import SCHEMAS

RENAMED: Mapping[tuple[str, str], str] = {
    ("train", "window"): "[patches] size",
    ("train", "windows_per_image"): "[patches] per_image",
    ("train", "foreground"): "[patches] foreground_fraction",
    ("train", "batch"): "[train] batch_size",
    ("train", "accumulate"): "[train] accumulation_steps",
    ("train", "clip_norm"): "[train] max_grad_norm",
    ("train", "ema"): "[train] ema_decay",
    ("train", "initial"): "[train] init_from",
    ("train", "validate_every"): "[validation] every",
    ("train", "early_stopping"): "[validation] patience",
    ("gamma", "most"): "max_gamma",
    ("pasted_structures", "most"): "max_count",
    ("polarity", "least"): "min_skewness",
    ("unet", "patch"): "space_to_depth",
}
"""The present key, by table or name of a part, and former key."""


def renamed(table: str, key: str) -> str | None:
    """Return what an unknown key of `table`, or of the part of that name, is called now; None if it never was one."""
    return RENAMED.get((table, key))


def home_of(key: str) -> str | None:
    """Return the table of settings and key that an unknown key belongs to; None if it is known nowhere."""
    homes = [name for name, schema in SCHEMAS.items() if key in schema.keys]
    return f"[{homes[0]}] {key}" if homes else RENAMED.get(("train", key))
