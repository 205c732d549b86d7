"""Synthetic images in a file of their own."""

from __future__ import annotations

from pathlib import Path

from yeastexp.data import hdf5_file
from yeastexp.data.datasets.drawn import Drawn
from yeastexp.system import environment
from yeastexp.system.progress_bar import ProgressBar


def synth(
    output: Path,
    dataset: Drawn,
    *,
    force: bool = False,
    progress: ProgressBar[str] = iter,
) -> None:
    """Write the images of a synthetic data set, so that the data set `hdf5` reads the same samples from the file."""
    provenance = {
        "made_by": f"yeastexp {environment.installed('yeastexp') or 'from a checkout'}, {dataset.name}",
        "seed": dataset.seed,
        **vars(dataset.look),
    }
    hdf5_file.write(
        output,
        dataset.splits,
        dataset.arrays,
        provenance=provenance,
        pixel_um=dataset.pixel_um,
        force=force,
        progress=progress,
    )
