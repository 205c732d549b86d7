"""Synthetic brightfield yeast, rendered when it is asked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from yeastexp.data.datasets.drawn import Drawn, Picture
from yeastexp.data.datasets.yeast_scene import Look, render
from yeastexp.randomness import generator
from yeastexp.registry import dataset

PIXEL_UM = 0.2
"""Micrometres: makes the default cell 5.2 µm wide, as yeast is."""

Share = Annotated[float, Field(ge=0, le=1)]


@dataset("synthetic_yeast")
class SyntheticYeast(Drawn):
    """Budding yeast drawn by the program: colonies with narrow gaps, buds, vacuoles, debris, and dead cells among them.

    Dead cells are background, as large as live ones and within their range of brightness, so no threshold tells them
    apart; that they are darker, granular and without a bright rim is an assumption. Mothers and buds are instances of
    their own. Rims are bright outside in a share of the images and swapped in the others. `structures` are background
    with bright or dark outlines, and no cell lies on them. Another magnification is another `cell_diameter_px` with a
    `rim_width` to match. An image depends on the settings, the seed and its number alone. The last `val` images
    validate: 8 of 18 unless told otherwise.
    """

    name = "synthetic_yeast"
    maps = ("instances", "dead")
    pixel_um = PIXEL_UM

    def __init__(
        self,
        images: Annotated[int, Field(ge=2, le=99_999)] = 18,
        size: Annotated[int, Field(ge=64, le=4096, description="pixels of a side")] = 256,
        seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0,
        val: Annotated[int, Field(ge=1)] | None = None,
        cell_diameter_px: Annotated[float, Field(ge=10, le=80, description="mean over live cells but buds")] = 26.0,
        crowding: Annotated[float, Field(ge=0, le=0.5, description="share of the area under cells")] = 0.22,
        dead_fraction: Share = 0.25,
        bright_rim_fraction: Share = 0.6,
        noise: Annotated[float, Field(ge=0, le=10, description="factor on the camera's noise")] = 1.0,
        contrast: Annotated[float, Field(ge=0.1, le=4, description="factor on the light of cells")] = 1.0,
        rim_width: Annotated[float, Field(ge=0.4, le=4, description="factor on rims, halos and outlines")] = 1.0,
        debris: Annotated[float, Field(ge=0, le=10, description="factor on the number of specks")] = 1.0,
        shading: Annotated[float, Field(ge=0, le=4, description="factor on the unevenness of the light")] = 1.0,
        structures: Annotated[int, Field(ge=0, le=20, description="straight walls and rows of posts")] = 0,
        gaps: Annotated[float, Field(ge=0, le=10, description="factor on gaps in colonies; 0: cells touch")] = 1.0,
    ) -> None:
        look = Look(
            size=size,
            cell_diameter_px=cell_diameter_px,
            crowding=crowding,
            dead_fraction=dead_fraction,
            bright_rim_fraction=bright_rim_fraction,
            noise=noise,
            contrast=contrast,
            rim_width=rim_width,
            debris=debris,
            shading=shading,
            structures=structures,
            gaps=gaps,
        )
        super().__init__(look, size, "yeast", images, seed, val)

    @staticmethod
    def draw(look: Look, seed: int, index: int) -> Picture:
        """`raw` (H, W) uint16 with `gt`, `instances` and `dead`."""
        return render(look, generator(seed, "synthetic_yeast", index=index))
