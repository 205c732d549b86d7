"""Reading the small JSON and CSV files of a run, with a one-line error for anything that is wrong with them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from yeastexp.errors import UserError


def read_json(path: Path, shape: TypeAdapter[Any], remedy: str) -> dict[str, Any]:
    """Return all of a JSON file. Raises UserError if it cannot be read, or does not have the keys of `shape`."""
    try:
        found: dict[str, Any] = json.loads(_text(path, remedy))
        shape.validate_python(found, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise damaged(path, f"{place}: {first['msg']}" if place else first["msg"], remedy) from None
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"no JSON: {error}", remedy) from None
    return found


def read_table(path: Path, columns: Iterable[str], remedy: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file. Raises UserError if one of `columns` is missing, or a row has another length."""
    # `restkey` and `restval` make rows that are too long or too short recognisable: by a further key, and by None.
    try:
        reader = csv.DictReader(io.StringIO(_text(path, remedy), newline=""), restkey="", restval=None, strict=True)
        rows, names = list(reader), reader.fieldnames or []
    except csv.Error as error:
        raise damaged(path, f"no table: {error}", remedy) from None
    if lacking := [column for column in columns if column not in names]:
        raise damaged(path, f"no column '{lacking[0]}'", remedy)
    for number, row in enumerate(rows, 1):
        if None in row.values() or len(row) != len(names):
            raise damaged(path, f"row {number} has not {len(names)} cells", remedy)
    return rows


def number(path: Path, cell: str, remedy: str) -> float | None:
    """Return the number in a cell, None if the cell is empty. Raises UserError if it is no number."""
    try:
        return float(cell) if cell else None
    except ValueError:
        raise damaged(path, f"'{cell[:40]}' is no number", remedy) from None


def damaged(path: Path, fault: str, remedy: str) -> UserError:
    """Return the error that names a damaged file, the fault and the remedy."""
    return UserError(f"{path}: is damaged ({fault}); {remedy}")


def _text(path: Path, remedy: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; {remedy}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    except UnicodeDecodeError as error:
        raise damaged(path, f"byte {error.start} is no UTF-8", remedy) from None
