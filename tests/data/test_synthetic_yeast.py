"""Synthetic yeast: the same every time, consistent, and beyond any threshold."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Call
from scipy import ndimage

from yeastexp.config.synthetic import configured
from yeastexp.data import hdf5_file
from yeastexp.data.datasets.hdf5 import Hdf5
from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.data.datasets.yeast_scene import BUD_RATIOS, GAPS_PX, SOLID, Field, Look, render
from yeastexp.data.synth import synth
from yeastexp.errors import UserError
from yeastexp.metrics import baselines
from yeastexp.randomness import generator
from yeastexp.sample import Sample


@pytest.fixture(scope="module")
def default() -> SyntheticYeast:
    return SyntheticYeast(images=10)


@pytest.fixture(scope="module")
def samples(default: SyntheticYeast) -> list[Sample]:
    """All of its images, not to be written to; those to train on come first."""
    return [default.read(name) for split in default.splits.values() for name in split]


def test_an_image_depends_on_its_number_alone(default: SyntheticYeast) -> None:
    more = pickle.loads(pickle.dumps(SyntheticYeast(images=12, val=3)))
    for name in ("yeast_007", "yeast_002"):
        one, other = default.read(name), more.read(name)
        assert torch.equal(one.image, other.image) and torch.equal(one.labels, other.labels)
    assert not torch.equal(default.read("yeast_000").image, default.read("yeast_001").image)


def test_another_process_draws_the_same() -> None:
    program = (
        "import zlib; from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast;"
        "made = SyntheticYeast(images=2, size=64).arrays('yeast_001');"
        "print(zlib.crc32(b''.join(array.tobytes() for array in made.values())))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    made = SyntheticYeast(images=2, size=64).arrays("yeast_001")
    assert done.stdout == f"{zlib.crc32(b''.join(array.tobytes() for array in made.values()))}\n"


def test_the_default_images_are_those_that_scores_were_published_of() -> None:
    digest = hashlib.sha256()
    made = SyntheticYeast(images=2, size=64)
    for name in ("yeast_000", "yeast_001"):
        for _, array in sorted(made.arrays(name).items()):
            digest.update(array.tobytes())
    assert digest.hexdigest() == "f38a442d6f1a6709dff95cf5cd1620bdb32478cae522e113ae1577c2082690a5"


def test_an_image_that_is_not_there_is_not_drawn() -> None:
    with pytest.raises(KeyError, match="yeast_002"):
        SyntheticYeast(images=2).read("yeast_002")


def test_the_last_eight_of_eighteen_validate() -> None:
    splits = SyntheticYeast().splits
    assert (len(splits["train"]), len(splits["val"])) == (10, 8)
    assert splits["val"][-1] == "yeast_017"


def test_maps_and_truth_agree(default: SyntheticYeast, samples: list[Sample]) -> None:
    for sample in samples:
        instances, dead = sample.maps["instances"], sample.maps["dead"]
        assert torch.equal(sample.labels, (instances > 0).long())
        assert not ((instances > 0) & (dead > 0)).any()
        assert sample.image.shape == default.shape(sample.name) == (1, 256, 256)
        assert torch.equal(sample.image, sample.image.round())
        assert float(sample.image.min()) >= 0 and float(sample.image.max()) <= 4095
        assert 0.05 < float(sample.labels.float().mean()) < 0.4


def field(**changes: float) -> Field:
    settings = {"size": 512, "cell_diameter_px": 26.0, "crowding": 0.3, "dead_fraction": 0.25}
    made = Field(Look(**{**settings, "bright_rim_fraction": 0.5, "noise": 1.0, **changes}), generator(0, "test"))
    made.fill()
    return made


NEAR_PX = 16
"""Gaps that are wider count as so wide."""


def test_neighbours_touch_with_gaps_of_one_to_three_pixels() -> None:
    taken = field().taken
    gaps = []
    for number, place in enumerate(ndimage.find_objects(taken), start=1):
        near = taken[tuple(slice(max(0, side.start - NEAR_PX), side.stop + NEAR_PX) for side in place)]
        away = ndimage.distance_transform_edt(near != number)
        others = away[(near > 0) & (near != number)]
        gaps.append(others.min(initial=NEAR_PX) - 1)  # pixels between, not from centre to centre
    gaps = np.array(gaps)
    assert gaps.min() >= 0.4
    assert np.mean((gaps >= 0.9) & (gaps <= 3.2)) > 0.7


def test_neighbours_without_gaps_touch_and_keep_their_ids() -> None:
    data = SyntheticYeast(images=2, crowding=0.45, gaps=0)
    ids = data.read("yeast_001").maps["instances"]
    apart = ids[:, 1:] != ids[:, :-1]
    touching = ids[:, 1:][apart & (ids[:, 1:] > 0) & (ids[:, :-1] > 0)].unique()
    assert len(touching) > 0.3 * (len(ids.unique()) - 1)


def test_buds_are_small_cells() -> None:
    look = field()
    mother = next(cell for cell in look.cells if cell.alive and cell.short_px > 12)
    ratios = [
        np.sqrt(bud.long_px * bud.short_px / (mother.long_px * mother.short_px))
        for bud in (look.bud(mother) for _ in range(200))
    ]
    assert BUD_RATIOS[0] - 0.01 <= min(ratios) < 0.25 and 0.55 < max(ratios) <= BUD_RATIOS[1] + 0.01
    sizes = np.array([np.sqrt(cell.long_px * cell.short_px) for cell in look.cells if cell.alive])
    assert np.mean(sizes < 8) > 0.05


def test_dead_cells_overlap_live_ones_in_size_and_brightness(default: SyntheticYeast, samples: list[Sample]) -> None:
    live, dead = [], []
    for sample in samples[: len(default.splits["train"])]:
        standard = (sample.image[0] - sample.image.mean()) / sample.image.std()
        for found, ids in ((live, sample.maps["instances"]), (dead, sample.maps["dead"])):
            areas = [(int((ids == number).sum()), float(standard[ids == number].mean())) for number in ids.unique()[1:]]
            found += [pair for pair in areas if pair[0] > 100]
    (live_area, live_light), (dead_area, dead_light) = (np.array(found).T for found in (live, dead))
    low, high = np.percentile(live_area, [5, 95])
    assert np.mean((dead_area > low) & (dead_area < high)) > 0.6
    assert np.mean(dead_light > np.percentile(live_light, 10)) > 0.25


def test_live_cells_are_as_dark_as_dead_ones_in_either_focus() -> None:
    for share in (0.0, 1.0):
        made = SyntheticYeast(images=4, bright_rim_fraction=share)
        live: list[float] = []
        dead: list[float] = []
        for name in made.splits["train"] + made.splits["val"]:
            sample = made.read(name)
            for found, ids in ((live, sample.maps["instances"]), (dead, sample.maps["dead"])):
                field_light = sample.image[0][(sample.maps["instances"] + sample.maps["dead"]) == 0].median()
                found += [float(sample.image[0][ids == n].mean() / field_light) for n in ids.unique()[1:]]
        assert np.mean(np.array(dead) > np.percentile(live, 5)) > 0.1


def test_no_threshold_solves_an_image_even_when_fitted_on_it(samples: list[Sample]) -> None:
    scores = []
    for sample in samples:
        found, truth = baselines.fit_threshold([sample])(sample.image) > 0, sample.labels > 0
        scores.append(float((found & truth).sum() / (found | truth).sum()))
    assert np.mean(scores) < 0.68


def test_no_threshold_solves_it(samples: list[Sample]) -> None:
    fitted = baselines.fit_threshold(samples)  # even when it has seen all the truth
    scores = []
    for sample in samples:
        found, truth = fitted(sample.image) > 0, sample.labels > 0
        scores.append(float((found & truth).sum() / (found | truth).sum()))
    assert np.mean(scores) < 0.7


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"cell_diameter_px": 40.0},
        {"crowding": 0.05},
        {"dead_fraction": 0.0},
        {"bright_rim_fraction": 0.0},
        {"noise": 3.0},
        {"contrast": 2.0},
        {"rim_width": 2.0},
        {"debris": 9.0},
        {"shading": 0.0},
        {"structures": 2},
        {"gaps": 0.0},
    ],
)
def test_every_setting_changes_the_images(change: dict[str, float]) -> None:
    plain = SyntheticYeast(images=2, size=64)
    changed = SyntheticYeast(images=2, size=64, **change)
    assert any(not torch.equal(plain.read(n).image, changed.read(n).image) for n in ("yeast_000", "yeast_001"))


def test_settings_do_what_they_say() -> None:
    assert all(cell.alive for cell in field(dead_fraction=0.0).cells)
    assert not any(cell.alive for cell in field(dead_fraction=1.0).cells)
    assert not field(crowding=0.0).cells
    sparse, crowded = (np.mean(field(crowding=share).taken > 0) for share in (0.05, 0.4))
    assert sparse < 0.15 and crowded > 0.22
    noisy, still = (
        np.diff(SyntheticYeast(images=2, size=64, noise=n, crowding=0.0).read("yeast_000").image[0].numpy()).std()
        for n in (3.0, 0.0)
    )
    assert noisy > 10 * still


QUIET = {"images": 2, "size": 128, "noise": 0.0, "debris": 0.0, "shading": 0.0}


def grey(**changes: float) -> np.ndarray:
    """Camera counts of an image without noise, debris and shading, but for the changes."""
    return SyntheticYeast(**{**QUIET, **changes}).read("yeast_000").image[0].numpy()


def test_contrast_multiplies_what_cells_add_to_an_even_field() -> None:
    even = grey(crowding=0.0)
    assert np.ptp(even) == 0
    weak, usual = (grey(contrast=factor) - np.median(grey()) for factor in (0.5, 1.0))
    assert np.ptp(usual) > 300 and np.abs(usual - 2 * weak).max() <= 1.5  # both are rounded to counts


def test_shading_multiplies_the_unevenness_of_an_empty_field() -> None:
    usual, strong = (grey(crowding=0.0, shading=factor) for factor in (1.0, 2.0))
    even = 2 * usual - strong
    assert np.ptp(usual) > 50 and np.abs(even - np.median(even)).max() <= 1.5


def test_rims_reach_as_far_as_they_are_wide() -> None:
    reached = []
    for width in (0.5, 1.0, 2.0):
        sample = SyntheticYeast(**QUIET, crowding=0.1, dead_fraction=0.0, rim_width=width).read("yeast_000")
        away = ndimage.distance_transform_edt(sample.maps["instances"] == 0)
        reached.append(float(away[(sample.image[0] - sample.image.median()).abs() > 10].max()))
    assert reached[1] - reached[0] > 2 and reached[2] - reached[1] > 4


def test_structures_are_background_that_cells_keep_away_from() -> None:
    made = field(structures=4)
    assert 0.02 < np.mean(made.taken == SOLID) < 0.5 and len(made.cells) > 50
    away = ndimage.distance_transform_edt(made.taken != SOLID)
    assert away[made.taken > 0].min() >= GAPS_PX[0] - 0.5
    drawn = render(made.look, generator(0, "test"))
    stands = (made.taken == SOLID)[made.margin : -made.margin, made.margin : -made.margin]
    assert not any(drawn[key][stands].any() for key in ("gt", "instances", "dead"))


def test_structures_are_seen() -> None:
    image = grey(structures=1, crowding=0.0)
    assert np.mean(np.abs(image - np.median(image)) > 50) > 0.02


def test_no_image_is_left_to_train_on() -> None:
    with pytest.raises(UserError, match="5 of 5 images leave none to train on") as caught:
        SyntheticYeast(images=5, val=5)
    assert caught.value.key == "val"


def test_the_file_holds_the_same_samples_and_the_same_bytes(tmp_path: Path) -> None:
    made = SyntheticYeast(images=3, size=64)
    for name in ("a.h5", "b.h5"):
        synth(tmp_path / name, made)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    read = Hdf5(tmp_path / "a.h5")
    assert read.splits == made.splits and read.maps == made.maps
    for name in made.splits["train"] + made.splits["val"]:
        one, other = made.read(name), read.read(name)
        assert torch.equal(one.image, other.image) and torch.equal(one.labels, other.labels)
        assert one.pixel_um == other.pixel_um
        assert all(torch.equal(one.maps[key], other.maps[key]) for key in made.maps)


def test_a_file_of_another_field(call: Call, tmp_path: Path) -> None:
    output = tmp_path / "crowded.h5"
    command = f"synth -o {output} --images 3 --size 64 --set crowding=0.4 --set structures=1"
    assert call(*command.split())[0] == 0
    made = SyntheticYeast(images=3, size=64, crowding=0.4, structures=1)
    assert torch.equal(Hdf5(output).read("yeast_000").image, made.read("yeast_000").image)
    provenance = hdf5_file.Reader(output).contents.provenance
    assert provenance["crowding"] == 0.4 and provenance["structures"] == 1 and provenance["contrast"] == 1.0


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("crowdin=0.4", "--set crowdin=0.4: unknown key; did you mean 'crowding'?"),
        ("crowding=9", "--set crowding=9: should be less than or equal to 0.5, got 9"),
        ("structures=1.5", "--set structures=1.5: should be a valid integer, got 1.5"),
        ("noise", "--set noise: should be key=value"),
        ("extends=a.toml", "--set extends=a.toml: 'extends' belongs in the file"),
        ("name=other", "--set name=other: unknown key"),
        ("val=3", "--set val=3: 3 of 3 images leave none to train on"),
    ],
)
def test_a_wrong_setting_is_told(setting: str, fault: str) -> None:
    with pytest.raises(UserError) as caught:
        configured(3, 64, 0, [setting])
    assert str(caught.value).startswith(fault)
