"""A model analysed without training it: parameters, receptive fields, memory, MACs, and advice."""

from yeastexp.data.hdf5_file import refuse_overwriting
from yeastexp.inspection.model.analysis import EffectiveField, Inspection, LayerRow, inspect, with_effective_field
from yeastexp.inspection.model.picture import picture, write_picture
from yeastexp.inspection.model.target import Subject, of_experiment, of_model
from yeastexp.inspection.model.text import as_json, lines
from yeastexp.metrics.cells import diameters

__all__ = [
    "EffectiveField",
    "Inspection",
    "LayerRow",
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
