"""Other programs on the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ignite.engine import Engine, Events

from yeastexp.system import cores
from yeastexp.system.formatting import format_share
from yeastexp.training.step import TrainingEvents

SPAN_SECONDS = 5.0
"""So long the time is watched, at least, before anything is said of it."""

BUSY = 0.2
"""Share of the time spent waiting for a core from which on a machine counts as busy."""


class NoticeBusy:
    """Says once in a run that other programs keep the processor busy, and what that costs."""

    def __init__(
        self, say: Callable[[str], None], waits: Callable[[], Mapping[str, float]] = cores.seconds_waited
    ) -> None:
        self.say = say
        self.waits = waits
        self.told = False

    def attach(self, trainer: Engine, validator: Engine) -> None:
        """Look from time to time."""
        trainer.add_event_handler(Events.STARTED, self.start)
        trainer.add_event_handler(TrainingEvents.LOSSES_READ, self.look)

    def start(self) -> None:
        """Begin to watch."""
        self.began, self.before = time.monotonic(), self.waits()

    def look(self) -> None:
        """Say it if the thread that waited longest did so for much of the time; or watch anew."""
        seconds = time.monotonic() - self.began
        if self.told or seconds < SPAN_SECONDS:
            return
        waits = [waited - self.before[thread] for thread, waited in self.waits().items() if thread in self.before]
        share = min(max(waits, default=0.0) / seconds, 0.99)
        if share > BUSY:
            self.told = True
            self.say(
                f"the machine is busy: {format_share(share)} of the time goes by in waiting for a processor core, so "
                f"steps take {1 / (1 - share):.1f} times as long as they would alone"
            )
        else:
            self.start()
