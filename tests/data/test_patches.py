"""The stream of training batches: any step, in any order, on any process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from yeastexp import plugins
from yeastexp.config.settings import Patches
from yeastexp.data import kept_images
from yeastexp.data import patches as patch_module
from yeastexp.data.kept_images import CachedImages, LazyImages
from yeastexp.data.patches import PatchSampler, Transforms
from yeastexp.data.prefetch import prefetch_to_device
from yeastexp.data.transforms.affine import Affine
from yeastexp.data.transforms.elastic import Elastic
from yeastexp.data.transforms.gaussian_noise import GaussianNoise
from yeastexp.data.transforms.geometry import Pixels
from yeastexp.data.transforms.reflect import Reflect
from yeastexp.data.transforms.rotate90 import Rotate90
from yeastexp.registry import transform
from yeastexp.sample import IGNORE, Sample
from yeastexp.training.training_images import plan_patches

PLUGIN = Path(__file__).parents[2] / "experiments" / "my_transforms.py"
SIZES = np.array([[40, 50], [33, 61], [24, 24]])


def stream(plan: Patches | None = None, more: tuple = ()) -> PatchSampler:
    plan = plan or Patches(size=16)
    images = [torch.randn(1, *size) for size in SIZES.tolist()]
    labels = [torch.full((1, *size), index, dtype=torch.int8) for index, size in enumerate(SIZES.tolist())]
    pixels = Pixels.of(images, labels)
    return PatchSampler(
        CachedImages(pixels),
        plan_patches(plan, pixels.sizes),
        4,
        (Reflect(), Rotate90(), *more),
        seed=5,
    )


def test_a_batch_does_not_depend_on_those_before() -> None:
    made = stream()
    forward = [made.batch(step) for step in range(10)]
    for step in (9, 3, 0, 7):
        assert all(torch.equal(a, b) for a, b in zip(made.batch(step), forward[step], strict=True))
    assert not torch.equal(forward[0][0], forward[made.steps_per_epoch][0])  # another epoch, other windows


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_worker_processes_cut_the_same_windows(context: str) -> None:
    """With an augmentation that a plugin defines: a worker has to load it before it can unpickle the part."""
    plugins.load([PLUGIN])
    made = stream(more=(transform["invert"](),))
    here = list(made.batches(2, 8))
    there = list(made.batches(2, 8, workers=2, context=context))
    gc.collect()
    assert len(here) == len(there) == 6
    assert all(
        torch.equal(a, b) for one, other in zip(here, there, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_an_epoch_takes_every_planned_window_once() -> None:
    made = stream(Patches(size=16, per_image=3))
    assert made.plan.images.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and made.steps_per_epoch == 3
    labels = torch.cat([made.labelled(step)[1] for step in range(3)])
    owners = [int(one[one != IGNORE][0]) for one in labels]
    assert sorted(owners) == made.plan.images.tolist()
    assert made.batch(2)[0].shape == (1, 1, 16, 16)


def test_all_epochs_take_all_windows_in_other_orders() -> None:
    made = stream(Patches(size=16, stride=9))
    assert made.plan.corners is not None
    planned = sorted(map(tuple, np.column_stack([made.plan.images, made.plan.corners]).tolist()))
    orders = []
    for epoch in range(3):
        order = patch_module._order(5, epoch, len(planned)).tolist()
        seen = np.column_stack([made.plan.images, made.plan.corners])[order]
        assert sorted(map(tuple, seen.tolist())) == planned
        orders.append(order)
    assert orders[0] != orders[1] != orders[2]
    sizes = [len(made.batch(step)[0]) for step in range(made.steps_per_epoch)]
    assert sizes == [4] * (len(planned) // 4) + ([len(planned) % 4] if len(planned) % 4 else [])


def test_another_seed_is_another_stream() -> None:
    one = stream()
    other = PatchSampler(one.source, one.plan, one.size, one.augmentations, seed=6)
    same = PatchSampler(one.source, one.plan, one.size, one.augmentations, seed=5)
    assert torch.equal(one.batch(3)[0], same.batch(3)[0]) and not torch.equal(one.batch(3)[0], other.batch(3)[0])


def test_a_window_does_not_depend_on_the_size_of_the_batch() -> None:
    """Its corner and its draws are keyed by its own number in the epoch."""
    one = stream()
    other = PatchSampler(one.source, one.plan, 5, one.augmentations, seed=5)
    whole = [torch.cat([made.batch(step)[0] for step in range(made.steps_per_epoch)]) for made in (one, other)]
    assert torch.equal(*whole)


def test_an_image_smaller_than_the_window_is_centred_in_it() -> None:
    pixels = Pixels.of([torch.ones(1, 10, 40)], [torch.zeros(1, 10, 40, dtype=torch.int8)])
    made = PatchSampler(CachedImages(pixels), plan_patches(Patches(size=16), pixels.sizes), 8, (), seed=0)
    _, labels = made.labelled(0)
    known = (labels != IGNORE).float()
    assert torch.equal(known[:, 3:13].unique(), torch.ones(1)) and float(known.mean()) == 10 / 16


def test_random_windows_lie_inside() -> None:
    made = stream()
    assert not any(bool((made.batch(step)[1] == IGNORE).any()) for step in range(20))


def spotted(foreground: float, window: int = 9) -> PatchSampler:
    """Windows of two images: one with two pixels of class 1 far from the border, one with none."""
    labels = [torch.zeros(1, 40, 50, dtype=torch.int8) for _ in range(2)]
    labels[0][0, 20, 30] = labels[0][0, 12, 25] = 1
    pixels = Pixels.of([torch.zeros(1, 40, 50)] * 2, labels)
    plan = plan_patches(Patches(size=window, per_image=200), pixels.sizes)
    return PatchSampler(CachedImages(pixels, foreground > 0), plan, 400, (), seed=3, foreground=foreground)


def corner(made: PatchSampler, index: int) -> np.ndarray:
    (laid,) = made.source.laid(made.plan.images[[index]])
    return made._corner(0, index, laid, laid.images[0], planned=True)


def test_windows_are_centred_on_the_foreground() -> None:
    made = spotted(1.0)
    labels = made.labelled(0)[1]
    centred = labels[:, 4, 4] == 1
    assert int(centred.sum()) == 200  # all of the first image; the other has nothing to be centred on
    other = spotted(1.0).labelled(1)[1]
    assert other.shape == labels.shape and not torch.equal(other, labels)


def test_a_share_of_the_windows_is_centred_and_the_others_stay_where_they_were() -> None:
    made, plain = spotted(0.3), spotted(0.0)
    centred = [index for index in range(200) if bool((corner(made, index) != corner(plain, index)).any())]
    assert len(centred) == pytest.approx(60, abs=20)
    assert int((made.labelled(0)[1][:, 4, 4] == 1).sum()) == pytest.approx(len(centred), abs=1)


def test_a_centred_window_stays_inside_the_image() -> None:
    labels = torch.zeros(1, 20, 20, dtype=torch.int8)
    labels[0, 0, 19] = 1
    pixels = Pixels.of([torch.zeros(1, 20, 20)], [labels])
    plan = plan_patches(Patches(size=8), pixels.sizes)
    made = PatchSampler(CachedImages(pixels, True), plan, 4, (), seed=0, foreground=1.0)
    assert corner(made, 0).tolist() == [0, 12]
    small = PatchSampler(made.source, plan_patches(Patches(size=30), pixels.sizes), 4, (), seed=0, foreground=1.0)
    assert corner(small, 0).tolist() == [-5, -5]


def sample(index: int) -> Sample:
    """One of images of SIZES, the same each time."""
    source = torch.Generator().manual_seed(index)
    height, width = SIZES[index].tolist()
    labels = (torch.rand(height, width, generator=source) > 0.9).long() - int(index == 1)
    return Sample(torch.randn(2, height, width, generator=source), labels, name=str(index))


READ_TWICE = (Elastic(p=1.0), GaussianNoise(p=1.0), Affine())
"""The second reading goes as far as the batch's widest window, which may be of another image."""


@pytest.mark.parametrize("augmentations", [(Reflect(), Rotate90()), READ_TWICE])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("most", [1, 2, 9])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_images_that_are_read_again_give_the_same_windows(most: int, workers: int, augmentations: Transforms) -> None:
    kept = CachedImages.reading(sample, SIZES, torch.device("cpu"), foreground=True)
    reread = LazyImages(sample, SIZES, 2, foreground=True)
    reread.most = most
    plan = plan_patches(Patches(size=16), SIZES)
    one, other = (PatchSampler(source, plan, 5, augmentations, 5, foreground=0.5) for source in (kept, reread))
    for batch, again in zip(one.batches(0, 9), other.batches(0, 9, workers), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))
    gc.collect()
    assert len(reread.latest) == (0 if workers else min(most, 3))


def test_images_are_laid_out_as_they_are_put_together() -> None:
    made, wanted = CachedImages.reading(sample, SIZES, torch.device("cpu")), [sample(index) for index in range(3)]
    pixels = Pixels.of([one.image for one in wanted], [one.labels[None].to(torch.int32) for one in wanted])
    assert made.pixels.labels.dtype == torch.int32
    assert torch.equal(made.pixels.values, pixels.values) and torch.equal(made.pixels.labels, pixels.labels)
    assert made.pixels.offsets.tolist() == pixels.offsets.tolist()
    assert made.pixels.sizes.tolist() == pixels.sizes.tolist()
    assert torch.equal(
        torch.cat([one.flatten() for one in LazyImages(sample, SIZES, 2, False).labels()]), pixels.labels[0]
    )
    held = pixels.values.nbytes + pixels.labels.nbytes
    assert held == kept_images.bytes_of(SIZES, 2)


class FakeStream:
    """A stream of a GPU that writes down who waits for whom."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told = name, told

    def wait_stream(self, other: FakeStream) -> None:
        self.told.append(f"{self.name} waits for {other.name}")

    def __enter__(self) -> None:
        self.told.append(f"on {self.name}")

    def __exit__(self, *error: object) -> None:
        self.told.append(f"off {self.name}")


class FakeBatch:
    """What stands for a tensor in a GPU's memory."""

    def __init__(self, told: list[str]) -> None:
        self.told = told

    def to(self, device: torch.device, *, non_blocking: bool) -> FakeBatch:
        assert device.type == "cuda" and non_blocking
        return self

    def record_stream(self, stream: FakeStream) -> None:
        self.told.append(f"kept for {stream.name}")


def test_a_gpu_makes_batches_aside_and_a_step_waits_for_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fakes: no figure of a real GPU depends on the order that is told here."""
    told: list[str] = []

    def made() -> Iterator[tuple[FakeBatch, FakeBatch]]:
        for _ in range(2):
            told.append("made")
            yield FakeBatch(told), FakeBatch(told)

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: FakeStream("training", told))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: FakeStream("own", told))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    for _ in prefetch_to_device(made(), torch.device("cuda")):  # type: ignore[arg-type]
        told.append("step")
    one = ["on own", "made", "off own", "training waits for own", "kept for training", "kept for training", "step"]
    assert told == ["own waits for training", *one, *one, "on own", "off own"]


def test_a_cpu_gets_the_batches_as_they_are() -> None:
    batches = [(torch.zeros(1), torch.ones(1))] * 3
    sent = list(prefetch_to_device(iter(batches), torch.device("cpu")))
    assert len(sent) == 3 and all(
        one is two for pair in zip(sent, batches, strict=True) for one, two in zip(*pair, strict=True)
    )
