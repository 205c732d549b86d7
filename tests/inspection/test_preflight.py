"""Preflight: each finding on data made to show it, none on clean data, and transforms that misalign labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from yeastexp.cli import commands
from yeastexp.config.experiment import Experiment
from yeastexp.config.loading import load_experiment
from yeastexp.data import hdf5_file
from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.data.transforms import BasicTransform2D
from yeastexp.data.transforms.zscore import ZScore
from yeastexp.inspection import preflight
from yeastexp.inspection.preflight import alignment, data_rules, duplicates, overfit, patch_rules, registration
from yeastexp.inspection.preflight.finding import Finding, named
from yeastexp.inspection.preflight.statistics import ImageStatistics, measure
from yeastexp.registry import loss as register_loss
from yeastexp.registry import model as register_model
from yeastexp.registry import transform as register_transform
from yeastexp.sample import IGNORE, Sample
from yeastexp.training import build
from yeastexp.training.run_directory import RunDirectory

YEAST = SyntheticYeast(images=6, size=96, val=2)
CLASSES = ("background", "cell")
QUICK = Path(__file__).parents[2] / "experiments" / "quick.toml"
SMALL = ("model.width=4", "runtime.threads=1", "dataset.size=64", "patches.size=48", "optimizer.learning_rate=0.02")

Samples = list[Sample]


def yeast() -> Samples:
    return [YEAST.read(name) for some in YEAST.splits.values() for name in some]


def statistics(
    samples: Sequence[Sample], transforms: Sequence[BasicTransform2D] = (ZScore(),), dtypes: Sequence[str] = ()
) -> list[ImageStatistics]:
    """All but the last two train."""
    split = ["train"] * (len(samples) - 2) + ["val"] * 2
    return [
        measure(sample, split[index], dtypes[index] if dtypes else "uint16", tuple(transforms))
        for index, sample in enumerate(samples)
    ]


def changed(samples: Samples, indices: Sequence[int], change: Callable[[Sample], Sample]) -> Samples:
    return [change(one) if index in indices else one for index, one in enumerate(samples)]


def found(images: Sequence[ImageStatistics], classes: Sequence[str] = CLASSES) -> dict[str, Finding]:
    return {one.about: one for one in data_rules.findings(images, classes)}


def test_clean_data_show_nothing() -> None:
    assert found(statistics(yeast())) == {}


def with_labels(value: Callable[[Tensor], Tensor]) -> Callable[[Sample], Sample]:
    return lambda sample: replace(sample, labels=value(sample.labels), maps={})


def with_image(value: Callable[[Tensor], Tensor]) -> Callable[[Sample], Sample]:
    return lambda sample: replace(sample, image=value(sample.image))


def bordered(image: Tensor) -> Tensor:
    image = image.clone()
    image[:, :8] = 0
    return image


def hatched(labels: Tensor) -> Tensor:
    specks = torch.zeros_like(labels)
    specks[::4, ::4] = 1
    return specks


def partly_unknown(labels: Tensor) -> Tensor:
    labels = labels.clone()
    labels[:10] = IGNORE
    return labels


ALL, TRAIN, VAL = range(6), range(4), range(4, 6)

BROKEN: Mapping[str, tuple[str, Sequence[int], Callable[[Sample], Sample]]] = {
    "invalid labels": ("error", [1], with_labels(lambda labels: 2 * labels)),
    "constant images": ("warning", [1], with_image(lambda image: torch.full_like(image, 7.0))),
    "a single class": ("error", TRAIN, with_labels(torch.zeros_like)),
    "no foreground to score": ("warning", VAL, with_labels(torch.zeros_like)),
    "nearly full masks": ("warning", [2], with_labels(lambda labels: torch.ones_like(labels))),
    "unlabelled images": ("warning", [2], with_labels(lambda labels: torch.full_like(labels, IGNORE))),
    "unlabelled pixels": ("note", [2, 3], with_labels(partly_unknown)),
    "saturated pixels": ("warning", [3], with_image(lambda image: image.clamp_max(float(image.quantile(0.95))))),
    "many pixels at the lowest value": ("note", [0], with_image(bordered)),
    "few grey levels": ("warning", [5], with_image(lambda image: (image / 200).round())),
    "value ranges normalised": ("note", [5], with_image(lambda image: 40 * image)),
    "specks in masks": ("note", [0], with_labels(hatched)),
}


@pytest.mark.parametrize("about", BROKEN)
def test_every_fault_of_data_is_found(about: str) -> None:
    severity, indices, change = BROKEN[about]
    samples = changed(yeast(), indices, change)
    finding = found(statistics(samples))[about]
    assert finding.severity == severity
    if about != "value ranges normalised":
        assert finding.images == tuple(samples[index].name for index in indices)


def test_a_few_empty_masks_are_a_note_and_many_a_warning() -> None:
    for count, severity in ((1, "note"), (3, "warning")):
        samples = changed(yeast(), range(count), with_labels(torch.zeros_like))
        finding = found(statistics(samples))["empty masks"]
        assert finding.severity == severity and len(finding.images) == count


def test_a_few_clipped_pixels_are_a_note() -> None:
    samples = changed(yeast(), [0], with_image(lambda image: image.clamp_max(float(image.quantile(0.995)))))
    assert found(statistics(samples))["saturated pixels"].severity == "note"


def test_a_class_that_no_training_image_has() -> None:
    samples = changed(yeast(), [5], with_labels(lambda labels: 2 * labels))
    finding = found(statistics(samples), ("background", "cell", "bud"))["class without training pixels"]
    assert finding.severity == "warning" and finding.images == ("yeast_005",)
    assert "'bud' (label 2), but 1 image for validation or test do" in finding.what


def test_uneven_values_are_a_warning_where_no_transform_evens_them() -> None:
    samples = changed(yeast(), [1], with_image(lambda image: 40 * image))
    per_dataset = ZScore("dataset", mean=1000.0, std=100.0)
    finding = found(statistics(samples, [per_dataset]))["inconsistent value ranges"]
    assert finding.severity == "warning" and finding.images == ("yeast_001",)
    assert "inconsistent value ranges" not in found(statistics(samples))


def test_values_as_a_camera_gives_them_are_far_from_standard() -> None:
    finding = found(statistics(yeast(), ()))["values not standardized"]
    assert finding.severity == "warning" and len(finding.images) == 6


def test_a_dim_channel_is_looked_at_beside_a_bright_one() -> None:
    """Whether it is clipped, and whether a normalisation of all channels together wipes it out."""

    def beside(change: Callable[[Tensor], Tensor]) -> Samples:
        return [replace(one, image=torch.cat([change(one.image), 100 * one.image.flip(1)])) for one in yeast()]

    assert "saturated pixels" not in found(statistics(beside(lambda image: image)))
    clipped = found(statistics(beside(lambda image: image.clamp_max(float(image.quantile(0.95))))))
    assert len(clipped["saturated pixels"].images) == 6
    assert "values not standardized" not in found(statistics(beside(lambda image: image)))
    together = found(statistics(beside(lambda image: image), [ZScore(joint=True)]))
    assert len(together["values not standardized"].images) == 6


def test_mixed_types() -> None:
    finding = found(statistics(yeast(), dtypes=["uint8", *["uint16"] * 5]))["mixed types"]
    assert (finding.severity, finding.images) == ("note", ("yeast_000",))
    assert finding.what == "uint16: 5 images, uint8: 1 image"


def test_copies_in_two_splits_in_one_and_of_masks() -> None:
    samples = yeast()
    samples[5] = replace(samples[0], name="again")
    across = found(statistics(samples))
    assert across["images in several splits"].severity == "error"
    assert across["images in several splits"].what == "yeast_000 (train) = again (val)"
    assert "one mask for several images" not in across and "near-duplicates across splits" not in across
    samples = yeast()
    samples[1] = replace(samples[0], name="again")
    assert found(statistics(samples))["duplicate images"].images == ("yeast_000", "again")
    samples = yeast()
    samples[1] = replace(samples[1], labels=samples[0].labels, maps={})
    assert found(statistics(samples))["one mask for several images"].images == ("yeast_000", "yeast_001")


def test_near_duplicates_are_named_with_what_they_look_like() -> None:
    samples = yeast()
    noise = 5 * torch.randn(samples[2].image.shape, generator=torch.Generator().manual_seed(0))
    samples[4] = replace(samples[4], image=samples[2].image + noise)
    finding = found(statistics(samples))["near-duplicates across splits"]
    assert finding.severity == "warning" and finding.images == ("yeast_004",)
    assert "1 of 2 val images resemble a training image: yeast_004 like yeast_002 (1.000)" in finding.what


def test_images_that_initial_weights_were_trained_on_are_found(tmp_path: Path) -> None:
    """Among drawn ones by their numbers, as long as both data sets draw alike; and said if a run's images are gone."""
    before = RunDirectory(tmp_path / "before")
    before.checkpoint("best").parent.mkdir(parents=True)
    before.checkpoint("best").touch()
    before.write_experiment(load_experiment(QUICK, ["dataset.val=1"]))
    settings = [f"train.init_from={before.path}", "dataset.val=2"]
    images = statistics(yeast())
    (finding,) = duplicates.known_to_weights(load_experiment(QUICK, settings), images)
    assert finding.severity == "warning" and len(finding.images) == 1
    assert "held-out images resemble images that they were trained on: 1 of 2 (" in finding.what
    assert not [*duplicates.known_to_weights(load_experiment(QUICK, [*settings, "dataset.seed=7"]), images)]
    assert not [*duplicates.known_to_weights(load_experiment(QUICK), images)]
    text = before.experiment.read_text().replace('"synthetic_yeast"', '"gone"')
    before.experiment.write_text(text)
    (finding,) = duplicates.known_to_weights(load_experiment(QUICK, settings), images)
    assert finding.about == "training images of the initial weights" and "gone" in finding.what


def test_maps_that_the_labels_contradict() -> None:
    samples = changed(
        yeast(), [0], lambda one: replace(one, maps={"instances": one.labels.roll(9, 0), "dead": one.labels})
    )
    both = found(statistics(samples))
    assert both["instances contradict labels"].images == both["dead contradict labels"].images == ("yeast_000",)


def test_rare_classes_and_splits_unlike_each_other() -> None:
    def corner(labels: Tensor) -> Tensor:
        rare = torch.zeros_like(labels)
        rare[:6, :6] = 1
        return rare

    findings = found(statistics(changed(yeast(), TRAIN, with_labels(corner))))
    assert findings["rare class"].severity == findings["splits differ"].severity == "note"


def test_images_that_are_all_constant_or_not_there_are_looked_at() -> None:
    flat = changed(yeast(), ALL, with_image(torch.zeros_like))
    assert [(about, one.severity) for about, one in found(statistics(flat)).items()] == [("constant images", "error")]
    assert found([]) == {}


def test_splits_of_one_image() -> None:
    found = list(data_rules.single_images({"train": ["a"], "val": ["b"], "test": ["c"]}))
    assert [(one.about, one.images) for one in found] == [
        ("one validation image", ("b",)),
        ("one training image", ("a",)),
    ]
    assert list(data_rules.single_images({"train": ["a", "b"], "val": ["c", "d"]})) == []


# Masks that are displaced


def placed(change: Callable[[Sample], Sample]) -> list[Finding]:
    registered = [registration.register(change(sample)) for sample in yeast()]
    return registration.findings([one for one in registered if one])


def test_masks_in_place_are_left_alone() -> None:
    assert placed(lambda sample: sample) == []
    assert placed(with_labels(lambda labels: labels.roll((1, 0), (0, 1)))) == []


@pytest.mark.parametrize(
    ("shift", "said"), [((3, 2), "3 px up and 2 px left"), ((-5, 0), "moved by 5 px down:"), ((0, -7), "7 px right:")]
)
def test_shifted_masks_are_told_by_how_far(shift: tuple[int, int], said: str) -> None:
    (finding,) = placed(with_labels(lambda labels: labels.roll(shift, (0, 1))))
    assert (finding.severity, finding.about) == ("warning", "masks shifted")
    assert said in finding.what


@pytest.mark.parametrize(
    ("flip", "said"),
    [
        (lambda labels: labels.flip(0), "flipped vertically"),
        (lambda labels: labels.flip(1), "flipped horizontally"),
        (lambda labels: labels.flip(0, 1), "180°"),
        (lambda labels: labels.T.contiguous(), "transposed"),
    ],
)
def test_flipped_masks_are_told_by_how(flip: Callable[[Tensor], Tensor], said: str) -> None:
    (finding,) = placed(with_labels(flip))
    assert finding.about == "masks flipped" and said in finding.what


def test_masks_of_other_images_are_named() -> None:
    samples = [SyntheticYeast(images=6, size=192).read(f"yeast_{index:03d}") for index in range(6)]
    samples[0], samples[1] = (
        replace(one, labels=other.labels, maps={}) for one, other in (samples[:2], samples[1::-1])
    )
    (finding,) = registration.findings([one for sample in samples if (one := registration.register(sample))])
    assert (finding.about, finding.images) == ("masks do not match images", ("yeast_000", "yeast_001"))


def test_masks_without_outlines_have_no_place() -> None:
    assert placed(with_labels(torch.zeros_like)) == []
    small = yeast()[0]
    assert registration.register(Sample(small.image[:, :20, :20], small.labels[:20, :20], "small")) is None


# Image and labels under transforms


@dataclass(frozen=True)
class Moved(BasicTransform2D):
    """Forgets the labels, or the image."""

    hook: str = "image"
    shift: int = 4

    def image(self, image: Tensor, params: Any) -> Tensor:
        return image.roll(self.shift, -1) if self.hook == "image" else image

    def labels(self, labels: Tensor, params: Any) -> Tensor:
        return labels.roll(self.shift, -1) if self.hook == "labels" else labels


@dataclass(frozen=True)
class Flipped(BasicTransform2D):
    def draw(self, generator: np.random.Generator) -> bool:
        return bool(generator.random() < 0.3)

    def batch(self, images: Tensor, params: Sequence[bool]) -> Tensor:
        return torch.stack([image.flip(-1) if one else image for image, one in zip(images, params, strict=True)])


@dataclass(frozen=True)
class Renamed(BasicTransform2D):
    def labels(self, labels: Tensor, params: Any) -> Tensor:
        return torch.where(labels == 1, 7, labels)


@dataclass(frozen=True)
class Undrawn(BasicTransform2D):
    def image(self, image: Tensor, params: Any) -> Tensor:
        return image + torch.rand(image.shape)


@dataclass(frozen=True)
class Rooted(BasicTransform2D):
    def image(self, image: Tensor, params: Any) -> Tensor:
        return (image - image.mean()).sqrt()


@dataclass(frozen=True)
class Erased(BasicTransform2D):
    """Hides a part of the image and leaves its labels, as is usual; all the rest is only changed in value."""

    def image(self, image: Tensor, params: Any) -> Tensor:
        image = (image - image.mean()) / image.std()
        image[:, : image.shape[1] // 2] = 0
        return -image


PLUGINS = {
    "moved": Moved,
    "flipped": Flipped,
    "renamed": Renamed,
    "undrawn": Undrawn,
    "rooted": Rooted,
    "erased": Erased,
}


@pytest.fixture
def under() -> Callable[..., list[alignment.Alignment]]:
    """`under("moved", "reflect", hook="labels")` checks alignment under such augmentations."""
    for name, made in PLUGINS.items():
        register_transform(name)(made)

    def carry(*names: str, table: str = "augment", **options: Any) -> list[alignment.Alignment]:
        tables = [{"name": name, **(options if name == "moved" else {})} for name in names]
        written = ", ".join(
            "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in one.items()) + "}" for one in tables
        )
        settings = [*SMALL, "augment=[]", "transform=[]", f"{table}=[{written}]"]
        return alignment.check_alignment(build.assemble(load_experiment(QUICK, settings)))

    return carry


@pytest.mark.parametrize("options", [{"hook": "image"}, {"hook": "labels"}, {"hook": "image", "shift": 2}])
def test_a_transform_that_forgets_one_of_both_is_an_error(
    under: Callable[..., list[alignment.Alignment]], options: dict[str, Any]
) -> None:
    moved = under("moved", **options)
    (finding,) = alignment.findings(moved)
    assert (finding.severity, finding.about) == ("error", "image and labels misaligned")
    assert finding.what.startswith("[[augment]] moved: ") and moved[0].distances
    assert all(one == pytest.approx(options.get("shift", 4), abs=0.01) for one in moved[0].distances)


def test_one_that_seldom_acts_is_found_as_well(under: Callable[..., list[alignment.Alignment]]) -> None:
    kept, flipped, together = under("reflect", "flipped")
    assert not kept.apart and flipped.apart and together.apart
    assert 5 < len(flipped.apart) < 35
    (finding,) = alignment.findings([kept, flipped, together])
    assert "[[augment]] flipped" in finding.what


def test_a_whole_image_transform_that_forgets_the_labels(under: Callable[..., list[alignment.Alignment]]) -> None:
    (finding,) = alignment.findings(under("moved", table="transform"))
    assert "[[transform]] moved" in finding.what and "8 of 8 draws" in finding.what


def test_labels_that_no_class_has_and_draws_of_another_generator(
    under: Callable[..., list[alignment.Alignment]],
) -> None:
    renamed, undrawn = under("renamed", "undrawn")[:2]
    assert [one.about for one in alignment.findings([renamed, undrawn])] == [
        "invalid labels",
        "augmentation not repeatable",
    ]


@pytest.mark.parametrize("table", ["augment", "transform"])
def test_values_that_are_not_finite(under: Callable[..., list[alignment.Alignment]], table: str) -> None:
    (finding,) = alignment.findings(under("rooted", table=table))
    assert (finding.severity, finding.about) == ("error", "NaN or infinite values")
    assert finding.what == f"[[{table}]] rooted: gives NaN or infinite values"


def test_what_hides_or_changes_values_alone_is_aligned(under: Callable[..., list[alignment.Alignment]]) -> None:
    (erased,) = under("erased")
    assert alignment.findings([erased]) == [] and erased.distances


def test_every_transform_of_the_package_is_aligned(under: Callable[..., list[alignment.Alignment]]) -> None:
    names = [
        name
        for name in register_transform
        if name not in PLUGINS
        and not register_transform[name]().whole_images
        and not register_transform[name]().has("fit")
        and not register_transform[name]().has("scenes")  # cuts its patches from other images
    ]
    assert {"elastic", "affine", "gaussian_blur", "poisson_noise", "pasted_structures"} <= set(names)
    done = under(*(name for name in names if name != "downscale"))
    assert alignment.findings(done) == []
    assert all(len(one.distances) > 20 for one in done)
    whole = under("zscore", "polarity", "percentile", "downscale", table="transform")
    assert alignment.findings(whole) == [] and all(one.distances for one in whole)


# One batch overfitted


def overfitted(*settings: str, steps: int = 150) -> overfit.Overfit:
    done = overfit.overfit(build.assemble(load_experiment(QUICK, [*SMALL, *settings])), steps, iter)
    assert done is not None
    return done


@pytest.mark.parametrize("loss", ["cross_entropy", "dice", "focal", "dice_cross_entropy", "boundary_cross_entropy"])
def test_a_sound_experiment_overfits_a_batch_under_every_loss(loss: str) -> None:
    done = overfitted(f"loss.name={loss}")
    assert done.fitted and overfit.finding(done) is None
    assert len(done.losses) < 150 and done.iou > 0.85
    assert done.minimum == pytest.approx(0, abs=1e-3) and done.losses[-1] < 0.11 * done.constant


def test_it_is_the_same_each_time_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert overfitted(steps=3) == overfitted(steps=3)
    assert list(tmp_path.iterdir()) == []


def test_a_learning_rate_far_too_low_is_a_plain_message() -> None:
    finding = overfit.finding(overfitted("optimizer.learning_rate=1e-6", steps=10))
    assert finding is not None and finding.severity == "warning"
    assert finding.about == "one batch not overfitted" and "learning_rate" in finding.remedy


def test_a_batch_half_fitted_is_overfitted_slowly() -> None:
    finding = overfit.finding(overfitted(steps=12))
    assert finding is not None and finding.about == "one batch overfitted slowly" and "--steps" in finding.remedy


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    class Broken(nn.Module):
        def __init__(self, channels: int, classes: int) -> None:
            super().__init__()
            self.layer = nn.Conv2d(channels, classes, 1)

        def forward(self, images: Tensor) -> Tensor:
            return torch.nan * self.layer(images)

    register_model("broken")(Broken)
    finding = overfit.finding(overfitted("model={name='broken'}", steps=3))
    assert finding is not None and (finding.severity, finding.about) == ("error", "loss not finite")


def test_images_that_are_not_finite_are_an_error() -> None:
    register_transform("rooted")(Rooted)
    finding = overfit.finding(overfitted("transform=[{name='rooted'}]", steps=3))
    assert finding is not None and (finding.severity, finding.about) == ("error", "loss not finite")


def test_a_loss_of_the_wrong_sign_is_an_error() -> None:
    class Reversed(nn.Module):
        def __init__(self, classes: int) -> None:
            super().__init__()

        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            return logits.softmax(dim=1).gather(1, labels.clamp_min(0)[:, None]).mean()

    register_loss("reversed")(Reversed)
    finding = overfit.finding(overfitted("loss={name='reversed'}", steps=2))
    assert finding is not None and (finding.severity, finding.about) == (
        "error",
        "loss does not prefer the ground truth",
    )


def test_a_batch_of_one_class_is_no_trial() -> None:
    assembly = build.assemble(load_experiment(QUICK, SMALL))
    blank = SyntheticYeast(images=6, size=64, val=2, crowding=0.0)
    assert overfit.overfit(replace(assembly, dataset=blank), 3, iter) is None
    assert overfit.finding(None) is not None


# Patches


def clashes(window: int, model: nn.Module | None = None, diameter: float | None = None) -> dict[str, Finding]:
    loaded: Experiment = load_experiment(QUICK, [*SMALL, f"patches.size={window}"])
    images = statistics(yeast())
    if diameter:
        images = [replace(one, diameters=(diameter,)) for one in images]
    return {one.about: one for one in patch_rules.findings(loaded, images, model or nn.Conv2d(1, 2, 33, padding=16))}


def test_patches_that_suit_have_no_finding() -> None:
    assert clashes(64) == {}


@pytest.mark.parametrize(
    ("about", "severity", "options"),
    [
        ("patches larger than images", "warning", {"window": 128}),
        ("patches smaller than a few cells", "warning", {"window": 32}),
        ("patches smaller than the receptive field", "note", {"window": 64, "model": nn.Conv2d(1, 2, 71, padding=35)}),
        ("cells larger than the receptive field", "warning", {"window": 64, "model": nn.Conv2d(1, 2, 3, padding=1)}),
        ("tiny cells", "note", {"window": 64, "diameter": 4.0}),
    ],
)
def test_patches_that_do_not_suit(about: str, severity: str, options: dict[str, Any]) -> None:
    assert clashes(**options)[about].severity == severity


# The page


def call(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(commands, ["check", *words])
    return done.exit_code, done.stdout, done.stderr


def small() -> list[str]:
    return [word for setting in SMALL for word in ("--set", setting)]


def test_clean_data_have_no_finding_above_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = call(str(QUICK), *small(), "--data")
    assert (status, err.splitlines()) == (
        0,
        [
            f"{QUICK}: checking 6 images",
            "timing a step, and comparing labels with their images under each augmentation",
            "overfitting one batch, in at most 300 steps",
        ],
    )
    assert out.startswith(
        "quick: 6 images (3 train, 3 val); 0 errors, 0 warnings, 2 notes\n\nnote     empty masks: 1 of 6"
    )
    assert "aligned  image and labels are aligned under zscore, reflect, rotate90, all together: " in out
    assert "overfit  a batch of 4 in " in out
    assert out.splitlines()[-1].startswith("val    yeast_005  uint16 ")
    assert list(tmp_path.iterdir()) == []


def write(folder: Path, images: int = 4, change: Callable[[dict[str, Any]], None] = lambda arrays: None) -> Path:
    """An experiment on the images of `YEAST`, of which the first is changed."""

    def read(name: str) -> dict[str, Any]:
        arrays = {key: YEAST.arrays(f"yeast_{int(name[-3:]) % 6:03d}")[key].copy() for key in ("raw", "gt")}
        arrays["raw"] = (arrays["raw"] + int(name[-3:])).astype(np.float32)
        if name == "image_000":
            change(arrays)
        return arrays

    names = [f"image_{index:03d}" for index in range(images)]
    hdf5_file.write(folder / "data.h5", {"train": names[:-2], "val": names[-2:]}, read, provenance={})
    path = folder / "mine.toml"
    path.write_text(
        f'extends = {json.dumps(str(QUICK))}\n[dataset]\nname = "hdf5"\npath = "data.h5"\n[[metric]]\nname = "iou"\n'
    )
    return path


def quickly(path: Path, *words: str) -> tuple[int, str, str]:
    settings = [word for setting in SMALL if "dataset" not in setting for word in ("--set", setting)]
    return call(str(path), *settings, "--data", "--steps", "2", *words)


def spoilt(arrays: dict[str, Any]) -> None:
    arrays["raw"][3, 4] = np.nan


def test_errors_come_first_and_are_status_2(tmp_path: Path) -> None:
    status, out, _ = quickly(write(tmp_path, change=spoilt))
    lines = out.splitlines()
    assert status == 2 and lines[0].startswith("mine: 4 images (2 train, 2 val); 1 error, 0 warnings, ")
    words = " ".join("\n".join(lines[2:]).split())  # where a line ends depends on the length of the path
    assert words.startswith("error unreadable images: 1 image: ") and "image_000" in out
    order = [line.split()[0] for line in lines if line.startswith(("error ", "warning ", "note "))]
    assert order == sorted(order, key=["error", "warning", "note"].index)
    assert "note     model not tried: " in out and "\noverfit " not in out


def bad_labels(arrays: dict[str, Any]) -> None:
    arrays["gt"][0, 0] = 9


def test_json_for_scripts(tmp_path: Path) -> None:
    status, out, _ = quickly(write(tmp_path, change=bad_labels), "--json")
    done = json.loads(out)
    assert status == 2 and done["counts"]["errors"] == 1 and done["overfit"] is None
    assert done["findings"][0]["about"] == "invalid labels"
    assert done["findings"][0]["images"] == ["image_000"]
    assert done["images"][0]["labels"]["9"] == 1 and done["images"][0]["dtype"] == "float32"


def test_many_images_are_summarised(tmp_path: Path) -> None:
    status, out, _ = quickly(write(tmp_path, images=42))
    table = out.splitlines()[-3:]
    assert [line.split()[:3] for line in table[1:]] == [["train", "40", "images"], ["val", "2", "images"]]
    assert status == 0 and "(median)" in table[1]


def test_a_test_split_is_looked_at_and_a_data_set_may_not_tell_its_type() -> None:
    sample = yeast()[0]
    images = [*statistics(yeast()), replace(measure(sample, "test", None, (ZScore(),)), name="held out")]
    assert found(images)["images in several splits"].images == ("yeast_000", "held out")


def test_options_of_data_alone() -> None:
    for option in (["--json"], ["--steps", "3"]):
        status, _, err = call(str(QUICK), *option)
        assert status == 2 and "--steps and --json go with --data" in err


def test_texts() -> None:
    assert named(["a"]) == "a" and named(["a", "b", "c", "d"]) == "a, b, c, d"
    assert named(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_the_public_names() -> None:
    assert {"Finding", "Preflight", "as_json", "lines", "preflight"} <= set(preflight.__all__)
