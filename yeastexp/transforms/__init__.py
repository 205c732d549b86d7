"""Transforms and augmentations."""

from yeastexp.registry import transform as transform
from yeastexp.transforms import affine as affine
from yeastexp.transforms import brightness_contrast as brightness_contrast
from yeastexp.transforms import crop as crop
from yeastexp.transforms import downscale as downscale
from yeastexp.transforms import elastic as elastic
from yeastexp.transforms import gamma as gamma
from yeastexp.transforms import gaussian_blur as gaussian_blur
from yeastexp.transforms import gaussian_noise as gaussian_noise
from yeastexp.transforms import invert_contrast as invert_contrast
from yeastexp.transforms import pasted_structures as pasted_structures
from yeastexp.transforms import percentile as percentile
from yeastexp.transforms import poisson_noise as poisson_noise
from yeastexp.transforms import polarity as polarity
from yeastexp.transforms import reflect as reflect
from yeastexp.transforms import rotate90 as rotate90
from yeastexp.transforms import uneven_illumination as uneven_illumination
from yeastexp.transforms import zscore as zscore
from yeastexp.transforms.basic import BasicTransform2D as BasicTransform2D
