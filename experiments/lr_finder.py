"""Ignite's FastaiLRFinder: the loss while the learning rate grows, on a copy of the model, before training begins."""

import csv

from ignite.engine import Events
from ignite.handlers import FastaiLRFinder

from yeastexp import handler


@handler("lr_finder")
class LRFinder:
    """Writes `lr_finder.csv` into the run, and the suggested learning rate into its log; training is not changed."""

    def __init__(self, context, start: float = 1e-6, end: float = 1.0, steps: int = 50):
        self.context, self.start, self.end, self.steps = context, start, end, steps

    def attach(self, trainer, validator):
        trainer.add_event_handler(Events.STARTED, self.find)

    def find(self, trainer):
        if trainer.state.iteration:
            return  # a run that is resumed has its curve
        finder, batches = FastaiLRFinder(), list(self.context.batches(0, self.steps))
        with self.context.trial() as (trial, model, optimizer):
            kept = {"model": model, "optimizer": optimizer}
            with finder.attach(trial, kept, num_iter=self.steps, start_lr=self.start, end_lr=self.end) as finding:
                finding.run(batches, max_epochs=1)
        curve = finder.get_results()
        with (self.context.folder / "lr_finder.csv").open("w", newline="") as file:
            rows = zip(curve["lr"], curve["loss"], strict=True)
            csv.writer(file).writerows([("learning_rate", "loss"), *([rate[0], loss] for rate, loss in rows)])
        self.context.log(f"lr_finder: suggested learning rate {finder.lr_suggestion()[0]:.2g}")
