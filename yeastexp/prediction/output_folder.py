"""The record of an output folder: which run its results come from, and which files predictions wrote into it."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from yeastexp.errors import UserError
from yeastexp.system import files

ORIGIN = ".predicted.json"
"""The file in an output folder that says which run and checkpoint its results come from."""


class OutputFolder:
    """A folder that predictions are written into; its record names their files before the first one is written.

    `checkpoint` is the digest of the weights that predict. A record without a checkpoint is of calls without a result.
    Of each file the record has the contents, digests of the images and options that its ids come from: those of the
    last call that has written all of its files, and those of each call since that was to write this one.
    """

    def __init__(self, path: Path, run: Path, checkpoint: str) -> None:
        self.path = path
        self.origin = {"run": str(run), "checkpoint": checkpoint}
        self.planned: dict[str, str] = {}
        self._claimed = self._has_result = False
        self._missing = [each for each in (path, *path.parents) if not each.exists()]

    def refuse_other_run(self, table: Path) -> None:
        """Raise UserError if the folder has results of another checkpoint, or of an unknown one, or is a file."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: is a file, but results are written into a folder; name one")
        record = self._record()
        if "run" not in record or "checkpoint" not in record:
            if table.exists():
                raise UserError(
                    f"{table}: is of a run that is not known; name another folder, or remove the results here"
                )
        elif record["checkpoint"] != self.origin["checkpoint"] and (self._present(record) or not record["files"]):
            run = record["run"]
            raise UserError(f"{self.path}: holds results of another run or checkpoint ({run}); name another folder")

    def plan(self, targets: dict[Path, str], exported: dict[Path, str], present: Collection[str]) -> None:
        """Take the files that a call writes, and those or the folders that it exports, each with its contents.

        Raises UserError if a file is there that no prediction wrote, or one that this call does not write and whose
        contents are not `present` any more.
        """
        self.planned = {self._name(target): contents for target, contents in (targets | exported).items()}
        # Looked for before the record is read: what another part writes meanwhile is in the record by then. Not by
        # Path, which raises where a name is too long: that is told with the image.
        there = [target for target in (*targets, *exported) if os.path.isfile(target)]  # noqa: PTH113
        there += [target for target in exported if target.is_dir() and any(target.iterdir())]
        record = self._record()
        if foreign := [target for target in there if self._name(target) not in record["files"]]:
            more = f" (as do {len(foreign) - 1} more)" if len(foreign) > 1 else ""
            raise UserError(f"{foreign[0]}: exists{more}, and no prediction wrote it; name another folder, or move it")
        others = [name for name in self._present(record) if name not in self.planned]
        if left := [name for name in others if not set(record["files"][name]) <= set(present)]:
            more = f" (and so are {len(left) - 1} more)" if len(left) > 1 else ""
            raise UserError(
                f"{self.path / left[0]}: is of an earlier prediction of other images or options{more}, and its ids are "
                "not those of this one; add the options that write it, remove it, or name another folder"
            )

    def claim(self, *, result: bool = False) -> None:
        """Record what is about to be written, and with the first `result` whose it is; raises OSError."""
        if self._has_result or (self._claimed and not result):
            return
        self._claimed, self._has_result = True, result
        record = self._record()
        known = dict(record["files"])
        for name, contents in self.planned.items():
            known[name] = [*dict.fromkeys([*known.get(name, ()), contents])]
        self._write({**record, **(self.origin if result else {}), "files": known})

    def withdraw(self) -> None:
        """Remove the record if it is of no result and no file, and the folder if this call made it."""
        # A record that this call did not write is of another part, whose first file is about to appear.
        record = self._record() if self._claimed else self.origin
        with suppress(OSError):
            if "checkpoint" not in record and not self._present(record):
                (self.path / ORIGIN).unlink()
                for folder in self._missing:
                    folder.rmdir()

    def settle(self, *, complete: bool) -> None:
        """Forget files that are not there, whose names others may take, and what they held before; raises OSError."""
        record = self._record()
        there = {name: record["files"][name] for name in self._present(record)}
        if complete:
            there |= {name: [contents] for name, contents in self.planned.items() if name in there}
        if record["files"]:
            self._write({**record, "files": there})

    def _present(self, record: Mapping[str, Any]) -> list[str]:
        return [name for name in record["files"] if os.path.lexists(self.path / name)]

    def _name(self, target: Path) -> str:
        return target.relative_to(self.path).as_posix()

    def _record(self) -> dict[str, Any]:
        """Return the record; without files and a run if it is not there or damaged."""
        try:
            record = json.loads((self.path / ORIGIN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            record = None
        if not isinstance(record, dict):
            return {"files": {}}
        if isinstance(record.get("files"), dict):
            return record
        # Records of earlier versions do not say what the files are of, or not even which ones predictions wrote.
        origin = {key: record[key] for key in self.origin if key in record}
        written = record.get("files", self._all() if origin else [])
        return {**origin, "files": {name: [] for name in written}}

    def _all(self) -> Iterator[str]:
        """Yield all files in the folder, and folders in it."""
        for place, folders, names in os.walk(self.path):
            yield from (self._name(Path(place, name)) for name in (*folders, *names) if name != ORIGIN)

    def _write(self, record: Mapping[str, Any]) -> None:
        """Replace the record, if it is another; raises OSError."""
        record = {**record, "files": dict(sorted(record["files"].items()))}
        if record != self._record() or not (self.path / ORIGIN).exists():
            files.write_text(self.path / ORIGIN, json.dumps(record))
