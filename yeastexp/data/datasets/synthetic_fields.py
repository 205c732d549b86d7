"""Synthetic yeast under many microscopes, drawn when it is asked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from yeastexp.data.datasets.drawn import Drawn, Picture
from yeastexp.data.datasets.field_scene import FieldLook, render
from yeastexp.data.splits import default_validation
from yeastexp.errors import UserError
from yeastexp.randomness import generator
from yeastexp.registry import dataset


@dataset("synthetic_fields")
class SyntheticFields(Drawn):
    """Yeast as different microscopes show it, to train what is to work on images of a microscope not known.

    Each image has a technique (brightfield, or phase contrast with dark or bright cells), a focus, a size of cells, a
    crowding from none to dense colonies, an exposure and a noise of its own; many have traps, walls, letters or posts,
    specks, dead cells out of focus, and uneven light, which are background. A bud is an instance of its own.
    With `focus_steps`, so many images after each other show one scene from below the focus to above it. An image
    depends on the settings, the seed and its number alone. The last `val` images validate.
    """

    name = "synthetic_fields"

    def __init__(
        self,
        images: Annotated[int, Field(ge=2, le=99_999)] = 40,
        size: Annotated[int, Field(ge=64, le=2048, description="pixels of a side")] = 256,
        seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0,
        val: Annotated[int, Field(ge=1)] | None = None,
        smallest_px: Annotated[float, Field(ge=8, le=80, description="across the smallest cells but buds")] = 8.0,
        largest_px: Annotated[float, Field(ge=8, le=80, description="across the largest cells")] = 80.0,
        focus_steps: Annotated[int, Field(ge=1, le=99, description="images of each scene")] = 1,
    ) -> None:
        if smallest_px > largest_px:
            raise UserError(f"the smallest cells, {smallest_px:g} px, are larger than the largest", key="smallest_px")
        val = val or -(-default_validation(images) // focus_steps) * focus_steps
        if images % focus_steps or val % focus_steps:
            wrong, key = (images, "images") if images % focus_steps else (val, "val")
            raise UserError(f"{wrong} is no multiple of focus_steps, {focus_steps}: a scene would be cut", key=key)
        super().__init__(FieldLook(size, smallest_px, largest_px, focus_steps), size, "field", images, seed, val)

    def dtype(self, name: str) -> str:
        """The type that an image would be stored in."""
        return "uint8"

    @staticmethod
    def draw(look: FieldLook, seed: int, index: int) -> Picture:
        """`raw` (H, W) uint8 with `gt` and `instances`."""
        scene, plane = divmod(index, look.focus_steps)
        camera = generator(seed, "synthetic_fields", index=scene, position=1 + plane)
        return render(look, generator(seed, "synthetic_fields", index=scene), plane, camera)
