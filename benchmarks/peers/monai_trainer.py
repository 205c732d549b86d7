"""MONAI's trainer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch.nn import functional

from benchmarks.measuring import Tick
from benchmarks.training import Setting, batches, model, optimizer


class Batches:
    """An endless loader of the dictionaries that MONAI's trainer takes."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return ({"image": images, "label": labels} for images, labels in batches(self.setting))


def train(tick: Tick, setting: Setting) -> None:
    """`SupervisedTrainer` with its defaults."""
    net = model(setting)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=Batches(setting),
        epoch_length=10**9,
        network=net,
        optimizer=optimizer(net),
        loss_function=functional.cross_entropy,
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: tick())
    trainer.run()
