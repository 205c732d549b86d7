"""An experiment made into parts: how many windows an epoch has, and where training images are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yeastexp.config.settings import Patches, Runtime
from yeastexp.data.normalization import Values, rescaled
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.downscale import Downscale
from yeastexp.errors import UserError
from yeastexp.sample import IGNORE, Sample
from yeastexp.tasks.semantic import Semantic
from yeastexp.training.training_images import DEFAULT_SIDE, Prepared, checked_labels, plan_patches, where_kept

SIZES = np.array([[40, 50], [33, 61], [24, 24]])


def test_patches_cover_as_much_as_the_images_have() -> None:
    plan = plan_patches(Patches(size=16), SIZES)
    assert np.bincount(plan.images).tolist() == [round(40 * 50 / 256), round(33 * 61 / 256), round(24 * 24 / 256)]


def test_the_patch_shrinks_to_the_smallest_image() -> None:
    assert plan_patches(Patches(), SIZES).side == 24
    assert plan_patches(Patches(), SIZES * 10).side == DEFAULT_SIDE


@pytest.mark.parametrize("stride", [5, 16, 30])
def test_sliding_patches_cover_the_border_from_inside(stride: int) -> None:
    plan = plan_patches(Patches(size=16, stride=stride), SIZES)
    assert plan.corners is not None
    for index, (height, width) in enumerate(SIZES.tolist()):
        covered = np.zeros((height, width), bool)
        corners = plan.corners[plan.images == index]
        for y, x in corners:
            assert 0 <= y <= height - 16 and 0 <= x <= width - 16
            covered[y : y + 16, x : x + 16] = True
        assert covered.all() or stride > 16
        assert covered[[0, 0, -1, -1], [0, -1, 0, -1]].all()
        assert len({tuple(corner) for corner in corners.tolist()}) == len(corners)


def test_a_sliding_patch_larger_than_the_image_is_centred() -> None:
    plan = plan_patches(Patches(size=30, stride=10), np.array([[24, 24]]))
    assert plan.corners is not None and plan.corners.tolist() == [[-3, -3]]


def test_rescaling_between_normalizations() -> None:
    raw = torch.tensor([[[100.0, 300.0]]])
    one, other = {"mean": 100.0, "std": 50.0}, {"mean": 0.0, "std": 10.0}
    stored = rescaled(raw, None, one)
    assert stored.tolist() == [[[0.0, 4.0]]]
    assert rescaled(stored, one, None).tolist() == [[[100.0, 300.0]]]
    assert rescaled(stored, one, other).tolist() == [[[10.0, 30.0]]]
    assert rescaled(stored, one, dict(one)) is stored


def test_each_channel_is_rescaled_by_its_own_statistics() -> None:
    raw, each = torch.tensor([[[4.0, 6.0]], [[900.0, 1100.0]]]), {"mean": [5.0, 1000.0], "std": [1.0, 100.0]}
    stored = rescaled(raw, None, each)
    assert stored.tolist() == [[[-1.0, 1.0]], [[-1.0, 1.0]]]
    assert torch.equal(rescaled(stored, each, None), raw)
    assert Values.of([stored], each) == Values(4, 1100) and Values.of([stored], each).channels == ((4, 6), (900, 1100))
    with pytest.raises(UserError, match="2 statistics are given, but the image has 1 channels"):
        rescaled(raw[:1], None, each)


def test_labels_that_are_no_classes_are_shown() -> None:
    sample = Sample(torch.zeros(1, 1, 3), torch.tensor([[0, 255, 7]]), "frame")
    with pytest.raises(UserError, match="image 'frame': its labels hold 0, 7, 255 where"):
        checked_labels(sample, 2)
    assert checked_labels(Sample(torch.zeros(1, 1, 2), torch.tensor([[IGNORE, 1]]), "x"), 2)


CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "workers", "wanted", "where", "said"),
    [
        (CPU, 0, 400, "memory", "the training images take 400 MB; kept in memory, where 1 GB are free"),
        (CPU, 2, 400, "memory", "kept in memory"),
        (CPU, 0, 600, "none", "read again for every patch, since only 1 GB are free; [runtime] workers read ahead"),
        (GPU, 0, 400, "device", "kept on the device, where 2 GB are free"),
        (GPU, 2, 400, "memory", "kept in memory"),
        (GPU, 0, 501, "none", "of 2 GB on the device no more than 25% is for images; read again"),
    ],
)
def test_where_images_are_kept_follows_from_what_is_free(
    device: torch.device, workers: int, wanted: int, where: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yeastexp.system.memory.free", lambda device: 10**9 * (2 if device.type == "cuda" else 1))
    found = where_kept(Runtime(workers=workers), wanted * 10**6, device)
    assert found[0] == where and said in found[1]
    found = where_kept(Runtime(cache="none"), wanted * 10**6, device)
    assert found == ("none", f"[runtime] cache: the training images take {wanted} MB; 'none', as the file says")


class Shrinking(BasicTransform2D):
    """Changes the grid in silence."""

    def image(self, image: torch.Tensor, params: None) -> torch.Tensor:
        return image[:, ::2]

    def labels(self, labels: torch.Tensor, params: None) -> torch.Tensor:
        return labels[::2]


class Frame:
    """A data set of one image."""

    def __init__(self) -> None:
        self.splits = {"train": ["frame"]}

    def shape(self, name: str) -> tuple[int, int, int]:
        return (1, 8, 9)

    def read(self, name: str) -> Sample:
        return Sample(torch.zeros(1, 8, 9), torch.zeros(8, 9, dtype=torch.int64), name)


def test_a_transform_that_changes_the_grid_has_to_say_so() -> None:
    task = Semantic(1, 2)
    assert Prepared(Frame(), (Downscale(2),), 2, task).sizes.tolist() == [[4, 5]]
    assert Prepared(Frame(), (Downscale(2),), 2, task)(0).size == (4, 5)
    message = (
        r"'image' of Shrinking gives a tensor of float32 \(1, 4, 9\) for a tensor of float32 \(1, 8, 9\); .*geometry"
    )
    with pytest.raises(UserError, match=message):
        Prepared(Frame(), (Shrinking(),), 2, task)(0)
