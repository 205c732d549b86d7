"""An experiment's data looked through before training, and whether its model can learn them at all."""

from yeastexp.inspection.preflight.alignment import Carried
from yeastexp.inspection.preflight.checks import Preflight, preflight
from yeastexp.inspection.preflight.finding import Finding
from yeastexp.inspection.preflight.overfit import STEPS, Overfit
from yeastexp.inspection.preflight.page import as_json, lines
from yeastexp.inspection.preflight.statistics import Figures

__all__ = ["STEPS", "Carried", "Figures", "Finding", "Overfit", "Preflight", "as_json", "lines", "preflight"]
