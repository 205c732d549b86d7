"""Where a key that stands in the wrong table, or under the name it once had, belongs."""

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
"""By table, or by the name of a part, and the former key."""


def home_of(table: str, key: str) -> str | None:
    """Where a key that `table` (or the part of that name) does not know is to be written; None if nobody knows it.

    A key at the top of the file has the table ``''``.
    """
    if table and (renamed := RENAMED.get((table, key))):
        return renamed
    if table and table not in SCHEMAS:
        return None
    homes = [name for name, schema in SCHEMAS.items() if key in schema.keys]
    return f"[{homes[0]}] {key}" if homes else RENAMED.get(("train", key))
