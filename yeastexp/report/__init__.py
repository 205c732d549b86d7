"""The report of a run, a cross-validation or a comparison, as one self-contained HTML page."""

from yeastexp.report.page import MARKER, report

__all__ = ["MARKER", "report"]
