"""A model looked into without training it: parameters, receptive fields, memory, multiply-adds, and advice."""

from yeastexp.cells import diameters
from yeastexp.inspect.findings import Effective, Inspection, Row, inspect, with_effective_field
from yeastexp.inspect.picture import picture, write_picture
from yeastexp.inspect.report import as_json, lines
from yeastexp.inspect.subject import Subject, of_experiment, of_model
from yeastexp.store import refuse_overwriting

__all__ = [
    "Effective",
    "Inspection",
    "Row",
    "Subject",
    "as_json",
    "diameters",
    "inspect",
    "lines",
    "of_experiment",
    "of_model",
    "picture",
    "refuse_overwriting",
    "with_effective_field",
    "write_picture",
]
