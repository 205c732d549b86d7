"""TIFF files that grow, and what a killed process leaves of them."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from filelock import FileLock

from yeastexp.data import tiff_file
from yeastexp.errors import UserError
from yeastexp.prediction import growing_tiff
from yeastexp.prediction.growing_tiff import GrowingTiffs

SIZE = (150, 203)
GREY = np.random.default_rng(0).integers(0, 65536, SIZE).astype(np.uint16)
LABELS = (GREY % 3).astype(np.uint8)
SHARES = np.stack([GREY, GREY // 2]).astype(np.float32)
CELLS = [(rows, columns) for rows in (slice(0, 128), slice(128, 150)) for columns in (slice(0, 192), slice(192, 203))]


def forms(folder: Path) -> dict[Path, tuple[tuple[int, ...], Any]]:
    return {folder / "m.tif": (SIZE, np.uint8), folder / "p" / "m.tif": ((2, *SIZE), np.float32)}


def write(tiffs: GrowingTiffs, cells: list[tuple[slice, slice]]) -> None:
    mask, shares = tiffs.arrays()
    for rows, columns in cells:
        mask[rows, columns] = LABELS[rows, columns]
        shares[:, rows, columns] = SHARES[:, rows, columns]


def test_files_grow_hidden_and_appear_whole(tmp_path: Path) -> None:
    with growing_tiff.growing(forms(tmp_path), {"a": 1}) as tiffs:
        write(tiffs, CELLS)
        tiffs.keep(150, 2.5)
        assert not (tmp_path / "m.tif").exists() and not (tmp_path / "p" / "m.tif").exists()
        tiffs.appear({"cells": 7})
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "m.tif"), LABELS, strict=True)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "p" / "m.tif"), SHARES, strict=True)
    np.testing.assert_array_equal(tiff_file.stored_image(tmp_path / "m.tif").whole[0], LABELS, strict=True)
    targets = list(forms(tmp_path))
    assert growing_tiff.finished(targets, {"a": 1}) == {"cells": 7}
    assert growing_tiff.finished(targets, {"a": 2}) is None
    growing_tiff.record_of(targets[0]).unlink()
    assert growing_tiff.finished(targets, {"a": 1}) is None
    assert sorted(str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*")) == ["m.tif", "p", "p/m.tif"]


def test_the_next_process_goes_on_where_one_ended(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), growing_tiff.growing(forms(tmp_path), {"a": 1}) as tiffs:
        write(tiffs, CELLS[:2])
        tiffs.keep(128, 2.5)
        tiffs.arrays()[0][CELLS[2]] = LABELS[CELLS[2]] + 1  # in the middle of a band
        raise KeyboardInterrupt
    assert not (tmp_path / "m.tif").exists()
    with growing_tiff.growing(forms(tmp_path), {"a": 1}) as tiffs:
        assert (tiffs.rows, tiffs.seconds) == (128, 2.5)
        write(tiffs, CELLS[2:])
        tiffs.appear({})
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "m.tif"), LABELS)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "p" / "m.tif"), SHARES)


@pytest.mark.parametrize("change", ["identity", "lost", "spoilt"])
def test_what_was_left_by_something_else_is_begun_again(tmp_path: Path, change: str) -> None:
    with growing_tiff.growing(forms(tmp_path), {"a": 1}) as tiffs:
        write(tiffs, CELLS)
        tiffs.keep(128, 2.5)
    if change == "lost":
        tiffs.parts[tmp_path / "p" / "m.tif"].unlink()
    if change == "spoilt":
        tiffs.record.write_text("[]")
    with growing_tiff.growing(forms(tmp_path), {"a": 2 if change == "identity" else 1}) as tiffs:
        assert (tiffs.rows, tiffs.seconds) == (0, 0.0)
        tiffs.keep(0, 0.0)
    assert not tiff_file.stored_image(tiffs.parts[tmp_path / "m.tif"]).whole.any()


def test_what_two_commands_left_in_turn_is_not_mixed(tmp_path: Path) -> None:
    """The second is killed before its first rows are on disk: its empty files are not those of the first's record."""
    with growing_tiff.growing(forms(tmp_path), {"a": 1}) as tiffs:
        write(tiffs, CELLS[:2])
        tiffs.keep(128, 2.5)
    with growing_tiff.growing(forms(tmp_path), {"a": 2}):
        pass
    with growing_tiff.growing(forms(tmp_path), {"a": 1}) as tiffs:
        assert tiffs.rows == 0


def test_what_was_seen_in_part_is_not_taken_for_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two renames, then again behind the next beginning."""
    with growing_tiff.growing(forms(tmp_path), {"a": 1}) as tiffs:
        write(tiffs, CELLS)
        tiffs.keep(150, 2.5)
        probabilities = list(tiffs.parts.values())[1]
        probabilities.replace(tmp_path / "p" / "m.tif")
    for _ in range(2):
        with growing_tiff.growing(forms(tmp_path), {"a": 1}) as tiffs:
            assert tiffs.rows == 0


def test_the_side_of_pieces_is_that_of_the_beginning(tmp_path: Path) -> None:
    for side in (512, 256):
        with growing_tiff.growing(forms(tmp_path), {"a": 1}, side) as tiffs:
            assert tiffs.side == 512
            tiffs.keep(64, 1.0)
    with growing_tiff.growing(forms(tmp_path), {"a": 2}, 256) as tiffs:
        assert tiffs.side == 256


def test_what_is_not_written_any_more_goes_when_the_mask_is_begun_anew(tmp_path: Path) -> None:
    with growing_tiff.growing(forms(tmp_path), {"a": 1}) as tiffs:
        tiffs.keep(128, 2.5)
    other = {tmp_path / "others" / "m.tif": (SIZE, np.uint8)}
    with growing_tiff.growing(other, {"a": 1}) as tiffs:
        with growing_tiff.growing({tmp_path / "m.tif": (SIZE, np.uint8)}, {"a": 2}) as anew:
            anew.appear({})
        assert [path.name for path in tmp_path.rglob("*.part")] == [".m.tif.part"]
        tiffs.appear({})


def test_a_file_grows_in_one_process(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".m.tif.lock"), pytest.raises(UserError, match=r"m\.tif: another process is writing it"):
        growing_tiff.growing(forms(tmp_path), {}).__enter__()
    with growing_tiff.growing(forms(tmp_path), {}):
        pass


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_of_before_anything_is_computed(tmp_path: Path) -> None:
    message = r"m\.tif: cannot be written \(File too large\); make room, and the same command continues"
    with full_disk(20_000), pytest.raises(UserError, match=message) as caught:
        growing_tiff.growing(forms(tmp_path), {}).__enter__()
    assert caught.value.status == 1
    with full_disk(100), pytest.raises(UserError, match=r"b\.tif: cannot be written \(File too large\); make room"):
        tiff_file.write(tmp_path / "b.tif", GREY)
