"""Transforms and augmentations."""

from yeastexp.data.transforms import affine as affine
from yeastexp.data.transforms import brightness_contrast as brightness_contrast
from yeastexp.data.transforms import crop as crop
from yeastexp.data.transforms import downscale as downscale
from yeastexp.data.transforms import elastic as elastic
from yeastexp.data.transforms import gamma as gamma
from yeastexp.data.transforms import gaussian_blur as gaussian_blur
from yeastexp.data.transforms import gaussian_noise as gaussian_noise
from yeastexp.data.transforms import invert_contrast as invert_contrast
from yeastexp.data.transforms import pasted_cells as pasted_cells
from yeastexp.data.transforms import pasted_structures as pasted_structures
from yeastexp.data.transforms import percentile as percentile
from yeastexp.data.transforms import poisson_noise as poisson_noise
from yeastexp.data.transforms import polarity as polarity
from yeastexp.data.transforms import reflect as reflect
from yeastexp.data.transforms import rotate90 as rotate90
from yeastexp.data.transforms import uneven_illumination as uneven_illumination
from yeastexp.data.transforms import zscore as zscore
from yeastexp.data.transforms.base import BasicTransform2D as BasicTransform2D
from yeastexp.registry import transform as transform
