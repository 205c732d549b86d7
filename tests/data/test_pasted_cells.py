"""Scenes of pasted cells: what they are made of, and that patches of them are those of any process."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.data.kept_images import CachedImages, LazyImages
from yeastexp.data.patches import PatchPlan, PatchSampler
from yeastexp.data.transforms import colonies
from yeastexp.data.transforms.pasted_cells import PastedCells
from yeastexp.errors import UserError
from yeastexp.randomness import generator
from yeastexp.sample import IGNORE, Sample

DATA = SyntheticYeast(images=4, size=96)
SAMPLES = [DATA.read(name) for name in DATA.splits["train"]]
STANDARD = [replace(each, image=(each.image - each.image.mean()) / each.image.std()) for each in SAMPLES]


def scenes(transform: PastedCells, samples: list[Sample] = STANDARD) -> list[Sample]:
    return list(transform.scenes(samples, lambda number: generator(3, "scenes", 0, number)))


def test_scenes_hold_cells_of_the_training_images() -> None:
    made = scenes(PastedCells(count=6, size=80))
    assert len(made) == 6
    for scene in made:
        ids = scene.maps["instances"]
        assert scene.size == (80, 80) and torch.equal(scene.labels > 0, ids > 0)
        assert bool(scene.image.isfinite().all())
    assert sum(len(scene.maps["instances"].unique()) - 1 for scene in made) > 20


def test_the_same_generators_give_the_same_scenes_and_others_others() -> None:
    first, again = scenes(PastedCells(count=3, size=64)), scenes(PastedCells(count=3, size=64))
    assert all(torch.equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].image, first[1].image)


def test_cells_are_parts_of_the_mask_where_there_are_no_ids() -> None:
    labels = torch.zeros(40, 40, dtype=torch.int64)
    labels[5:10, 5:10], labels[20:30, 5:12], labels[20:30, 12:20], labels[35:, 35:] = 1, 1, 2, IGNORE
    ids = colonies.cell_ids(Sample(torch.zeros(1, 40, 40), labels, ""))
    assert [len(np.unique(ids[labels.numpy() == label])) for label in (1, 2)] == [2, 1] and ids.max() == 3
    cutouts = colonies.cut_out([Sample(torch.zeros(1, 40, 40), labels, "")])
    assert {cutout.label for cutout in cutouts} <= {1, 2} and cutouts


def test_cells_that_unlabelled_pixels_cut_are_the_last_choice() -> None:
    """Pasted as a whole cell, one would teach an outline where an annotator only stopped."""
    rows, columns = np.mgrid[:60, :60]
    discs = [np.hypot(rows - row, columns - column) <= 8 for row, column in ((15, 15), (15, 40), (42, 30))]
    ids, labels = np.zeros((60, 60), np.int64), np.zeros((60, 60), np.int64)
    for number, disc in enumerate(discs, 1):
        ids[disc], labels[disc] = number, 1
    ids[45:], labels[45:] = 0, IGNORE

    def sizes(labels: np.ndarray, ids: np.ndarray) -> list[int]:
        maps = {"instances": torch.from_numpy(ids)}
        sample = Sample(torch.zeros(1, 60, 60), torch.from_numpy(labels), "", maps=maps)
        return [int(cutout.mask.sum()) for cutout in colonies.cut_out([sample])]

    whole, cut = int(discs[0].sum()), int((ids == 3).sum())
    assert 0 < cut < whole and sizes(labels, ids) == [whole, whole]
    assert sizes(np.where(ids == 3, 1, np.where(labels < 0, IGNORE, 0)), np.where(ids == 3, 3, 0)) == [cut]


def test_images_without_a_whole_cell_are_refused() -> None:
    empty = Sample(torch.zeros(1, 30, 30), torch.zeros(30, 30, dtype=torch.int64), "")
    with pytest.raises(UserError, match="pasted_cells: the training images hold no whole cell; omit it"):
        scenes(PastedCells(count=2), [empty])


def test_a_cell_adds_to_its_surroundings_what_it_did_where_it_was_cut() -> None:
    """A bright disc with a halo on grey: pasted alone, it looks the same."""
    rows, columns = np.mgrid[:80, :80]
    away = np.hypot(rows - 40, columns - 40) - 9
    image = np.where(away <= 0, 3.0, np.exp(-(away**2) / 8)).astype(np.float32) + 1.0
    labels = torch.from_numpy((away <= 0).astype(np.int64))
    [cutout] = colonies.cut_out([Sample(torch.from_numpy(image)[None], labels, "", None, {"instances": labels})])
    assert cutout.mask.sum() == labels.sum()
    assert np.abs(cutout.excess[0][cutout.mask] - 3).max() < 0.01
    beside = ndimage.binary_dilation(cutout.mask, iterations=2) & ~cutout.mask
    assert (cutout.fade[beside] == 1).all() and cutout.fade[cutout.mask].max() == 0


def sampler(source: CachedImages | LazyImages, transform: PastedCells) -> PatchSampler:
    plan = PatchPlan(24, np.repeat(np.arange(len(STANDARD)), 6), None)
    return PatchSampler(source, plan, 6, (transform,), seed=1, foreground=0.5, scenes={0: len(STANDARD)})


def test_patches_are_cut_from_scenes_wherever_images_are_kept() -> None:
    transform = PastedCells(count=4, size=64, p=0.5)
    everything = [replace(each, maps={}) for each in [*STANDARD, *scenes(transform)]]
    sizes = np.array([each.size for each in everything])
    cached = CachedImages.reading(everything.__getitem__, sizes, torch.device("cpu"), True)
    lazy = LazyImages(everything.__getitem__, sizes, 1, True)
    for step in range(3):
        kept, read = sampler(cached, transform).batch(step), sampler(lazy, transform).batch(step)
        assert all(torch.equal(a, b) for a, b in zip(kept, read, strict=True))
    chosen = [transform.scene(transform.draw(generator(0, "augment", 0, index))) for index in range(400)]
    assert 160 < sum(number is None for number in chosen) < 240
    assert {number for number in chosen if number is not None} == set(range(4))


def test_cells_too_small_to_be_pasted_leave_scenes_empty() -> None:
    """A colony of cells that shrink below a few pixels ends: it waits for no cell that never comes."""
    labels = torch.zeros(40, 40, dtype=torch.int64)
    labels[10:14, 10:14] = labels[25:28, 22:26] = 1
    made = scenes(PastedCells(count=2, scale=(0.4, 0.4), spread=0.0), [Sample(torch.zeros(1, 40, 40), labels, "")])
    assert all(not scene.labels.any() for scene in made)


def test_cells_larger_than_the_scene_are_left_out() -> None:
    """Nowhere is such a cell free of those that are there: that is a miss, not a failure."""
    made = scenes(PastedCells(count=4, size=20, scale=(3.0, 3.0)))
    assert len(made) == 4 and all(bool(scene.image.isfinite().all()) for scene in made)


def test_cutouts_of_many_images_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of some images, spread over all, and no more of each than asked for: memory does not grow with the data."""
    monkeypatch.setattr(colonies, "MOST_IMAGES", 2)
    monkeypatch.setattr(colonies, "MOST_OF_IMAGE", 1)
    read: list[int] = []

    class Watched(list[Sample]):
        def __getitem__(self, index):  # type: ignore[no-untyped-def, override]
            read.append(index)
            return super().__getitem__(index)

    assert len(colonies.cut_out(Watched(STANDARD * 4))) == 2
    assert len(set(read)) == 2
