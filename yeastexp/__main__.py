"""The entrance: `python -m yeastexp` and the console script. The commands are in `yeastexp.cli`."""

from __future__ import annotations

import sys
import time

STARTED = time.monotonic()  # first of all: a budget counts from here

try:
    from yeastexp import cli
except KeyboardInterrupt:  # which `cli.main` answers later
    from yeastexp.system.terminal import echo

    echo("interrupted", err=True)
    sys.exit(130)


def main() -> None:
    """Run the command that the program was called with."""
    cli.main(STARTED)


if __name__ == "__main__":
    main()
