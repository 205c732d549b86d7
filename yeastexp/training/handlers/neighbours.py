"""A note to the user if other programs keep the processor busy."""

from __future__ import annotations

from collections.abc import Callable

from ignite.engine import Engine, Events

from yeastexp.system import cores
from yeastexp.system.formatting import format_share
from yeastexp.training.step import TrainingEvents

SPAN_SECONDS = 5.0
"""The shortest span over which waiting for a core is judged."""


class NoticeBusy:
    """Says once in a run that other programs keep the processor busy, and how much slower steps are for it."""

    def __init__(self, say: Callable[[str], None], watch: Callable[[], cores.Waiting] = cores.Waiting) -> None:
        self.say = say
        self.watch = watch
        self.told = False

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Judge the time since the start whenever losses are read."""
        trainer.add_event_handler(Events.STARTED, self.start)
        trainer.add_event_handler(TrainingEvents.LOSSES_READ, self.look)

    def start(self) -> None:
        """Begin a new span."""
        self.waiting = self.watch()

    def look(self) -> None:
        """Judge a span that is long enough; if the machine was not busy in it, begin another."""
        if self.told or self.waiting.seconds < SPAN_SECONDS:
            return
        share = self.waiting.share
        if share > cores.BUSY:
            self.told = True
            self.say(
                f"the machine is busy: {format_share(share)} of the time goes by in waiting for a processor core, so "
                f"steps take {1 / (1 - share):.1f} times as long as they would alone"
            )
        else:
            self.start()
