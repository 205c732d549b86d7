"""Other programs on the machine."""

from __future__ import annotations

from collections.abc import Callable

from ignite.engine import Engine, Events

from yeastexp.system import cores
from yeastexp.system.formatting import format_share
from yeastexp.training.step import TrainingEvents

SPAN_SECONDS = 5.0
"""So long the time is watched, at least, before anything is said of it."""


class NoticeBusy:
    """Says once in a run that other programs keep the processor busy, and what that costs."""

    def __init__(self, say: Callable[[str], None], watch: Callable[[], cores.Waiting] = cores.Waiting) -> None:
        self.say = say
        self.watch = watch
        self.told = False

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Look from time to time."""
        trainer.add_event_handler(Events.STARTED, self.start)
        trainer.add_event_handler(TrainingEvents.LOSSES_READ, self.look)

    def start(self) -> None:
        """Begin to watch."""
        self.waiting = self.watch()

    def look(self) -> None:
        """Say it, or watch anew."""
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
