"""Runs, or cross-validations, compared image by image: what differs, and whether the difference is significant.

`compare` returns a `Comparison`, which `findings`, `tables`, `title`, `as_json` and `draw` show. In cross-validations
the score of an image is the mean over seeds of its out-of-fold scores.
"""

from yeastexp.evaluation.compare.compare import compare, label_of_cells
from yeastexp.evaluation.compare.findings import findings
from yeastexp.evaluation.compare.result import Comparison
from yeastexp.evaluation.compare.tables import as_json, draw, tables, title

__all__ = ["Comparison", "as_json", "compare", "draw", "findings", "label_of_cells", "tables", "title"]
