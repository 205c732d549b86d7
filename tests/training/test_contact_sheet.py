"""Contact sheets: exactly the patches of training, the place of a patch at every step, and nothing disturbed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import WriteExperiment
from torch import Tensor

from yeastexp.config.loading import load_experiment
from yeastexp.data import hdf5_file
from yeastexp.data.transforms import BasicTransform2D
from yeastexp.drawing import cells, pictures
from yeastexp.registry import transform as transforms
from yeastexp.training import build, contact_sheet
from yeastexp.training.build import Assembly

Changes = dict[str, str]


def assembled(path: Path, *settings: str) -> Assembly:
    return build.assemble(load_experiment(path, settings))


def columns(assembly: Assembly) -> tuple[list[contact_sheet.Column], list[contact_sheet.Column]]:
    """Those of the images and those of the augmentations, in tiles of 64 pixels."""
    shown = [contact_sheet._example(assembly, index) for index in range(2)]
    patches = contact_sheet._patches(assembly, shown)
    limits = pictures.limits_of(*patches[0])
    return (
        list(contact_sheet._images(assembly, shown, 64, limits)),
        list(contact_sheet._augmented(assembly, shown, patches, 64, limits)),
    )


@dataclass(frozen=True)
class Turned(BasicTransform2D):
    """A quarter turn of every image, by a user."""

    def geometry(self, size: tuple[int, int], params: Any) -> tuple[np.ndarray, tuple[int, int]]:
        return np.array([[0, 1, 0], [-1, 0, size[0] - 1], [0, 0, 1.0]]), (size[1], size[0])

    def restore(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        return logits.rot90(1, (1, 2))


class Idle(BasicTransform2D):
    """Never does anything, and has no options."""

    def draw(self, generator: np.random.Generator) -> dict[str, float]:
        return {"nothing": generator.random()}

    def image(self, image: Tensor, params: dict[str, float]) -> Tensor:
        return image


@dataclass(frozen=True)
class Rare(BasicTransform2D):
    """Acts once in twenty times."""

    def draw(self, generator: np.random.Generator) -> tuple[bool, float, int]:
        return bool(generator.random() < 0.05), 0.123456, 1 << 60

    def image(self, image: Tensor, params: tuple[bool, float, int]) -> Tensor:
        return image + 3 if params[0] else image


@pytest.fixture(autouse=True)
def registered() -> None:
    """The parts above, in a registry that forgets them after each test; several threads would wait for each other."""
    torch.set_num_threads(1)
    for name, made in {"turned": Turned, "idle": Idle, "rare": Rare}.items():
        if name not in transforms:
            transforms(name)(made)


LISTS: dict[str, Sequence[str]] = {
    "as it is": (),
    "nothing": ("transform=[]", "augment=[]"),
    "coarser": ('transform=[{name="downscale"}, {name="zscore"}]',),
    "cut, turned": ('transform=[{name="crop", top=5, left=3}, {name="turned"}]',),
    "fitted": ('transform=[{name="zscore", per="dataset"}, {name="percentile", per="dataset"}]',),
    "all of them": (
        "augment=["
        + ", ".join(
            f'{{name="{name}"}}'
            for name, entry in ((entry.name, entry) for entry in transforms.entries())
            if name not in ("crop", "zscore", "percentile", "polarity")
        )
        + "]",
    ),
    "large patches": ("patches.size=40",),
    "sliding": ("patches.size=16", "patches.stride=8"),
}


@pytest.mark.parametrize("settings", LISTS.values(), ids=LISTS)
def test_a_sheet_of_any_list_of_transforms(settings: Sequence[str], experiment_file: WriteExperiment) -> None:
    sheet = contact_sheet.draw_contact_sheet(assembled(experiment_file(), *settings))
    assert sheet.dtype == np.uint8 and sheet.ndim == 3 and sheet.shape[2] == 3
    assert sheet.shape[1] <= contact_sheet.SHEET_WIDTH + 40


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_images_of_any_number_of_channels(channels: int, tmp_path: Path) -> None:
    def read(name: str) -> dict[str, np.ndarray]:
        found = tiny.image(int(name))
        return {**found, "raw": np.stack([found["raw"] + 100 * index for index in range(channels)])}

    hdf5_file.write(tmp_path / "data.h5", {"train": ["0", "1"], "val": ["2"]}, read, provenance={})
    path = tmp_path / "many.toml"
    path.write_text(tiny.EXPERIMENT.replace("channels = 1", f"channels = {channels}"))
    assert contact_sheet.draw_contact_sheet(assembled(path)).shape[2] == 3


def test_nothing_is_disturbed(experiment_file: WriteExperiment) -> None:
    """The same sheet again, the same batches, and no step of a global generator."""
    assembly = assembled(experiment_file())
    before = [assembly.sampler.batch(step) for step in range(3)]
    torch.manual_seed(5)
    np.random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    first = contact_sheet.draw_contact_sheet(assembly)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]
    assert (contact_sheet.draw_contact_sheet(assembly) == first).all()
    for step, (images, labels) in enumerate(before):
        again = assembly.sampler.batch(step)
        assert torch.equal(again[0], images) and torch.equal(again[1], labels)


def test_patches_as_in_training_are_those_of_the_first_steps(experiment_file: WriteExperiment) -> None:
    assembly = assembled(experiment_file())
    found = contact_sheet._trained(assembly, 32, [(-1.0, 3.0)], 6)
    assert len(found) == 6
    batches = [assembly.sampler.labelled(step) for step in range(2)]
    images, labels = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
    for picture, image, truth in zip(found, images, labels, strict=False):
        expected = pictures.tile(image, truth, 32, [(-1.0, 3.0)])
        assert (picture[pictures.CAPTION :, :32] == expected).all()


@pytest.mark.parametrize("settings", [LISTS["as it is"], LISTS["coarser"], LISTS["cut, turned"]], ids=str)
def test_the_window_keeps_its_place_through_every_transform(
    settings: Sequence[str], experiment_file: WriteExperiment
) -> None:
    """What is shown of the last step is the window that training would cut, and of each step the same pixels."""
    assembly = assembled(experiment_file(), *settings, "patches.size=12")
    shown = contact_sheet._example(assembly, 1)
    boxes = contact_sheet._boxes(shown, 12)
    images, labels, _ = contact_sheet._patches(assembly, [shown])
    last = shown.stages[-1]
    assert (contact_sheet._cut(last.image.numpy(), boxes[-1]) == images[0]).all()
    assert (contact_sheet._cut(last.labels.numpy(), boxes[-1]) == labels[0]).all()
    kept = set(contact_sheet._cut(last.maps[contact_sheet.ORIGIN].numpy(), boxes[-1]).ravel().tolist())
    for stage, box in zip(shown.stages, boxes, strict=True):
        inside = contact_sheet._cut(stage.maps[contact_sheet.ORIGIN].numpy(), box)
        assert kept <= set(inside.ravel().tolist())
        scale = 2 if "downscale" in str(settings) and stage is not last and stage.size == (32, 32) else 1
        assert max(inside.shape) <= 12 * scale


def test_the_window_is_the_one_with_the_most_outlines() -> None:
    labels = torch.zeros(20, 30, dtype=torch.int64)
    labels[2:5, 3:6] = 1
    labels[12:18, 20:26] = 1
    assert contact_sheet._corner(labels, 6).tolist() == [12, 20]
    assert contact_sheet._corner(labels, 40).tolist() == [-10, -5]
    assert contact_sheet._corner(labels, 24).tolist() == [-2, 2]


def test_each_augmentation_is_shown_in_a_draw_in_which_it_acts(experiment_file: WriteExperiment) -> None:
    settings = 'augment=[{name="reflect"}, {name="rare"}, {name="idle"}, {name="reflect", x=0.0, y=0.0}]'
    images, augmented = columns(assembled(experiment_file(), settings))
    before = images[-1].tiles
    assert [one.heading for one in augmented] == [
        ("[[augment]]", "reflect", "x=0.5 y=0.5"),
        ("[[augment]]", "rare", ""),
        ("[[augment]]", "idle", ""),
        ("[[augment]]", "reflect", "x=0 y=0"),
    ]
    for column in augmented[:2]:
        assert all((new[1] != old[1]).any() for new, old in zip(column.tiles, before, strict=True))
    assert {said for said, _ in augmented[1].tiles} == {"params: yes, 0.123"}  # a key tells nothing
    for column in augmented[2:]:
        assert {said for said, _ in column.tiles} == {"no effect"}
        assert all((new[1] == old[1]).all() for new, old in zip(column.tiles, before, strict=True))


def test_the_columns_name_each_step_with_what_was_fitted(experiment_file: WriteExperiment) -> None:
    assembly = assembled(experiment_file(), 'transform=[{name="crop", top=2}, {name="zscore", per="dataset"}]')
    images, _ = columns(assembly)
    fitted = assembly.transforms[1]
    assert [one.heading for one in images] == [
        ("training images", "whole", "stored values"),
        ("training images", "within the frame", "stored values"),
        ("[[transform]]", "crop", "top=2 bottom=0 left=0 right=0"),
        ("[[transform]]", "zscore", f"per=dataset mean={fitted.mean:,.0f} std={fitted.std:.3g} joint=False"),  # type: ignore[attr-defined]
    ]
    assert [said for said, _ in images[0].tiles] == ["square_0, 32×32", "square_1, 32×32"]
    raw = tiny.image(0)["raw"].astype(np.float64)
    said = images[1].tiles[0][0]
    assert said == f"{raw.mean():,.0f} ± {raw.std():.3g}, {raw.min():,.0f} to {raw.max():,.0f}"


def test_data_that_is_stored_normalised_leaves_out_what_normalises(tmp_path: Path) -> None:
    def read(name: str) -> dict[str, np.ndarray]:
        found = tiny.image(int(name))
        return {**found, "raw": ((found["raw"] - 1010.0) / 50).astype(np.float32)}

    figures = {"mean": 1010.0, "std": 50.0, "fit": "all", "source_sha256": ""}
    hdf5_file.write(
        tmp_path / "data.h5", {"train": ["0", "1"], "val": ["2"]}, read, provenance={}, normalization=figures
    )
    path = tmp_path / "normalised.toml"
    path.write_text(tiny.EXPERIMENT)
    assembly = assembled(path)
    images, _ = columns(assembly)
    assert [one.heading[1] for one in images] == ["whole", "within the frame"]
    assert contact_sheet.draw_contact_sheet(assembly).shape[2] == 3


def test_later_rows_of_augmentations_begin_with_what_they_begin_with() -> None:
    made = [contact_sheet.Column((f"{index}", "", ""), ()) for index in range(9)]
    blocks = contact_sheet._blocks(made[:2], made[2:], 4)
    assert [[one.heading[0] for one in block] for block in blocks] == [
        ["0", "1", "2", "3"],
        ["1", "4", "5", "6"],
        ["1", "7", "8"],
    ]
    blocks = contact_sheet._blocks(made[:5], made[5:6], 4)
    assert [[one.heading[0] for one in block] for block in blocks] == [["0", "1", "2", "3"], ["4", "5"]]


def test_a_few_images_spread_over_the_split() -> None:
    assert [contact_sheet._spread(count) for count in (1, 2, 3, 4, 10, 300)] == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 2],
        [0, 3, 6],
        [0, 100, 200],
    ]


def test_an_augmentation_that_composes_scenes_is_shown_in_one() -> None:
    quick = Path(__file__).parents[2] / "experiments" / "quick_cells.toml"
    smaller = 'augment=[{name="pasted_cells", count=3, size=48, p=0.3}]'
    assembly = assembled(quick, "dataset.images=4", "patches.size=32", smaller)
    _, augmented = columns(assembly)
    tiles = augmented[0].tiles
    assert augmented[0].heading[1] == "pasted_cells"
    assert {said for said, _ in tiles} <= {"params: 0", "params: 1", "params: 2"} and len(tiles) > 1


def test_touching_cells_are_outlined_in_different_colours() -> None:
    """Of a whole image by their ids, and in a patch by its targets; nowhere by the mask that they share."""
    assembly = assembled(
        Path(__file__).parents[2] / "experiments/quick_cells.toml", "dataset.crowding=0.5", "dataset.gaps=0"
    )
    example = contact_sheet._example(assembly, 1)
    (image,), (labels,), (targets,) = contact_sheet._patches(assembly, [example])
    limits = pictures.limits_of(image)
    ids = contact_sheet._cut(contact_sheet._outlines(example.stages[-1]), contact_sheet._boxes(example, 64)[-1])
    assert ids.shape == labels.shape and ((ids > 0) == (labels > 0)).all()
    *_, outputs = assembly.task.certain(targets[None])
    decoded = assembly.task.decode(outputs[0]).instances
    assert decoded is not None
    by_targets = contact_sheet._tile(assembly, image, labels, targets, len(ids), limits)
    for picture, told in ((by_targets, decoded.numpy()), (cells.tile(image, ids, len(ids), limits), ids)):
        rows = (told[1:], told[:-1], picture[1:], picture[:-1])
        columns_ = (told[:, 1:], told[:, :-1], picture[:, 1:], picture[:, :-1])
        touching = 0
        for one, other, first, second in (rows, columns_):
            places = np.nonzero((one != other) & (one > 0) & (other > 0))
            assert (first[places] != second[places]).any(axis=-1).all()
            touching += len(places[0])
        assert touching > 0
