"""Exact receptive fields, worked out operator by operator; measured on pixels behind an operator without a rule.

`receptive_field(model, channels)` gives that of its output; `rule` and `layer_rule` add operators and layers.
"""

from yeastexp.nets.receptive_field.extent import NO_PIXEL, Extent, Unsupported
from yeastexp.nets.receptive_field.reading import Axis, Phase, ReceptiveField, Survey, receptive_field, survey
from yeastexp.nets.receptive_field.rules import Call, kernel_positions, layer_rule, rule
from yeastexp.nets.receptive_field.tracing import LayerCall, Trace, trace

__all__ = [
    "NO_PIXEL",
    "Axis",
    "Call",
    "Extent",
    "LayerCall",
    "Phase",
    "ReceptiveField",
    "Survey",
    "Trace",
    "Unsupported",
    "kernel_positions",
    "layer_rule",
    "receptive_field",
    "rule",
    "survey",
    "trace",
]
