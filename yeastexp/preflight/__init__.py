"""An experiment's data looked through before training, and whether its model can learn them at all."""

from yeastexp.preflight.carried import Carried
from yeastexp.preflight.figures import Figures
from yeastexp.preflight.finding import Finding
from yeastexp.preflight.overfit import STEPS, Overfit
from yeastexp.preflight.page import as_json, lines
from yeastexp.preflight.preflight import Preflight, preflight

__all__ = ["STEPS", "Carried", "Figures", "Finding", "Overfit", "Preflight", "as_json", "lines", "preflight"]
