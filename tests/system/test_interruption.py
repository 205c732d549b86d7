"""The first signal is a wish where somebody heeds it, the second one the end."""

from __future__ import annotations

import os
import signal

import pytest

from yeastexp.system.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wish_then_the_end(number: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    with Interruption() as interruption:
        interruption.gently = True
        os.kill(os.getpid(), number)
        assert interruption.wanted
        assert capfd.readouterr().err == "stopping after this step; once more to stop at once\n"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_where_nobody_heeds_it_it_is_the_end() -> None:
    with Interruption(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
