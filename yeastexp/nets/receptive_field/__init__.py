"""What a net sees of its image: exact receptive fields, worked out on its operators.

`receptive_field(model, channels)` reads them; `rule` and `layer_rule` teach operators and layers that are not known.
"""

from yeastexp.nets.receptive_field.reach import NOTHING, CannotFollow, Reach
from yeastexp.nets.receptive_field.reading import Axis, Phase, ReceptiveField, Survey, receptive_field, survey
from yeastexp.nets.receptive_field.rules import Call, layer_rule, rule, windows
from yeastexp.nets.receptive_field.tracing import Step, Trace, trace

__all__ = [
    "NOTHING",
    "Axis",
    "Call",
    "CannotFollow",
    "Phase",
    "Reach",
    "ReceptiveField",
    "Step",
    "Survey",
    "Trace",
    "layer_rule",
    "receptive_field",
    "rule",
    "survey",
    "trace",
    "windows",
]
