"""A data set checked before training, and whether the model can learn it at all."""

from yeastexp.inspection.preflight.alignment import Alignment
from yeastexp.inspection.preflight.checks import Preflight, preflight
from yeastexp.inspection.preflight.finding import Finding, ordered
from yeastexp.inspection.preflight.overfit import STEPS, Overfit
from yeastexp.inspection.preflight.page import as_json, finding_lines, lines
from yeastexp.inspection.preflight.statistics import ImageStatistics

__all__ = [
    "STEPS",
    "Alignment",
    "Finding",
    "ImageStatistics",
    "Overfit",
    "Preflight",
    "as_json",
    "finding_lines",
    "lines",
    "ordered",
    "preflight",
]
