"""A run, a cross-validation or a comparison as one page that needs nothing beside it."""

from yeastexp.report.page import MARKER, NAME, rendered, report

__all__ = ["MARKER", "NAME", "rendered", "report"]
