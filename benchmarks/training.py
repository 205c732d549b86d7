"""Training steps a second: the same U-Net, windows and optimizer in a bare loop, in yeastexp and in other trainers."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ignite.engine
import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measuring import Contender, Tick, machine, measure, table
from yeastexp.config.loading import load_experiment
from yeastexp.data import hdf5_file
from yeastexp.nets.optimizers import adamw
from yeastexp.nets.unet import UNet
from yeastexp.training import build
from yeastexp.training.context import RunContext
from yeastexp.training.device import configure_torch
from yeastexp.training.loop import begin, train
from yeastexp.training.optimization import Options, Precision
from yeastexp.training.run_directory import RunDirectory

LEARNING_RATE = 1e-3

EXPERIMENT = """\
[task]
channels = 1
classes = ["background", "cell"]
[dataset]
name = "hdf5"
path = "data.h5"
[model]
name = "unet"
width = {width}
[loss]
name = "cross_entropy"
[optimizer]
name = "adamw"
learning_rate = {rate}
[[metric]]
name = "iou"
[train]
epochs = 1
batch_size = {batch}
precision = "{precision}"
[patches]
size = {window}
stride = {stride}
[runtime]
threads = {threads}
device = "{device}"
"""

AUGMENTATIONS = "".join(
    f'\n[[augment]]\nname = "{name}"\n'
    for name in ("reflect", "rotate90", "affine", "elastic", "gaussian_noise", "brightness_contrast")
)
"""A part of every sort."""


@dataclass(frozen=True)
class Setting:
    """Windows and width of the net; `folder` has the images, `stride` pixels between windows make an endless epoch."""

    title: str
    batch: int
    window: int
    width: int
    stride: int
    images: int = 16
    side: int = 512
    device: str = "cpu"
    precision: Precision = "float32"
    folder: Path = Path()

    def write(self) -> None:
        """The images, and the experiment that trains on them, in the folder."""
        names = [f"noise_{index}" for index in range(self.images + 1)]
        splits = {"train": names[:-1], "val": names[-1:]}
        hdf5_file.write(self.folder / "data.h5", splits, self._image, provenance={})
        text = EXPERIMENT.format(**vars(self), rate=LEARNING_RATE, threads=torch.get_num_threads())
        (self.folder / "experiment.toml").write_text(text, encoding="utf-8")
        (self.folder / "augmented.toml").write_text(text + AUGMENTATIONS, encoding="utf-8")

    def _image(self, name: str) -> dict[str, np.ndarray]:
        source = np.random.default_rng(int(name.removeprefix("noise_")))
        truth = source.random((self.side, self.side)) < 0.3
        return {"raw": source.normal(truth, 1).astype(np.float32), "gt": truth.astype(np.uint8)}


SETTINGS = (
    Setting("ordinary step: batch 8 of 128², width 8", batch=8, window=128, width=8, stride=8),
    Setting("tiny step: batch 2 of 32², width 4", batch=2, window=32, width=4, stride=8),
)
ON_GPU = Setting(
    "on a GPU: batch 16 of 256², width 32, bfloat16, images on the device",
    batch=16,
    window=256,
    width=32,
    stride=8,
    device="cuda",
    precision="bfloat16",
)
UNITS = {8: 8, 2: 100, 16: 50}
"""Steps of a round, by batch: about a second."""

CONTENDERS = (
    Contender("bare loop", "benchmarks.training:bare"),
    Contender("yeastexp", "benchmarks.training:yeastexp"),
    Contender("Ignite", "benchmarks.training:plain_ignite"),
    Contender("Lightning", "benchmarks.peers.lightning_trainer:train"),
    Contender("MONAI", "benchmarks.peers.monai_trainer:train"),
)
GPU_CONTENDERS = (*CONTENDERS[:2], Contender("yeastexp, six augmentations", "benchmarks.training:augmented"))


def model(setting: Setting) -> nn.Module:
    """The U-Net as every contender trains it."""
    torch.manual_seed(0)
    made = UNet(1, 2, setting.width).to(setting.device)
    laid: nn.Module = made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return laid


def optimizer(of: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of every contender."""
    return adamw(of.parameters(), LEARNING_RATE)


def batches(setting: Setting) -> Iterator[tuple[Tensor, Tensor]]:
    """Windows in random order, cut from images on the device as by hand: (B, 1, h, w) and labels (B, h, w)."""
    reader = hdf5_file.Reader(setting.folder / "data.h5")
    read = [reader.read(f"noise_{index}") for index in range(setting.images)]
    images = torch.stack([torch.from_numpy(one["raw"]).float() for one in read]).to(setting.device)
    labels = torch.stack([torch.from_numpy(one["gt"]).long() for one in read]).to(setting.device)
    source, side = np.random.default_rng(0), setting.window
    places = -(-(setting.side - side) // setting.stride) + 1
    while True:
        chosen = source.integers((setting.images, places, places), size=(setting.batch, 3)).tolist()
        corners = [(image, row * setting.stride, column * setting.stride) for image, row, column in chosen]
        windows = [images[i, :, y : y + side, x : x + side] for i, y, x in corners]
        truth = [labels[i, y : y + side, x : x + side] for i, y, x in corners]
        yield torch.stack(windows), torch.stack(truth)


def bare(tick: Tick, setting: Setting) -> None:
    """The loop that PyTorch's tutorials show."""
    settle_on(tick, setting)
    net = model(setting).train()
    changes = optimizer(net)
    mixed = Options(precision=setting.precision).autocast(torch.device(setting.device))
    for images, labels in batches(setting):
        changes.zero_grad()
        with mixed:
            logits = net(images)
        loss = functional.cross_entropy(logits.float(), labels)
        loss.backward()
        changes.step()
        tick()


def settle_on(tick: Tick, setting: Setting) -> None:
    """Have rounds end when a GPU is done."""
    if setting.device == "cuda":
        tick.settle = torch.cuda.synchronize


def yeastexp(tick: Tick, setting: Setting, file: str = "experiment.toml") -> None:
    """A run as the command line makes it, in the middle of an epoch: its checks, logs and progress bar included."""
    settle_on(tick, setting)

    def late(step: int) -> bool:
        tick()
        return False

    os.chdir(setting.folder)
    loaded = configure_torch(load_experiment(Path(file)))
    directory = RunDirectory(Path(tempfile.mkdtemp(dir=setting.folder)))
    run = RunContext(build.assemble(loaded), directory, Console(stderr=True), time.monotonic(), late)
    begin(run)
    train(run)


def augmented(tick: Tick, setting: Setting) -> None:
    """The same with augmentations, which the other contenders do without."""
    yeastexp(tick, setting, "augmented.toml")


def plain_ignite(tick: Tick, setting: Setting) -> None:
    """Ignite's own trainer, as its guide makes it."""
    net = model(setting)
    engine = ignite.engine.create_supervised_trainer(net, optimizer(net), functional.cross_entropy)
    engine.add_event_handler(ignite.engine.Events.ITERATION_COMPLETED, lambda: tick())
    engine.run(batches(setting), max_epochs=1, epoch_length=10**9)


def report(
    settings: Sequence[Setting] = SETTINGS, contenders: Sequence[Contender] = CONTENDERS, rounds: int = 9
) -> str:
    """Markdown: a table a setting, one of them on a GPU where there is one, and the machine."""
    parts = [_compared(setting, contenders, rounds) for setting in settings]
    if torch.cuda.is_available():
        parts.append(f"{_compared(ON_GPU, GPU_CONTENDERS, rounds)}\n\n{torch.cuda.get_device_name()}")
    else:
        parts.append(f"### {ON_GPU.title}\n\nSkipped: PyTorch finds no GPU.")
    return "\n\n".join([*parts, machine()])


def _compared(setting: Setting, contenders: Sequence[Contender], rounds: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        set_up = replace(setting, folder=Path(folder))
        set_up.write()
        units = UNITS.get(setting.batch, 2)
        results = measure(contenders, set_up, rounds=rounds, units=units, warm_up=units + 2)
    return f"### {setting.title}\n\n{table(results, contenders[0].name, 'steps')}"
