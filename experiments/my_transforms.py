from dataclasses import dataclass
from yeastexp import BasicTransform2D, transform

@transform("invert")
@dataclass(frozen=True)
class Invert(BasicTransform2D):
    def image(self, image, params):
        return -image
