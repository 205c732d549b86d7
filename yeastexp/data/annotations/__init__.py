"""Readers of people's label formats: outlines, run lengths, pickled masks, labels in HDF5, all given as label maps.

`recognised` names the kind of a file, `KINDS` has its reader; see `contract` for what a reader gives.
"""

from __future__ import annotations

from pathlib import Path

from yeastexp.data.annotations import json_file
from yeastexp.data.annotations.cellpose import CellposeNpy
from yeastexp.data.annotations.coco import Coco, is_coco
from yeastexp.data.annotations.contract import Annotation, Frames, Kind, Labels, told
from yeastexp.data.annotations.geojson import GeoJson, is_geojson
from yeastexp.data.annotations.hdf5_labels import Hdf5Labels
from yeastexp.data.annotations.imagej import ImageJ
from yeastexp.data.annotations.labelme import Labelme, is_labelme
from yeastexp.errors import UserError

__all__ = ["KINDS", "SUFFIXES", "Annotation", "Frames", "Hdf5Labels", "Kind", "Labels", "recognised", "told"]

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (Labelme(), Coco(), GeoJson(), ImageJ(), CellposeNpy(), Hdf5Labels())
}

SUFFIXES = tuple(sorted({suffix for kind in KINDS.values() for suffix in kind.suffixes}))
"""Of the files in a folder that may be annotations."""

JSON_KINDS = {"labelme": is_labelme, "coco": is_coco, "geojson": is_geojson}


def recognised(path: Path) -> str | None:
    """The kind of a file by its content, None if it is a label image (or nothing that is known).

    Raises UserError if it is JSON but damaged, or of no kind that is read.
    """
    try:
        if json_file.begins_as_json(path):
            content = json_file.load(path)
            for name, fits in JSON_KINDS.items():
                if fits(content):
                    return name
            raise UserError(f"{path}: is JSON, but neither of {', '.join(JSON_KINDS)}; export the annotations as one")
        return next((kind.name for kind in KINDS.values() if kind.recognises(path)), None)
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({error.strerror}); check the file") from None
