"""What has to hold on a GPU as on a CPU: exact resuming, exact tiles, the same patches, all precisions.

`pytest -m gpu` runs what needs a GPU. The same tests on a CPU keep them in order where there is none.
"""

from __future__ import annotations

import csv
import io
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# cuBLAS reads it once, when it is first used; without it sums may come in another order every time.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import kills
import numpy as np
import pytest
import tiny
import torch
from rich.console import Console
from torch import Tensor

from yeastexp.config.loading import load_experiment
from yeastexp.config.settings import Patches
from yeastexp.data.kept_images import CachedImages
from yeastexp.data.patches import PatchSampler
from yeastexp.data.pieces import Pieces
from yeastexp.data.prefetch import prefetch_to_device
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.geometry import Pixels
from yeastexp.data.transforms.reflect import Reflect
from yeastexp.prediction import tiling
from yeastexp.prediction.tiling import Tiling
from yeastexp.registry import loss, model, transform
from yeastexp.training import checkpoints
from yeastexp.training.build import Assembly, assemble, build_trainer
from yeastexp.training.optimization import Options, Precision
from yeastexp.training.resume import resume
from yeastexp.training.run import run
from yeastexp.training.training_images import plan_patches

pytestmark = pytest.mark.usefixtures("real_previews")
NEEDS_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch has no GPU here"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]
PRECISIONS = [
    ("cpu", "bfloat16"),
    *(pytest.param("cuda", precision, marks=NEEDS_GPU) for precision in ("float32", "bfloat16", "float16")),
]

EXPERIMENT = (
    tiny.EXPERIMENT.replace("levels = 2", "levels = 2\ndropout = 0.2")
    .replace("epochs = 2", "epochs = 3\nema_decay = 0.9")
    .replace("threads = 1", "threads = 1\ncheckpoint_minutes = 1e-9")
)
"""Twelve steps, four an epoch, with a checkpoint after each; dropout draws from the device's own generator."""

STEPS, STEPS_PER_EPOCH, BATCH = 12, 4, 4


class PowerCut(BaseException):
    """What no code expects."""


def train(folder: Path, device: str, precision: str, text: str = EXPERIMENT) -> Path:
    """The directory of a finished run."""
    folder.mkdir()
    path = tiny.write_experiment(folder, text)
    settings = [f"runtime.device={device}", f"train.precision={precision}"]
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        return run(path, settings, console=Console(file=io.StringIO())).resolve()


def train_until(folder: Path, device: str, precision: str, step: int) -> Path:
    """The directory of a run that is cut short while the batch after a step is being cut."""
    draw, drawn = Reflect.draw, []

    def counting(self: Reflect, generator: np.random.Generator) -> Any:
        drawn.append(None)
        if len(drawn) > BATCH * step:
            raise PowerCut
        return draw(self, generator)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(PowerCut):
        patched.setattr(Reflect, "draw", counting)
        train(folder, device, precision)
    return folder / "runs" / "tiny" / "001"


@pytest.mark.parametrize(("device", "precision"), PRECISIONS)
def test_a_resumed_run_ends_in_the_same_bytes_and_with_finite_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, precision: str
) -> None:
    """Weights, optimizer, generators, scores and curves, after an interruption in the middle of an epoch."""
    whole = train(tmp_path / "whole", device, precision)
    cut = train_until(tmp_path / "cut", device, precision, step=6)
    reached = checkpoints.load(cut / "checkpoints" / "last.pt")["step"]
    assert 0 < reached < STEPS and reached % STEPS_PER_EPOCH
    torch.manual_seed(1)
    torch.rand(7, device=device)  # the generators are somewhere else than in the run that was cut short
    monkeypatch.chdir(cut.parents[2])
    assert resume(cut, console=Console(file=io.StringIO()))
    assert kills.differences(whole, cut) == []
    last = checkpoints.load(cut / "checkpoints" / "last.pt")
    assert last["step"] == STEPS and all(bool(value.isfinite().all()) for value in last["model"].values())
    rows = list(csv.DictReader((cut / "metrics.csv").read_text().splitlines()))
    assert rows and all(math.isfinite(float(value)) for row in rows for value in row.values() if value)


@pytest.mark.parametrize("device", [DEVICES[1]])
def test_the_generator_of_a_gpu_is_state(device: str) -> None:
    state = checkpoints.generators(torch.device(device))["cuda"]
    assert state is not None
    drawn = torch.rand(3, device=device)
    torch.cuda.set_rng_state(state)
    assert torch.equal(torch.rand(3, device=device), drawn)


def decided(logits: Tensor, tolerance: float) -> Tensor:
    """Where the most likely class is ahead by more than two logits (K, H, W) of some tolerance can make up for."""
    best = logits.topk(2, dim=0).values
    return best[0] - best[1] > 2 * tolerance


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unet", {"width": 16, "levels": 3}),
        ("unet", {"width": 8, "levels": 3, "residual": True, "downsampling": "stride"}),
        ("fcn", {"width": 8, "levels": 4}),
    ],
    ids=str,
)
def test_tiles_equal_the_whole_image(device: str, name: str, options: dict[str, Any]) -> None:
    """Labels to the last pixel, unless two classes are as likely as rounding can tell.

    Tiles of another size can be computed by another algorithm: sums of float32 numbers in another order, or Winograd's,
    whose errors are about 1e-5 of the largest value. A factor of ten is left; TF32 would miss the bound by as much.
    """
    torch.manual_seed(0)
    net = model[name](1, 3, **options)
    net.train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(2, 1, 64, 64))
    net.eval().to(device)
    image = torch.randn(1, 331, 297).to(device)
    whole = tiling.run(net, image)
    tolerance = 1e-4 * float(whole.abs().max())
    tiles = Tiling.of(net, 1)
    assert not tiles.inexact
    pieces = Pieces((331, 297), lambda rows, columns: image[:, rows, columns])
    for tile in ((tiles.stride * 5, tiles.stride * 9), (128, 96)):
        logits = tiling.assemble(tiles.logits(pieces, tile), tile)
        assert float((logits - whole).abs().max()) <= tolerance
        certain = decided(whole, tolerance)
        assert float(certain.float().mean()) > 0.99
        assert torch.equal(logits.argmax(dim=0)[certain], whole.argmax(dim=0)[certain])


def stream(device: str, augmentations: tuple[BasicTransform2D, ...]) -> PatchSampler:
    """Patches of noisy images of several sizes whose labels tell every pixel from its neighbours."""
    source = torch.Generator().manual_seed(0)
    sizes = [(80, 100), (66, 122), (48, 48)]
    images = [torch.randn(1, *size, generator=source) for size in sizes]
    labels = [torch.randint(0, 100, (1, *size), generator=source, dtype=torch.int8) for size in sizes]
    pixels = Pixels.of(images, labels).to(torch.device(device))
    plan = plan_patches(Patches(size=32, per_image=8), pixels.sizes)
    return PatchSampler(CachedImages(pixels), plan, 8, augmentations, seed=5)


def built(*names: str) -> tuple[BasicTransform2D, ...]:
    return tuple(transform[name]() for name in names)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("names", "bound", "share"),
    [
        # Only whole pixels are moved.
        (["reflect", "rotate90"], 0.0, 0.0),
        # Coordinates are float32 products and sums one by one, which all devices round alike; so are the values read.
        (["reflect", "affine"], 0.0, 0.0),
        # Logarithm, cosine and power differ in the last bits, of values up to about 10.
        (["affine", "gamma", "gaussian_noise", "brightness_contrast"], 2e-5, 0.0),
        # A field comes from a matrix product, whose last bit moves places by up to 8e-6 pixels on each axis, between
        # pixels that differ by up to 8; and a place half between two pixels may fall to the other one.
        (["rotate90", "elastic"], 2e-4, 1e-4),
    ],
    ids=str,
)
def test_patches_are_those_of_the_cpu(device: str, names: list[str], bound: float, share: float) -> None:
    """Labels exactly, and values up to a bound that the arithmetic gives."""
    here, there = (stream(place, built(*names)) for place in ("cpu", device))
    other = []
    for step in range(2 * here.steps_per_epoch):
        (values, labels), (moved_values, moved_labels) = here.batch(step), there.batch(step)
        assert moved_values.device.type == device
        assert float((values - moved_values.cpu()).abs().max()) <= bound
        other.append((labels != moved_labels.cpu()).float().mean())
    assert float(torch.stack(other).mean()) <= share


AUGMENTATIONS = ("affine", "elastic", "pasted_structures", "brightness_contrast", "gamma", "uneven_illumination")
AUGMENTATIONS += ("gaussian_blur", "gaussian_noise", "poisson_noise", "invert_contrast")
AUGMENTED = tiny.EXPERIMENT.replace(
    "[model]", "".join(f'[[augment]]\nname = "{name}"\n' for name in AUGMENTATIONS) + "[model]"
)


@pytest.mark.parametrize("device", DEVICES)
def test_training_twice_with_all_augmentations_ends_in_the_same_bytes(tmp_path: Path, device: str) -> None:
    first, second = (train(tmp_path / name, device, "float32", AUGMENTED) for name in ("first", "second"))
    assert kills.differences(first, second) == []


def assembled(path: Path, *settings: str) -> Assembly:
    """The parts of an experiment."""
    return assemble(load_experiment(path, settings))


@pytest.mark.parametrize("device", DEVICES)
def test_patches_are_the_same_wherever_images_are_kept_and_whoever_cuts_them(tmp_path: Path, device: str) -> None:
    """Bit by bit where the CPU cuts them; on the device to the bound of fields, but for labels half between pixels."""
    path = tiny.write_experiment(tmp_path, AUGMENTED)
    cut: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for where, settings in {
        "memory": ["runtime.cache=memory"],
        "none": ["runtime.cache=none"],
        "workers": ["runtime.cache=memory", "runtime.workers=2"],
        "device": ["runtime.cache=device"],
    }.items():
        assembly = assembled(path, f"runtime.device={device}", *settings)
        workers = assembly.experiment.runtime.workers
        batches = prefetch_to_device(assembly.sampler.batches(0, 4, workers, pinned=device == "cuda"), assembly.device)
        cut[where] = [(images.cpu(), targets.cpu()) for images, targets in batches]
    for where in ("none", "workers", "device"):
        for (images, targets), (other_images, other_targets) in zip(cut["memory"], cut[where], strict=True):
            assert float((images - other_images).abs().max()) <= (1e-3 if where == "device" else 0)
            assert float((targets != other_targets).float().mean()) <= (1e-3 if where == "device" else 0)


@pytest.mark.parametrize("device", [DEVICES[1]])
def test_neither_a_batch_nor_a_step_waits_for_the_gpu(tmp_path: Path, device: str) -> None:
    """PyTorch itself raises where it would wait."""
    path = tiny.write_experiment(tmp_path, AUGMENTED)
    assembly = assembled(path, f"runtime.device={device}", "runtime.cache=device")
    trainer = build_trainer(assembly)
    batches = [assembly.sampler.batch(step) for step in range(2)]
    trainer.run(batches, max_epochs=1, epoch_length=2)  # what is made once: states, kernels
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.run((assembly.sampler.batch(step) for step in range(2, 5)), max_epochs=1, epoch_length=3)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("precision", "bound"), [("float32", 5e-3), ("bfloat16", 5e-2)])
def test_losses_and_gradients_are_those_of_the_cpu(device: str, precision: Precision, bound: float) -> None:
    """Convolutions round their factors to 10 bits on a GPU (TF32), and to 8 in bfloat16; gradients as a whole."""
    source = torch.Generator().manual_seed(0)
    images = torch.randn(4, 1, 64, 64, generator=source)
    labels = (images[:, 0] > 0).long()
    losses, gradients = [], []
    for place, kind in (("cpu", "float32"), (device, precision)):
        torch.manual_seed(0)
        net = model["unet"](1, 2, width=8).to(place)
        with Options(kind).autocast(torch.device(place)):  # type: ignore[arg-type]
            logits = net(images.to(place))
        value = loss["dice_cross_entropy"](2)(logits.float(), labels.to(place))
        value.backward()
        losses.append(float(value.detach()))
        gradients.append(torch.cat([weight.grad.flatten().cpu() for weight in net.parameters()]))
    assert losses[1] == pytest.approx(losses[0], rel=bound)
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) <= 4 * bound


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="PyTorch has fewer than two GPUs here")
def test_two_gpus_end_in_the_bytes_of_one(tmp_path: Path) -> None:
    """Over NCCL."""
    for name, count in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        path = tiny.write_experiment(tmp_path / name)
        words = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={count}",
            "-m",
            "yeastexp",
            "run",
            path,
        ]
        subprocess.run([sys.executable, *words, "--set", "runtime.shards=2"], cwd=tmp_path / name, check=True)
    assert kills.differences(*(tmp_path / name / "runs" / "tiny" / "001" for name in ("one", "two"))) == []
