"""The size of cells in a label map."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
from scipy import ndimage
from torch import Tensor


def diameters(instances: Tensor | None, labels: Tensor) -> list[float]:
    """Equivalent circular diameters of each instance, or of each connected component of the foreground."""
    components = ndimage.label(labels.numpy() > 0)[0] if instances is None else instances.numpy()
    return [2 * sqrt(area / pi) for area in np.unique(components[components > 0], return_counts=True)[1].tolist()]
