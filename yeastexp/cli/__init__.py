"""The command line: one function per command, its options beside it.

`yeastexp --help` must answer at once, so the package's modules are imported inside the functions that need them.
"""

from __future__ import annotations

import errno
import io
import sys
import time
import warnings
from typing import NoReturn

import click

from yeastexp.cli import data, look, score, share, sweeps, train
from yeastexp.cli.installed import CommandGroup
from yeastexp.errors import INTERRUPTED, RUN_FAILED, UserError
from yeastexp.exercise.cli import study
from yeastexp.system import loading, processes
from yeastexp.system.files import FULL
from yeastexp.system.interruption import sigterm_as_ctrl_c
from yeastexp.system.processes import EndedElsewhere
from yeastexp.system.terminal import echo, echo_traceback

__all__ = ["commands", "main"]

SHARED = ("run", "resume", "sweep", "crossval", "evaluate")
"""The commands that several processes do together, if torchrun or srun started several."""

OUT_OF_MEMORY_REMEDY = "try smaller images, or a smaller [patches] size"


def _version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Print the version, also that of a checkout which is not installed, and exit."""
    if value and not context.resilient_parsing:
        from yeastexp.inspection.doctor import version

        echo(f"yeastexp, version {version()}")
        context.exit()


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.pass_context
def commands(context: click.Context) -> None:
    """Experiments in microscopy segmentation: one TOML file, one repeatable run.

    Example: python -m yeastexp run experiments/base.toml
    """
    context.obj = time.monotonic() if context.obj is None else context.obj  # when the program started
    if context.invoked_subcommand not in SHARED:
        processes.refuse_launched(context.invoked_subcommand or "")


for command in (
    *(train.run, train.resume, train.verify, train.crossval, sweeps.sweep),
    *(data.pack, data.normalize, data.synth, data.fetch),
    *(score.evaluate, score.compare, score.predict, score.report, share.export),
    *(look.doctor, look.new, look.check, look.inspect, look.preview, look.list_parts, look.schema),
    # The studies use the package as a third party would, but entry points exist only where it is installed, and
    # `python -m yeastexp study` has to work from a plain checkout as well.
    study,
):
    commands.add_command(command)


def main(started: float) -> None:
    """Run a command and exit with its status; faults of the user are lines on stderr, bugs keep their traceback.

    `started` is the `time.monotonic()` at which the program started.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # paths that are not UTF-8 are printed as they are
    sys.excepthook = echo_traceback
    try:
        with sigterm_as_ctrl_c(), warnings.catch_warnings(), loading.told(started):
            warnings.showwarning = _show_warning
            # Not in standalone mode, in which click itself would handle errors, print some of them and exit with 1.
            commands(standalone_mode=False, obj=started)
    except EndedElsewhere as error:
        sys.exit(error.status)
    except UserError as error:
        _fail(*error.faults, status=error.status)
    except click.ClickException as error:
        error.show(shown := io.StringIO())
        echo(*shown.getvalue().splitlines(), err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", status=INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has ended; before OSError, its base class
        sys.exit(RUN_FAILED)
    except MemoryError as error:
        asked = f" ({error})" if str(error) else ""
        _fail(f"out of memory{asked}; {OUT_OF_MEMORY_REMEDY}")
    except RuntimeError as error:
        _fail_if_out_of_memory(error)
        raise
    except OSError as error:
        if error.errno in FULL:
            place = f"{error.filename}: " if error.filename else ""
            _fail(f"{place}{FULL[error.errno]}; make room, or name another place")
        if error.filename is None:
            raise  # only what the system says of a file is not a bug
        remedy = "move that folder away" if error.errno == errno.EISDIR else "name another place"
        _fail(f"{error.filename}: {error.strerror}; {remedy}")


def _fail_if_out_of_memory(error: RuntimeError) -> None:
    """Exit with a line if an error of PyTorch says that memory is exhausted."""
    # Imported here: these modules load PyTorch, which most commands that fail early never needed.
    from yeastexp.system import failures, memory

    if memory.is_exhausted(error):
        _fail(f"out of memory ({failures.asked(error)}); {OUT_OF_MEMORY_REMEDY}")


def _fail(*faults: str, status: int = RUN_FAILED) -> NoReturn:
    echo(*faults, err=True)
    sys.exit(status)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    """Print a warning on one line, without the place in the program that raised it."""
    echo(f"warning: {' '.join(str(message).split())}", err=True)
