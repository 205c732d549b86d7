"""Transforms and augmentations."""

from yeastexp.registry import transform
from yeastexp.transforms import downscale, reflect, rotate90, zscore
from yeastexp.transforms.basic import BasicTransform2D

__all__ = ["BasicTransform2D", "downscale", "reflect", "rotate90", "transform", "zscore"]
