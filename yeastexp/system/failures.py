"""One-line errors for what a machine ran out of: disk, main memory, GPU memory, or the run directory itself."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.system import memory
from yeastexp.system.files import FULL

GIB = 2**30


@contextmanager
def explained(folder: Path, tried: str = "training") -> Iterator[None]:
    """Turn errors of a full disk, of memory, or of a `folder` that is gone into UserError; `tried` used the memory."""
    # The thread of the event writer fails in the same way. Python would print its traceback, although the writer raises
    # the same error at its next call.
    told = threading.excepthook
    threading.excepthook = lambda match: None if _is_full(match.exc_value) or not folder.exists() else told(match)
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(f"{tried}: out of GPU memory; {asked(error)}{_free()}; {LOWER}", status=RUN_FAILED) from error
    except OSError as error:
        if not folder.exists():
            raise gone(folder) from error
        if error.errno is None or not _is_full(error):
            raise
        place = error.filename or folder
        remedy = f"make room, and 'resume {folder}' continues from its last checkpoint"
        raise UserError(f"{place}: {FULL[error.errno]}; {remedy}", status=RUN_FAILED) from error
    except RuntimeError as error:
        if match := WORKER.search(str(error)):
            raise UserError(
                f"[runtime] workers: process {match[1]} was ended by {match[2]}; {DIED}", status=RUN_FAILED
            ) from error
        if not memory.is_exhausted(error):
            raise
        raise UserError(f"{tried}: out of memory; {asked(error)}; {LOWER}", status=RUN_FAILED) from error
    finally:
        threading.excepthook = told


def gone(folder: Path) -> UserError:
    """Return the error for a run directory that is no longer where it was."""
    fault = "was moved or removed while the run wrote into it"
    return UserError(
        f"{folder}: {fault}; 'resume' it where it is now, and it continues from its last checkpoint", status=RUN_FAILED
    )


def _is_full(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in FULL


WORKER = re.compile(r"DataLoader worker \(pid ([\d]+)\) is killed by signal: (\w[\w ]*)")
DIED = "often because memory ran out: lower [runtime] workers or [train] batch_size"
LOWER = "lower [train] batch_size or [patches] size, or the width of the [model]"


def asked(error: BaseException) -> str:
    """Return the sentence of PyTorch's message that says how much memory was asked for."""
    sentences = str(error).replace("\n", " ").split(". ")
    found = [one for one in sentences if "allocate" in one and any(digit.isdigit() for digit in one)]
    return found[0].strip().rstrip(".") if found else sentences[0]


def _free() -> str:
    if not torch.cuda.is_available():
        return ""
    free, total = torch.cuda.mem_get_info()
    return f", {free / GIB:.1f} of {total / GIB:.1f} GiB were free"
