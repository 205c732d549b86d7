"""Tests of the HDF5 file."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forks
import h5py
import numpy as np
import pytest

from yeastexp.data.hdf5_file import Contents, Reader, stored_images, write
from yeastexp.errors import UserError

SPLITS = {"train": ("a", "b"), "val": ("c",)}
SIZES = {"a": (4, 5), "b": (4, 5), "c": (4, 5)}


def arrays(name, sizes=SIZES, channels=None, dtype=np.uint16, maps=()):
    generator = np.random.default_rng(ord(name))
    size = sizes[name]
    raw = generator.integers(0, 1000, size if channels is None else (channels, *size)).astype(dtype)
    labels = {key: generator.integers(0, 3, size).astype(np.uint8) for key in ("gt", *maps)}
    return {"raw": raw, **labels}


def same(got, expected):
    assert got.keys() == expected.keys()
    for key in expected:
        np.testing.assert_array_equal(got[key], expected[key], strict=True)


@pytest.mark.parametrize("sizes", [SIZES, {**SIZES, "c": (6, 3)}])
@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("maps", [(), ("instances", "dead")])
def test_what_is_written_is_read(tmp_path, sizes, channels, maps):
    path = tmp_path / "data.h5"

    def read(name):
        return arrays(name, sizes, channels, maps=maps)

    write(path, SPLITS, read, provenance={"made_by": "a test"}, pixel_um=0.1, normalization={"mean": 1.5})
    reader = Reader(path)
    assert reader.contents == Contents(("a", "b", "c"), SPLITS, maps, 0.1, {"mean": 1.5}, {"made_by": "a test"})
    for name in "abc":
        expected = read(name)
        assert reader.shape(name) == (channels or 1, *sizes[name])
        same(reader.read(name), {**expected, "raw": expected["raw"].reshape(reader.shape(name))})
    with h5py.File(path) as file:
        stacked = sizes is SIZES
        assert isinstance(file["raw"], h5py.Dataset) == stacked
        if stacked:
            assert file["raw"].shape == (3, *read("a")["raw"].shape)
            assert file["gt"].shape == (3, 4, 5)
        assert file.attrs["yeastexp_layout"] == 1
        assert [*file["names"].asstr()] == ["a", "b", "c"]
        assert [*file["splits/val"].asstr()] == ["c"]
    assert list(tmp_path.iterdir()) == [path]


def test_types_that_differ_are_kept_apart(tmp_path):
    path = tmp_path / "data.h5"
    kinds = {"a": np.uint8, "b": np.uint16, "c": np.float32}
    write(path, SPLITS, lambda name: arrays(name, dtype=kinds[name]), provenance={})
    assert {name: Reader(path).read(name)["raw"].dtype for name in "abc"} == kinds


def test_names_follow_the_splits_and_test_comes_last(tmp_path):
    path = tmp_path / "data.h5"
    write(path, {"test": ["a"], "val": ["b"], "train": ["c"]}, arrays, provenance={})
    assert Reader(path).contents.names == ("c", "b", "a")
    assert Reader(path).contents.splits == {"train": ("c",), "val": ("b",), "test": ("a",)}


def test_the_same_input_gives_the_same_bytes(tmp_path):
    digests = []
    for _ in range(2):
        for sizes in (SIZES, {**SIZES, "c": (6, 3)}):
            path = tmp_path / f"{len(digests)}.h5"
            write(path, SPLITS, lambda name, sizes=sizes: arrays(name, sizes), provenance={"a": 1})
            digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
        if len(digests) == 2:
            time.sleep(1.05)  # time stamps of HDF5 are in seconds
    assert digests[:2] == digests[2:]


def test_images_are_read_once_where_forms_are_known(tmp_path):
    forms = {name: {key: (a.shape, a.dtype) for key, a in arrays(name).items()} for name in "abc"}
    for known, times in ((forms, 1), (None, 2)):
        calls = []

        def read(name, calls=calls):
            calls.append(name)
            return arrays(name)

        write(tmp_path / "data.h5", SPLITS, read, provenance={}, forms=known, force=True)
        assert calls == ["a", "b", "c"] * times


def test_an_existing_file_is_not_overwritten(tmp_path):
    path = tmp_path / "data.h5"
    path.write_text("old")
    with pytest.raises(UserError) as caught:
        write(path, SPLITS, arrays, provenance={})
    assert str(caught.value) == f"{path}: exists; add --force to replace it, or name another file"
    assert path.read_text() == "old"
    write(path, SPLITS, arrays, provenance={}, force=True)
    assert Reader(path).contents.names == ("a", "b", "c")
    with pytest.raises(UserError) as caught:
        write(tmp_path, SPLITS, arrays, provenance={}, force=True)
    assert str(caught.value) == f"{tmp_path}: is a folder; name a file"


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_no_file_and_the_old_one_as_it_was(tmp_path, old, error):
    path = tmp_path / "data.h5"
    if old:
        path.write_text(old)
    calls = []

    def read(name):
        calls.append(name)
        if len(calls) == 5:
            raise error
        return arrays(name)

    with pytest.raises(error):
        write(path, SPLITS, read, provenance={}, force=True)
    assert [file.read_text() for file in tmp_path.iterdir()] == ([old] if old else [])


def test_an_image_that_changes_meanwhile_is_an_error(tmp_path):
    sizes = iter([SIZES] * 4 + [{**SIZES, "b": (1, 5)}])
    with pytest.raises(UserError, match="image 'b' changed while it was being written; start again"):
        write(tmp_path / "data.h5", SPLITS, lambda name: arrays(name, next(sizes)), provenance={})
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "data.h5"
    with pytest.raises(UserError) as caught:
        write(path, SPLITS, arrays, provenance={})
    assert str(caught.value) == f"{path}: cannot be written (File exists); make room or name another place"
    assert caught.value.status == 1


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from yeastexp.errors import UserError
from yeastexp.data.hdf5_file import write

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
image = {"raw": np.zeros((300, 300), np.uint16), "gt": np.zeros((300, 300), np.uint8)}
try:
    write(Path(sys.argv[1]), {"train": ("a", "b"), "val": ("c",)}, lambda name: image, provenance={}, force=True)
except UserError as error:
    print(error, error.status)
"""


@pytest.mark.parametrize("limit", [500, 3_000, 20_000, 300_000, 800_000])
def test_a_full_disk_leaves_the_old_file(tmp_path, limit):
    path = tmp_path / "data.h5"
    path.write_text("old")
    done = forks.run([sys.executable, "-c", FULL, str(path), str(limit)])
    fault = f"{path}: cannot be written (File too large); make room or name another place"
    assert (done.returncode, done.stdout) == (0, f"{fault} 1\n"), done.stderr
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "a\udc80", "a\nb", "\x1b[31m", "\u2029", "x" * 201])
def test_names_that_hdf5_would_take_for_something_else_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="cannot be the name of an image; rename it"):
        write(tmp_path / "data.h5", {"train": ["a", name]}, lambda name: arrays("a"), provenance={})


@pytest.mark.parametrize(
    ("splits", "read", "message"),
    [
        ({"train": []}, arrays, "no image to write"),
        ({"train": ["a"], "val": ["a"]}, arrays, "in two splits"),
        (SPLITS, lambda name: {"raw": np.zeros((2, 2))}, "every image needs 'raw', 'gt'"),
        (SPLITS, lambda name: arrays(name, maps=("instances",) if name == "a" else ()), "every image needs"),
        (SPLITS, lambda name: arrays(name) | {"more": np.zeros((4, 5))}, "every image needs"),
        (SPLITS, lambda name: arrays(name) | {"gt": np.zeros((5, 4))}, "does not fit 'raw'"),
        (SPLITS, lambda name: arrays(name) | {"gt": np.zeros((1, 4, 5))}, "does not fit 'raw'"),
    ],
)
def test_faults_of_the_caller_are_bugs(tmp_path, splits, read, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "data.h5", splits, read, provenance={})


def read_in_worker(reader):
    return int(reader.read("c")["raw"].sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_reader_works_in_workers(tmp_path, method):
    path = tmp_path / "data.h5"
    write(path, SPLITS, arrays, provenance={})
    reader = Reader(path)
    expected = read_in_worker(reader)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(read_in_worker, [reader, Reader(path)]) == [expected] * 2


def test_a_reader_is_lazy_and_picklable(tmp_path):
    path = tmp_path / "data.h5"
    reader = pickle.loads(pickle.dumps(Reader(path)))
    write(path, SPLITS, arrays, provenance={})
    assert reader.contents.names == ("a", "b", "c")
    again = pickle.loads(pickle.dumps(reader))
    same(again.read("b"), reader.read("b"))


def test_a_plain_file(tmp_path):
    path = tmp_path / "plain.h5"
    raw, gt = np.arange(18 * 6, dtype=np.uint16).reshape(18, 2, 3), np.ones((18, 2, 3), bool)
    with h5py.File(path, "w") as file:
        file["raw"], file["gt"] = raw, gt
    contents = Reader(path).contents
    assert contents.names == tuple(f"{index:03d}" for index in range(18))
    assert contents.splits == {"train": contents.names[:10], "val": contents.names[10:]}
    assert (contents.maps, contents.pixel_um, contents.normalization, contents.provenance) == ((), None, None, {})
    same(Reader(path).read("011"), {"raw": raw[11][None], "gt": gt[11]})


# Images read piece by piece

LARGE_SIZE = (150, 203)
PIECES = [((0, 150), (0, 203)), ((17, 80), (0, 203)), ((63, 64), (100, 101)), ((100, 150), (33, 203))]
STACK = np.random.default_rng(2).integers(0, 1000, (2, *LARGE_SIZE)).astype(np.uint16)


def stacked(file: h5py.File) -> None:
    file["raw"] = STACK


def named(file: h5py.File) -> None:
    file["raw"] = STACK[:, None]
    file["names"] = ["b", "a"]
    file.attrs["normalization"] = json.dumps({"mean": 1.0, "std": 2.0})


def grouped(file: h5py.File) -> None:
    file.create_dataset("raw/b", data=STACK[0], chunks=(64, 64), compression="gzip")
    file.create_dataset("raw/a", data=STACK[1][None])


@pytest.mark.parametrize(
    ("make", "names"),
    [(stacked, ["000", "001"]), (named, ["b", "a"]), (grouped, ["a", "b"])],
    ids=["stacked", "named", "grouped"],
)
def test_pieces_of_an_hdf5_file(tmp_path: Path, make: Callable[[h5py.File], None], names: list[str]) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        make(file)
    found = stored_images(path)
    assert [one.name for one in found] == [f"{path}/{name}" for name in names]
    for picture, values in zip(found, STACK[::-1] if make is grouped else STACK, strict=True):
        assert (picture.shape, picture.dtype) == ((1, *LARGE_SIZE), np.uint16)
        assert picture.normalization == ({"mean": 1.0, "std": 2.0} if make is named else None)
        for rows, columns in PIECES:
            piece = picture.read(slice(*rows), slice(*columns))
            np.testing.assert_array_equal(piece[0], values[slice(*rows), slice(*columns)], strict=True)


def stored(key: str, values: Any, names: list[str] | None = None, **attributes: Any) -> Callable[[h5py.File], None]:
    def make(file: h5py.File) -> None:
        file[key] = values
        if names:
            file["names"] = names
        file.attrs.update(attributes)

    return make


BAD_HDF5: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "nothing": (lambda file: None, "has no 'raw' (it holds nothing); store images as 'raw'"),
    "other keys": (stored("gt", STACK[0]), "has no 'raw' (it holds gt); store images as 'raw'"),
    "one image": (stored("raw", STACK[0]), "'raw' has shape (150, 203); it must be (N, H, W) or (N, C, H, W)"),
    "words": (stored("raw", np.full((1, 2, 2), b"a")), "'raw' holds |S1 values; store numbers"),
    "no pixels": (
        stored("raw", np.zeros((1, 0, 5))),
        "image '000' of shape (0, 5) has no pixels",
    ),
    "too few names": (
        stored("raw", STACK, ["a"]),
        "'raw' holds 2 images, but there are 1 in all; make them the same",
    ),
    "a link": (
        lambda file: file.__setitem__("raw", h5py.ExternalLink("/etc/passwd", "raw")),
        "'raw' is a link, which may lead out of the file; copy the data into the file",
    ),
    "a name twice": (stored("raw", STACK, ["a", "a"]), "'names' names an image twice; make the file again"),
    "an empty group": (lambda file: file.create_group("raw") and None, "holds no image"),
    "a name without array": (stored("raw/a", STACK[0], ["a", "b"]), "'raw' has no array 'b'; make the file again"),
    "figures of no kind": (
        stored("raw", STACK, normalization='{"mean": 1}'),
        "attribute 'normalization' has no 'mean' and 'std'; make the file again",
    ),
}


@pytest.mark.parametrize("name", BAD_HDF5)
def test_an_hdf5_file_without_images(tmp_path: Path, name: str) -> None:
    make, message = BAD_HDF5[name]
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        make(file)
    with pytest.raises(UserError) as caught:
        stored_images(path)
    assert str(caught.value) == f"{path}: {message}"


def test_what_is_no_hdf5_file(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    path.write_bytes(b"hello")
    with pytest.raises(UserError, match="is not an HDF5 file; 'yeastexp pack' makes one from images"):
        stored_images(path)
    with pytest.raises(UserError, match=r"cannot be opened \(No such file or directory\)"):
        stored_images(tmp_path / "none.h5")


HOLD = """
import sys, time, h5py
file = h5py.File(sys.argv[1], sys.argv[2], libver="latest")
print("open", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("mode", ["w", "a"])
def test_a_file_that_another_program_writes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "data.h5"
    write(path, SPLITS, arrays, provenance={})
    words = [sys.executable, "-c", HOLD, str(path), mode]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "open\n"
        for read in (lambda: Reader(path).contents, lambda: stored_images(path)):
            with pytest.raises(UserError) as caught:
                read()
            assert str(caught.value) == (
                f"{path}: is open for writing in another program; close it there, or wait for it"
            )
        process.kill()


def test_a_file_that_was_not_closed(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    program = f"import h5py, os; f = h5py.File({str(path)!r}, 'w', libver='latest'); f['a'] = 1; f.flush(); os._exit(0)"
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(UserError, match=r"was not closed by the program that wrote it; close it there, or repair it"):
        stored_images(path)


ENDED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from yeastexp.data.hdf5_file import write
from yeastexp.system.interruption import sigterm_as_ctrl_c

image = {"raw": np.zeros((300, 300), np.uint16), "gt": np.zeros((300, 300), np.uint8)}

def read(name):
    if name == "b" and len(sys.argv) > 2:
        os.kill(os.getpid(), int(sys.argv[2]))
    return image

forms = {name: {key: (array.shape, array.dtype) for key, array in image.items()} for name in "abc"}
with sigterm_as_ctrl_c():
    write(Path(sys.argv[1]), {"train": ("a", "b"), "val": ("c",)}, read, provenance={}, force=True, forms=forms)
"""


def test_a_process_that_is_ended_leaves_no_part_of_a_file_or_one_that_the_next_takes_away(tmp_path: Path) -> None:
    words = [sys.executable, "-c", ENDED, str(tmp_path / "data.h5")]
    done = forks.run([*words, str(int(signal.SIGTERM))])
    assert "KeyboardInterrupt" in done.stderr and "stopping after this image" in done.stderr
    assert not list(tmp_path.iterdir())
    assert forks.run([*words, str(int(signal.SIGKILL))]).returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".data.h5.part"]
    forks.run(words, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["data.h5"]
