"""The entrance: `python -m yeastexp` and the console script. The commands are in `yeastexp.cli`."""

from __future__ import annotations

import time

STARTED = time.monotonic()  # first of all: a budget counts from here

from yeastexp import cli  # noqa: E402


def main() -> None:
    """Run the command that the program was called with."""
    cli.main(STARTED)


if __name__ == "__main__":
    main()
