"""Lightning's trainer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.measuring import Tick
from benchmarks.training import Setting, batches, model, optimizer

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


class Module(lightning.LightningModule):  # type: ignore[misc]  # it may not be installed where types are checked
    """The U-Net and its loss."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.net = model(setting)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """The loss of a batch."""
        images, labels = batch
        return functional.cross_entropy(self.net(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer of every contender."""
        return optimizer(self.net)


class Batches(IterableDataset[tuple[Tensor, Tensor]]):
    """The batches without end."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return batches(self.setting)


class Counted(lightning.Callback):  # type: ignore[misc]
    """Tells of every step."""

    def __init__(self, tick: Tick) -> None:
        self.tick = tick

    def on_train_batch_end(self, *states: Any) -> None:
        """One more."""
        self.tick()


def train(tick: Tick, setting: Setting) -> None:
    """`Trainer` with its defaults, but for progress bar, logger and checkpoints, which are off."""
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Counted(tick)],
    )
    trainer.fit(Module(setting), DataLoader(Batches(setting), batch_size=None))
