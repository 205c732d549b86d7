"""Laws that hold for everything registered, the example plugin alike."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from yeastexp import plugins
from yeastexp.config.loading import PARTS
from yeastexp.data.transforms import BasicTransform2D, pipeline
from yeastexp.data.transforms.geometry import Pixels
from yeastexp.metrics.pixels import PerImageMetric
from yeastexp.randomness import generator
from yeastexp.registry import KINDS
from yeastexp.sample import IGNORE, Sample

PLUGIN = Path(__file__).parents[2] / "experiments" / "my_transforms.py"
assert PARTS

plugins.load([PLUGIN])
NAMES = {kind: list(registry) for kind, registry in KINDS.items()}
plugins.load([])

OPTIONS: dict[tuple[str, str], dict[str, Any]] = {("dataset", "synthetic_yeast"): {"images": 3, "size": 64}}
"""What a part cannot be made without, or is too large without."""

CLASSIFIERS = {"cnn_classifier": 56}
"""Models that give one answer (B, K) for an image of one size, and its side."""

SHAPES = [(1, 32, 32), (1, 33, 47), (3, 40, 24)]


@pytest.fixture(autouse=True)
def example_plugin() -> Iterator[None]:
    plugins.load([PLUGIN])
    yield
    plugins.load([])


def made(kind: str, name: str, *given: Any) -> Any:
    return KINDS[kind][name](*given, **OPTIONS.get((kind, name), {}))


def sample(shape: tuple[int, int, int], classes: int = 2) -> Sample:
    source = torch.Generator().manual_seed(sum(shape))
    labels = torch.randint(0, classes, shape[1:], generator=source)
    maps = {"instances": labels * torch.randint(1, 9, shape[1:], generator=source)}
    return Sample(torch.randn(shape, generator=source) + labels, labels, "x", 0.1, maps)


def windows(transform: BasicTransform2D, count: int, epoch: int = 0) -> tuple[Tensor, Tensor]:
    """Windows of one image through one augmentation."""
    one = sample((1, 40, 40))
    pixels = Pixels.of([one.image], [one.labels[None]])
    params = [[transform.draw(generator(0, "augment", epoch, index))] for index in range(count)]
    return pipeline.patches(pixels, np.zeros(count, int), np.full((count, 2), 8), 16, [transform], params)


@pytest.mark.parametrize("name", NAMES["transform"])
class TestTransforms:
    def test_shape_type_and_inputs(self, name: str) -> None:
        transform = made("transform", name)
        assert isinstance(transform, BasicTransform2D)
        for shape in SHAPES:
            before = sample(shape)
            kept = pickle.loads(pickle.dumps(before))
            after = pipeline.whole([transform], before)
            assert after.image.dtype == torch.float32 and bool(after.image.isfinite().all())
            assert after.labels.dtype == torch.int64 and after.image.shape[0] == shape[0]
            assert after.image.shape[1:] == after.labels.shape == after.maps["instances"].shape
            assert set(after.labels.unique().tolist()) <= {*before.labels.unique().tolist(), IGNORE}
            assert torch.equal(before.image, kept.image) and torch.equal(before.labels, kept.labels)
            logits = torch.zeros(2, *after.size)
            if not transform.draws():  # one that draws is no [[transform]]
                assert pipeline.restore([transform], logits, before.size).shape == (2, *before.size)

    def test_the_same_generator_gives_the_same(self, name: str) -> None:
        transform = made("transform", name)
        torch.manual_seed(1)
        one = windows(transform, 6)
        torch.manual_seed(2)
        np.random.seed(0)  # no global generator may matter
        other = windows(pickle.loads(pickle.dumps(transform)), 6)
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))

    def test_a_batch_is_its_windows_one_by_one(self, name: str) -> None:
        transform = made("transform", name)
        images, labels = windows(transform, 5)
        one = sample((1, 40, 40))
        pixels = Pixels.of([one.image], [one.labels[None]])
        for index in range(5):
            params = [[transform.draw(generator(0, "augment", 0, index))]]
            alone = pipeline.patches(pixels, np.zeros(1, int), np.full((1, 2), 8), 16, [transform], params)
            torch.testing.assert_close(alone[0][0], images[index], rtol=0, atol=1e-6)
            assert torch.equal(alone[1][0], labels[index])

    def test_a_draw_is_a_few_numbers_and_takes_none_from_a_global_generator(self, name: str) -> None:
        transform = made("transform", name)
        torch_state, numpy_state = torch.get_rng_state(), repr(np.random.get_state())
        params = [transform.draw(generator(0, "augment", 0, index)) for index in range(20)]
        windows(transform, 3)
        assert torch.equal(torch.get_rng_state(), torch_state) and repr(np.random.get_state()) == numpy_state
        assert max(len(pickle.dumps(one)) for one in params) < 500
        assert pickle.dumps(params) == pickle.dumps(
            [pickle.loads(pickle.dumps(transform)).draw(generator(0, "augment", 0, index)) for index in range(20)]
        )

    def test_windows_leave_the_stored_pixels_alone(self, name: str) -> None:
        transform = made("transform", name)
        one = sample((3, 30, 26), classes=5)
        pixels = Pixels.of([one.image], [one.labels[None].to(torch.int8)])
        kept = pixels.values.clone(), pixels.labels.clone()
        params = [[transform.draw(generator(0, "augment", 0, index))] for index in range(4)]
        images, labels = pipeline.patches(pixels, np.zeros(4, int), np.full((4, 2), 3), 11, [transform], params)
        assert images.shape == (4, 3, 11, 11) and images.dtype == torch.float32 and bool(images.isfinite().all())
        assert labels.shape == (4, 11, 11) and labels.dtype == torch.int64
        assert set(labels.unique().tolist()) <= {IGNORE, 0, 1, 2, 3, 4}
        assert torch.equal(pixels.values, kept[0]) and torch.equal(pixels.labels, kept[1])

    def test_a_single_pixel_is_an_image(self, name: str) -> None:
        transform = made("transform", name)
        pixel = Sample(torch.full((1, 1, 1), 3.0), torch.ones(1, 1).long(), "x")
        after = pipeline.whole([transform], pixel)
        assert after.image.shape == (1, 1, 1) and bool(after.image.isfinite().all())
        assert after.labels.tolist() in ([[1]], [[IGNORE]])

    def test_what_moves_whole_pixels_changes_none(self, name: str) -> None:
        """That all transforms which do say so: each draw gives the same values elsewhere, in the image and labels."""
        transform = made("transform", name)
        if not transform.draws() or transform.has("scenes"):
            pytest.skip("is the same for every patch, or takes patches from elsewhere")
        labels = torch.arange(24 * 24).reshape(1, 24, 24)
        pixels = Pixels.of([labels.float()], [labels])
        params = [[transform.draw(generator(0, "augment", 0, index))] for index in range(30)]
        images, placed = pipeline.patches(pixels, np.zeros(30, int), np.zeros((30, 2), int), 24, [transform], params)
        kept = (placed.flatten(1).sort(1).values == labels.flatten()).all() and torch.equal(
            images[:, 0], placed.float()
        )
        assert bool(kept) == transform.moves_whole_pixels

    def test_geometry_keeps_image_and_labels_in_step(self, name: str) -> None:
        """A ramp that equals its labels still does where pixels fall on pixels, else to half a pixel on each axis."""
        transform = made("transform", name)
        if transform.has("image") or not transform.has("geometry"):
            pytest.skip("changes values")
        labels = torch.arange(40 * 40).reshape(1, 40, 40)
        pixels = Pixels.of([labels.float()], [labels])
        params = [[transform.draw(generator(0, "augment", 0, index))] for index in range(8)]
        images, read = pipeline.patches(pixels, np.zeros(8, int), np.full((8, 2), 8), 16, [transform], params)
        known = read != IGNORE
        apart = (images[:, 0][known] - read[known]).abs()
        assert known.any() and float(apart.max()) <= 0.5 * 40 + 0.5 + 1e-3
        if name in ("reflect", "rotate90"):
            assert not apart.any()


def images_for(name: str, count: int) -> Tensor:
    """Random images (B, 1, H, W) of a size that a model takes."""
    side = CLASSIFIERS.get(name, 32)
    return torch.randn(count, 1, side, side)


@pytest.mark.parametrize("name", NAMES["model"])
class TestModels:
    @pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 5)])
    def test_logits_have_the_size_of_the_image(self, name: str, channels: int, classes: int) -> None:
        model = made("model", name, channels, classes).eval()
        if side := CLASSIFIERS.get(name):
            assert model(torch.randn(2, channels, side, side)).shape == (2, classes)
            return
        for height, width in ((1, 1), (7, 13), (32, 48), (65, 33)):
            assert model(torch.randn(2, channels, height, width)).shape == (2, classes, height, width)

    def test_every_parameter_learns(self, name: str) -> None:
        model = made("model", name, 1, 2)
        model(images_for(name, 2)).square().mean().backward()
        assert all(parameter.grad is not None and bool((parameter.grad != 0).any()) for parameter in model.parameters())

    def test_evaluation_does_not_depend_on_the_batch(self, name: str) -> None:
        model = made("model", name, 1, 2).eval()
        images = images_for(name, 3)
        torch.testing.assert_close(model(images)[1:2], model(images[1:2]), rtol=1e-4, atol=1e-5)
        assert torch.equal(model(images), model(images))

    def test_the_weights_are_all_the_state_there_is(self, name: str) -> None:
        model, other = made("model", name, 1, 2), made("model", name, 1, 2)
        images = images_for(name, 2)
        model(images)  # running figures of norms are state as well
        other.load_state_dict(model.state_dict())
        again = pickle.loads(pickle.dumps(model))
        with torch.no_grad():
            assert torch.equal(model.eval()(images), other.eval()(images))
            assert torch.equal(model(images), again.eval()(images))


@pytest.mark.parametrize("name", NAMES["loss"])
class TestLosses:
    def test_a_finite_scalar_that_learns(self, name: str) -> None:
        loss = made("loss", name, 3)
        logits = torch.randn(2, 3, 8, 8, requires_grad=True)
        value = loss(logits, torch.randint(0, 3, (2, 8, 8)))
        value.backward()
        assert value.shape == () and bool(value.isfinite()) and bool(logits.grad.abs().sum() > 0)

    def test_ignored_pixels_count_nothing(self, name: str) -> None:
        loss = made("loss", name, 2)
        logits, labels = torch.randn(1, 2, 8, 8), torch.randint(0, 2, (1, 8, 8))
        labels[:, :4] = IGNORE
        other = logits.clone()
        other[:, :, :4] = torch.randn(1, 2, 4, 8) * 50
        torch.testing.assert_close(loss(logits, labels), loss(other, labels))
        other.requires_grad_()
        loss(other, labels).backward()
        assert other.grad is not None and not bool(other.grad[:, :, :4].any()) and bool(other.grad[:, :, 4:].any())

    def test_nothing_known_is_no_fault(self, name: str) -> None:
        logits = torch.randn(1, 2, 4, 4, requires_grad=True)
        value = made("loss", name, 2)(logits, torch.full((1, 4, 4), IGNORE))
        value.backward()
        assert float(value.detach()) == 0 and not bool(logits.grad.any())

    @pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3)])
    @pytest.mark.parametrize("scale", [0.0, 1.0, 1000.0])
    def test_gradients_are_finite_however_sure_the_model_is(
        self, name: str, size: tuple[int, int], scale: float
    ) -> None:
        loss = made("loss", name, 3)
        for labels in (torch.zeros(2, *size).long(), torch.randint(-1, 3, (2, *size))):
            logits = (torch.randn(2, 3, *size) * scale).requires_grad_()
            value = loss(logits, labels)
            value.backward()
            assert bool(value.isfinite()) and float(value.detach()) >= 0
            assert logits.grad is not None and bool(logits.grad.isfinite().all())

    def test_right_answers_cost_less(self, name: str) -> None:
        loss, labels = made("loss", name, 2), torch.randint(0, 2, (1, 16, 16))
        right = torch.stack([labels == 0, labels == 1], dim=1) * 20.0
        assert loss(right, labels) < 1e-3 < loss(-right, labels)


@pytest.mark.parametrize("name", NAMES["optimizer"])
def test_an_optimizer_goes_downhill(name: str) -> None:
    weight = torch.nn.Parameter(torch.full((2, 2), 3.0))
    optimizer = made("optimizer", name, [weight])
    for _ in range(5):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    assert bool((weight < 3).all())
    optimizer.zero_grad()
    kept = weight.detach().clone()
    other = torch.nn.Parameter(kept.clone())
    resumed = made("optimizer", name, [other])
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # else both share their momenta
    for one, stepped in ((weight, optimizer), (other, resumed)):
        one.square().sum().backward()
        stepped.step()
    assert torch.equal(weight, other) and not torch.equal(weight, kept)


@pytest.mark.parametrize("name", NAMES["optimizer"])
def test_an_optimizer_decays_no_vectors(name: str) -> None:
    keys = KINDS["optimizer"].find(name).schema.keys
    decay = {"weight_decay": 0.5} if "weight_decay" in keys else {}
    matrix, vector = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    optimizer = KINDS["optimizer"][name]([matrix, vector], learning_rate=0.1, **decay)
    (0 * matrix.sum() + 0 * vector.sum()).backward()
    optimizer.step()
    assert torch.equal(vector, torch.ones(2)) and bool((matrix < 1).all()) == bool(decay)


@pytest.mark.parametrize("name", NAMES["scheduler"])
def test_a_scheduler_stays_between_nothing_and_the_whole(name: str) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    scheduler = made("scheduler", name, optimizer, 20)
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert all(0 < rate <= 0.5 for rate in rates) and max(rates) > 0.4
    again = torch.optim.SGD([weight], lr=0.5)
    resumed = made("scheduler", name, again, 20)
    resumed.load_state_dict(scheduler.state_dict())
    assert resumed.last_epoch == 20


@pytest.mark.parametrize("name", NAMES["metric"])
class TestMetrics:
    def maps(self, metric: PerImageMetric) -> dict[str, Tensor]:
        return {name: torch.randint(0, 3, (9, 9)) for name in metric.maps}

    def test_whole_numbers_whatever_the_order(self, name: str) -> None:
        metric = made("metric", name, 3)
        images = [(torch.randint(0, 3, (9, 9)), torch.randint(-1, 3, (9, 9)), self.maps(metric)) for _ in range(5)]
        found = []
        for order in (images, images[::-1]):
            metric.reset()
            for one in order:
                metric.update(one)
            found.append(metric.compute())
        assert found[0].counts.dtype == torch.int64
        assert torch.equal(found[0].counts, found[1].counts.flip(0))
        for scores in ("pooled", "per_image"):
            assert torch.equal(*(getattr(one, scores).nan_to_num(-1) for one in found))
        assert found[0].rows.shape == (5, len(found[0].pooled)) and (
            len(found[0].pooled) in ((1 + len(metric.parts),) if metric.parts else (1, 3))
        )

    def test_nothing_known_has_no_score(self, name: str) -> None:
        metric = made("metric", name, 2)
        counts = metric.counts(torch.zeros(9, 9).long(), torch.full((9, 9), IGNORE), **self.maps(metric))
        assert bool(metric.score(counts).isnan().all())

    def test_means_are_the_same_bits_in_every_order(self, name: str) -> None:
        metric = made("metric", name, 3)
        images = [(torch.randint(0, 3, (9, 9)), torch.randint(-1, 3, (9, 9)), self.maps(metric)) for _ in range(60)]
        seen = set()
        for seed in range(10):
            metric.reset()
            for index in np.random.default_rng(seed).permutation(60):
                metric.update(images[index])
            found = metric.compute()
            seen.add(tuple(found.per_image.nan_to_num(-1).tolist() + found.pooled.nan_to_num(-1).tolist()))
        assert len(seen) == 1

    def test_counts_skip_what_is_ignored(self, name: str) -> None:
        metric = made("metric", name, 3)
        for seed in range(5):
            source = torch.Generator().manual_seed(seed)
            labels = torch.randint(-1, 3, (12, 12), generator=source)
            labels[4:] = labels[4:].clamp_min(IGNORE + 1)[:, :1]  # stripes that reach into the ignored part
            labels[:, 6:9] = IGNORE
            maps = {one: torch.randint(0, 3, (12, 12), generator=source) for one in metric.maps}
            prediction, other = torch.randint(0, 3, (2, 12, 12), generator=source)
            other = torch.where(labels == IGNORE, other, prediction)
            kept = labels.clone(), prediction.clone()
            assert torch.equal(metric.counts(prediction, labels, **maps), metric.counts(other, labels, **maps))
            assert torch.equal(labels, kept[0]) and torch.equal(prediction, kept[1])

    @pytest.mark.parametrize("size", [(1, 1), (1, 6), (9, 9)])
    def test_a_perfect_prediction_scores_one_in_every_class_there_is(self, name: str, size: tuple[int, int]) -> None:
        metric = made("metric", name, 4)
        if metric.maps:
            pytest.skip("asks for more than the truth")
        labels = torch.randint(0, 3, size)
        metric.update((labels, labels, {}))
        found = metric.compute()
        scored = found.rows[0][~found.rows[0].isnan()]
        assert bool((scored == 1).all())
        if len(found.rows[0]) == 4:
            assert bool(found.rows[0, 3].isnan())


@pytest.mark.parametrize("name", NAMES["dataset"])
def test_a_data_set_reads_what_it_says(name: str, tmp_path: Path) -> None:
    if name == "hdf5":
        from tiny import write_data

        OPTIONS["dataset", "hdf5"] = {"path": write_data(tmp_path / "data.h5")}
    data = made("dataset", name)
    again = pickle.loads(pickle.dumps(data))
    for one in data.splits["train"] + data.splits["val"]:
        read, other = data.read(one), again.read(one)
        assert read.name == one and read.image.shape == data.shape(one) and torch.equal(read.image, other.image)
        assert read.image.dtype == torch.float32 and read.labels.dtype == torch.int64
        assert set(read.maps) == set(data.maps) and read.labels.shape == read.image.shape[1:]
    assert not set(data.splits["train"]) & set(data.splits["val"])
