"""Megapixels a second of a large image through a net, how far from the whole image's answer, and what growth costs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measuring import Contender, Measured, Result, Tick, machine, measure, table
from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.data.pieces import Pieces
from yeastexp.export.formats import Onnx, example
from yeastexp.export.network import Deployed
from yeastexp.nets.unet import UNet
from yeastexp.prediction.exported import IMAGE, OnnxNetwork
from yeastexp.prediction.tiling import Tiling, assemble
from yeastexp.prediction.tiling import run as at_once
from yeastexp.training.run import run

WEIGHTS = "weights.pt"
TILE = 256
SIDES = (1024, 2048, 4096)

EXPERIMENT = """\
[task]
channels = 1
classes = ["background", "cell"]
[dataset]
name = "synthetic_yeast"
images = 4
size = 128
[[transform]]
name = "zscore"
[model]
name = "unet"
width = {width}
[loss]
name = "cross_entropy"
[optimizer]
name = "adamw"
[[metric]]
name = "iou"
[train]
steps = 40
"""


@dataclass(frozen=True)
class Setting:
    """A square image of synthetic yeast through a U-Net that was trained for some steps; `folder` has its weights."""

    side: int = 2048
    width: int = 16
    steps: int = 60
    folder: Path = Path()

    def prepare(self) -> None:
        """Train the net on windows of another image, so that its logits are no noise."""
        torch.manual_seed(0)
        net = UNet(1, 2, self.width).train()
        image, labels = field(512, seed=1)
        changes = torch.optim.AdamW(net.parameters(), 3e-3)
        for _ in range(self.steps):
            corners = torch.randint(512 - 128, (4, 2)).tolist()
            windows = torch.stack([image[:, y : y + 128, x : x + 128] for y, x in corners])
            truth = torch.stack([labels[y : y + 128, x : x + 128] for y, x in corners])
            changes.zero_grad()
            functional.cross_entropy(net(windows), truth).backward()
            changes.step()
        torch.save(net.state_dict(), self.folder / WEIGHTS)

    def answer(self, name: str) -> Path:
        """Where a contender leaves its logits."""
        return self.folder / f"{name}.npy"


CONTENDERS = (
    Contender("whole image", "benchmarks.prediction:whole"),
    Contender("yeastexp, exact tiles", "benchmarks.prediction:tiled"),
    Contender("ONNX Runtime, whole image", "benchmarks.prediction:by_onnx_runtime"),
    Contender("MONAI, windows of 256²", "benchmarks.peers.monai_inferer:windows_of_256"),
    Contender("MONAI, windows of 512²", "benchmarks.peers.monai_inferer:windows_of_512"),
)


def field(side: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A normalised image (1, H, W) and its labels."""
    sample = SyntheticYeast(2, side, seed).read("yeast_000")
    return (sample.image - sample.image.mean()) / sample.image.std(), sample.labels


def prepared(setting: Setting) -> tuple[nn.Module, Tensor]:
    """The net, its channels last as trained, and the image of every contender."""
    net: nn.Module = UNet(1, 2, setting.width)
    net.load_state_dict(torch.load(setting.folder / WEIGHTS, weights_only=True))
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stub knows no such call
    return net.eval(), field(setting.side)[0]


def keep(setting: Setting, name: str, logits: Tensor) -> None:
    """Leave the logits (K, H, W) for comparison, once."""
    if not setting.answer(name).exists():
        np.save(setting.answer(name), logits.numpy())


def whole(tick: Tick, setting: Setting) -> None:
    """One pass of the net over all of it."""
    net, image = prepared(setting)
    while True:
        logits = at_once(net, image)
        keep(setting, CONTENDERS[0].name, logits)
        tick()


def tiled(tick: Tick, setting: Setting) -> None:
    """Pieces with margins as wide as the receptive field, which is read off the net once, as `predict` does it."""
    net, image = prepared(setting)
    pieces = Pieces((setting.side, setting.side), lambda rows, columns: image[:, rows, columns])
    tiling = Tiling.of(net, 1)
    while True:
        tile = tiling.tile(pieces.size, torch.device("cpu"))
        logits = assemble(tiling.logits(pieces, tile), tile)
        keep(setting, CONTENDERS[1].name, logits)
        tick()


def by_onnx_runtime(tick: Tick, setting: Setting) -> None:
    """The net exported as `export` does it, over all of the image."""
    net, image = prepared(setting)
    deployed = Deployed(nn.Sequential(), net.to(memory_format=torch.contiguous_format)).eval()  # type: ignore[call-overload]
    exported = OnnxNetwork(Onnx(deployed, example(1, 16)).bare(), IMAGE, multiple=1, smallest=1)
    while True:
        logits = at_once(exported, image)
        keep(setting, CONTENDERS[2].name, logits)
        tick()


def deviations(setting: Setting, results: dict[str, Result]) -> str:
    """Markdown: how far logits and labels are from those of the whole image."""
    lines = ["| | largest deviation of a logit | labels that differ |", "| --- | ---: | ---: |"]
    expected = np.load(setting.answer(CONTENDERS[0].name))
    for name, result in results.items():
        if isinstance(result, Measured) and name != CONTENDERS[0].name:
            found = np.load(setting.answer(name))
            labels = (found.argmax(axis=0) != expected.argmax(axis=0)).mean()
            lines.append(f"| {name} | {np.abs(found - expected).max():.2g} | {labels:.3%} |")
    return "\n".join(
        [*lines, "", f"The logits of the whole image range from {expected.min():.2g} to {expected.max():.2g}."]
    )


def growth(sides: Sequence[int], width: int) -> str:
    """Markdown: seconds and peak memory of `predict`, a process a square image, from file to file."""
    lines = ["| pixels | seconds | megapixels/s | peak memory, MB |", "| --- | ---: | ---: | ---: |"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_directory = trained(folder, width)
        for side in sides:
            path = folder / f"{side}.tif"
            write_field(path, side)
            seconds, peak_mb = _predicted(run_directory, path, folder / "masks")
            lines.append(f"| {side}² | {seconds:.1f} | {side**2 / 1e6 / seconds:.2f} | {peak_mb:.0f} |")
            path.unlink()
    return "\n".join(lines)


def trained(folder: Path, width: int) -> Path:
    """A run directory of a few steps, so that masks are no noise."""
    path = folder / "experiment.toml"
    path.write_text(EXPERIMENT.format(width=width), encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        return run(path, console=Console(quiet=True)).resolve()
    finally:
        os.chdir(before)


def write_field(path: Path, side: int) -> None:
    """A tiled TIFF file of 16 bit that shows one field of synthetic yeast again and again."""
    grey = SyntheticYeast(2, 1024, 0).read("yeast_000").image[0].numpy().astype(np.uint16)

    def tiles() -> Iterator[np.ndarray]:
        for row in range(0, side, TILE):
            for column in range(0, side, TILE):
                y, x = row % 1024, column % 1024
                yield grey[y : y + TILE, x : x + TILE]

    tifffile.imwrite(path, tiles(), shape=(side, side), dtype=np.uint16, tile=(TILE, TILE), photometric="minisblack")


def _predicted(run_directory: Path, image: Path, output: Path) -> tuple[float, float]:
    """Seconds of the command line and the largest memory of its process, in MB."""
    began = time.monotonic()
    words = [sys.executable, "-m", "yeastexp", "predict", str(run_directory), str(image), "-o", str(output)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return time.monotonic() - began, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def report(
    setting: Setting | None = None,
    contenders: Sequence[Contender] = CONTENDERS,
    rounds: int = 9,
    sides: Sequence[int] = SIDES,
) -> str:
    """Markdown: three tables and the machine."""
    with tempfile.TemporaryDirectory() as folder:
        set_up = replace(setting or Setting(), folder=Path(folder))
        set_up.prepare()
        results = measure(contenders, set_up, rounds=rounds, units=1, warm_up=1)
        apart = deviations(set_up, results)
    return "\n\n".join(
        [
            f"### {set_up.side}² pixels through a U-Net of width {set_up.width}",
            table(results, contenders[0].name, "kilopixels", set_up.side**2 // 1000),
            apart,
            "### `predict`, from file to file",
            growth(sides, set_up.width),
            machine(),
        ]
    )
