"""One thread that does what need not be waited for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Act = Callable[[], object]

WAITING = 1000
"""Acts that wait for their turn at most; who gives one more waits with them."""


class Background:
    """Does acts in their order on a thread of its own.

    What one of them raises is raised where the next is given or all are waited for; those behind it are left undone.
    """

    def __init__(self) -> None:
        self.acts: queue.Queue[Act | None] = queue.Queue(WAITING)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._work, name="yeastexp-background", daemon=True)
        self.thread.start()

    def do(self, act: Act) -> None:
        """Have an act done."""
        self._raise()
        self.acts.put(act)

    def wait(self) -> None:
        """Come back when all acts are done."""
        self.acts.join()
        self._raise()

    def close(self) -> None:
        """Finish the acts and the thread; a fault that nobody asked for is dropped."""
        self.acts.put(None)
        self.thread.join()

    def _raise(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        while (act := self.acts.get()) is not None:
            try:
                if self.error is None:
                    act()
            except BaseException as error:
                self.error = error
            finally:
                self.acts.task_done()
