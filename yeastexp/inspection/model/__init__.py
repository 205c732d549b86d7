"""A model looked into without training it: parameters, receptive fields, memory, multiply-adds, and advice."""

from yeastexp.data.hdf5_file import refuse_overwriting
from yeastexp.inspection.cells import diameters
from yeastexp.inspection.model.analysis import Effective, Inspection, Row, inspect, with_effective_field
from yeastexp.inspection.model.picture import picture, write_picture
from yeastexp.inspection.model.target import Subject, of_experiment, of_model
from yeastexp.inspection.model.text import as_json, lines

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
