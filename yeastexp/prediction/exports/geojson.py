"""QuPath's GeoJSON: one detection for each cell, with its outline along the edges of pixels and its measurements."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yeastexp.prediction.exports import outlines
from yeastexp.prediction.exports.contract import Labelled, Named, NamedT, stacks, writing


class GeoJson:
    """Detections that are named by the ids of cells; a plane has the frame of a stack and its plane in depth."""

    name, title, form, needs = "geojson", "QuPath GeoJSON", "geojson/NAME.geojson", ""

    def targets(self, images: Sequence[NamedT], output: Path) -> Mapping[Path, Sequence[NamedT]]:
        """Return a file for each image or stack."""
        return {output / self.name / f"{stem}.geojson": members for stem, members in stacks(images)}

    def write(self, images: Sequence[Labelled], output: Path, asked: Sequence[Named]) -> None:
        """Write a file for each image or stack."""
        for stem, members in stacks(images):
            with writing(output / self.name / f"{stem}.geojson") as path, path.open("w", encoding="utf-8") as text:
                text.write('{"type": "FeatureCollection", "features": [')
                for number, feature in enumerate(_feature(*cell) for image in members for cell in _cells(image)):
                    text.write((",\n" if number else "\n") + json.dumps(feature, allow_nan=False))
                text.write("\n]}\n")


def _cells(image: Labelled) -> Iterator[tuple[Labelled, int, list[list[outlines.Ring]], dict[str, Any]]]:
    for (label, mask, top, left), row in zip(image.cells(), image.measurements(), strict=True):
        yield image, label, outlines.polygons(mask, top, left), row


def _feature(image: Labelled, label: int, parts: list[list[outlines.Ring]], row: dict[str, Any]) -> dict[str, Any]:
    """Return a cell as a GeoJSON feature."""
    # GeoJSON repeats the first vertex of a ring, knows neither NaN nor infinity, and QuPath wants a UUID, which is
    # derived from the names so that the same cell is given the same one.
    coordinates = [[[*ring, ring[0]] for ring in part] for part in parts]
    whole = len(coordinates) == 1
    # A maximum of all planes is on none of them, but QuPath wants one.
    plane = {"c": -1, "z": image.plane or 0, "t": image.frame}
    geometry = {
        "type": "Polygon" if whole else "MultiPolygon",
        "coordinates": coordinates[0] if whole else coordinates,
        **({"plane": plane} if image.stack or image.planes > 1 else {}),
    }
    values = {name: float(value) if isinstance(value, float) else int(value) for name, value in row.items()
              if math.isfinite(value)}  # fmt: skip
    metadata = {"metadata": {"method": image.method}} if image.method else {}
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{image.name}#{label}")),
        "geometry": geometry,
        "properties": {"objectType": "detection", "name": str(label), "measurements": values, **metadata},
    }
