"""Writers of predicted cells in the formats of other programs: `KINDS` lists them, `contract` says what they do."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from yeastexp.errors import UserError, did_you_mean
from yeastexp.prediction.exports.coco import Coco
from yeastexp.prediction.exports.contract import Kind, Labelled, Named
from yeastexp.prediction.exports.ctc import TrackingChallenge
from yeastexp.prediction.exports.geojson import GeoJson
from yeastexp.prediction.exports.imagej_tiff import ImageJTiff
from yeastexp.prediction.exports.ome_zarr import OmeZarr
from yeastexp.prediction.exports.roi import Roi

__all__ = ["KINDS", "Kind", "Labelled", "chosen", "told", "write"]

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (Roi(), GeoJson(), Coco(), TrackingChallenge(), ImageJTiff(), OmeZarr())
}


def chosen(names: Sequence[str]) -> list[Kind]:
    """Return the kinds of some names, each once; raises UserError if one is unknown or needs a missing package."""
    for name in names:
        if name not in KINDS:
            raise UserError(f"--as {name}: no such kind of file{did_you_mean(name, KINDS)}")
        if (package := KINDS[name].needs) and find_spec(package) is None:
            raise UserError(f"--as {name}: needs another package; pip install {package}")
    return [KINDS[name] for name in dict.fromkeys(names)]


def write(
    kinds: Sequence[Kind], images: Sequence[Labelled], output: Path, asked: Sequence[Named] | None = None
) -> list[str]:
    """Write images, by default all that were `asked` for, in each kind and return all faults.

    A fault in one kind does not stop the others.
    """
    faults: list[str] = []
    for kind in kinds if images else ():
        try:
            kind.write(images, output, images if asked is None else asked)
        except UserError as error:
            faults += error.faults
    return faults


def told(names: Sequence[str], output: Path) -> list[str]:
    """Return a line for each kind that says where its files were written."""
    return [f"{kind.title}: {output / kind.form}" for kind in chosen(names)]
