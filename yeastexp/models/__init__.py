"""Networks from images (B, C, H, W) to logits (B, K, H, W)."""

from yeastexp.models import unet
from yeastexp.registry import model

__all__ = ["model", "unet"]
