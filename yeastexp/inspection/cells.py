"""How large the cells of a label map are."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
from scipy import ndimage
from torch import Tensor


def diameters(instances: Tensor | None, labels: Tensor) -> list[float]:
    """Diameters of circles of the area of each instance, or of each connected piece of the foreground."""
    pieces = ndimage.label(labels.numpy() > 0)[0] if instances is None else instances.numpy()
    return [2 * sqrt(area / pi) for area in np.unique(pieces[pieces > 0], return_counts=True)[1].tolist()]
