"""Networks from images (B, C, H, W) to logits (B, K, H, W), or (B, K) for one that `inspect` alone takes."""

from yeastexp.nets import cnn_classifier, fcn, unet
from yeastexp.registry import model

__all__ = ["cnn_classifier", "fcn", "model", "unet"]
