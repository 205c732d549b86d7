"""Runs, or cross-validations, beside each other: what differs, and whether images that all saw can tell them apart.

`compare` gives a `Comparison`; `findings`, `tables`, `title`, `as_json` and `draw` say what is in it. Of
cross-validations every image has its score from weights that never saw it, the mean over seeds.
"""

from yeastexp.evaluation.compare.compare import compare
from yeastexp.evaluation.compare.findings import findings
from yeastexp.evaluation.compare.result import Comparison
from yeastexp.evaluation.compare.tables import as_json, draw, tables, title

__all__ = ["Comparison", "as_json", "compare", "draw", "findings", "tables", "title"]
