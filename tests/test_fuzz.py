"""Mutated files: never anything but a `UserError`, never for long, never with gigabytes.

Each target runs briefly and always the same way in the normal suite, and long and otherwise each time with
`pytest -m fuzz`; FUZZ_EXAMPLES says how often then.
"""

from __future__ import annotations

import faulthandler
import io
import os
import re
import resource
import shutil
import signal
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from yeastexp.config import toml_document
from yeastexp.config.experiment import ARRAYS, TABLES
from yeastexp.config.loading import EXCLUSIVE, load_experiment
from yeastexp.config.settings import SCHEMAS
from yeastexp.data import hdf5_file
from yeastexp.data.datasets.hdf5 import Hdf5
from yeastexp.data.images import read_image, read_mask
from yeastexp.errors import UserError
from yeastexp.registry import KINDS

SECONDS = 10
"""Of processor time that one file may take; a good one takes a few thousandths of one."""

ROOM = 3 * 2**30
"""Bytes that one file may make the process grow by: images as large as are read, in several forms."""

HEALTH = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
SHORT = settings(max_examples=100, derandomize=True, database=None, deadline=None, suppress_health_check=HEALTH)
LONG = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "5000")),
    database=None,
    deadline=None,
    suppress_health_check=HEALTH,
)


class Hung(BaseException):
    """It took too long; no handler for exceptions takes this for one of its own."""


def _hung(*signal_and_frame: object) -> None:
    raise Hung


@contextmanager
def bounded() -> Iterator[None]:
    """Let the block take so much time and memory and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGVTALRM, _hung)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, limits[1]))
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    faulthandler.dump_traceback_later(20 * SECONDS, exit=True)  # of a library that hangs, signals are not heard
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def folder() -> Iterator[Path]:
    """A new folder in memory, where there is such a place."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        yield Path(name)


# Mutations


BYTES = st.sampled_from([b"\0", b"\1", b"\x7f", b"\x80", b"\xff", b"\0\0", b"\xff\xff\xff\xff"]) | st.binary(max_size=8)


@st.composite
def mutated(draw: st.DrawFn, content: bytes, near: int) -> bytes:
    """A file with some bytes changed, removed, added or moved, mostly among the first."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        last = min(near, len(found)) if draw(st.booleans()) else len(found)
        start = draw(st.integers(0, max(0, last)))
        kind = draw(st.sampled_from(["replace", "replace", "replace", "insert", "delete", "cut", "copy"]))
        if kind == "cut":
            del found[start:]
        elif kind == "delete":
            del found[start : start + draw(st.integers(1, 16))]
        elif kind == "copy":
            source = draw(st.integers(0, len(found)))
            found[start : start + 16] = found[source : source + 16]
        else:
            new = draw(BYTES)
            found[start : start + (len(new) if kind == "replace" else 0)] = new
    return bytes(found)


KEYS_OF_PARTS = sorted(
    {key for registry in KINDS.values() for entry in registry.entries() for key in entry.schema.keys}
    | {
        "name",
        "extends",
        "plugins",
        *(key for schema in SCHEMAS.values() for key in schema.keys),
        *SCHEMAS,
        *TABLES,
        *ARRAYS,
    }
)
TOKEN = re.compile(r"[A-Za-z0-9_]+|\s+|[^\w\s]")
NASTY = [
    *("[", "]", "[[", "]]", "{", "}", "=", ".", ",", '"', "'", '"""', "'''", "#", "\n", "\\", "\t", "\0", "\r"),
    *("nan", "inf", "-inf", "-1", "0", "1e400", "0.5", str(2**63), str(2**63 - 1), "9" * 5_000, "1_000", "0xff"),
    *("true", "2024-01-02", "07:32:00", "2024-01-02T07:32:00Z", '"\\u0000"', '"\\u001b[2J"', "'../../x'", '"~nobody"'),
    *("extends", "plugins", "name", "[" * 30, "{a=" * 30, '"e.toml"', '"base.toml"', '"."', "[]", "{}", '""', "\u2028"),
    *(name for registry in KINDS.values() for name in registry),
    *KEYS_OF_PARTS,
]


@st.composite
def retyped(draw: st.DrawFn, text: str) -> bytes:
    """A TOML text with some of its words and signs changed, removed, added or doubled."""
    tokens = TOKEN.findall(text)
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, len(tokens) - 1))
        kind = draw(st.sampled_from(["replace", "insert", "delete", "double", "swap"]))
        word = draw(st.sampled_from(NASTY) | st.sampled_from(tokens))
        if kind in ("replace", "insert"):
            tokens[place : place + (kind == "replace")] = [word]
        elif kind == "delete" and len(tokens) > 1:
            del tokens[place]
        elif kind == "double":
            end = place + draw(st.integers(1, 40))
            tokens[end:end] = tokens[place:end]
        else:
            other = draw(st.integers(0, len(tokens) - 1))
            tokens[place], tokens[other] = tokens[other], tokens[place]
    return "".join(tokens).encode()


VALUES = [
    "nan",
    "inf",
    "-1",
    "0",
    "0.5",
    "1",
    "3",
    "1e400",
    str(2**63),
    str(2**63 - 1),
    "true",
    '""',
    '"x"',
    "[]",
    "{}",
]
VALUES += [
    "[0.5, 2]",
    '["a", "b"]',
    "[[1], 2]",
    "{a = 1}",
    "2024-01-02",
    "07:32:00",
    '"../../x"',
    '"\\u0000"',
    '"~no_one"',
]
VALUES += [f'"{name}"' for registry in KINDS.values() for name in registry]


@st.composite
def revalued(draw: st.DrawFn, text: str) -> bytes:
    """A TOML text that stays one, with other keys and values on some of its lines, or other lines."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(lines) - 1))
        key, equals, _ = lines[place].partition(" = ")
        kind = draw(st.sampled_from(["value", "value", "value", "key", "add", "delete", "table"]))
        word, value = draw(st.sampled_from(KEYS_OF_PARTS)), draw(st.sampled_from(VALUES))
        if kind == "value" and equals:
            lines[place] = f"{key} = {value}"
        elif kind == "key" and equals:
            lines[place] = lines[place].replace(key, word, 1)
        elif kind == "add":
            lines.insert(place + 1, f"{word} = {value}")
        elif kind == "delete" and len(lines) > 1:
            del lines[place]
        elif kind == "table":
            lines.insert(place, draw(st.sampled_from(["[{}]", "[[{}]]", "[{}.x]"])).format(word))
    return "\n".join(lines).encode()


# Experiment files


SHIPPED = Path(__file__).parent.parent / "experiments"
TEXTS = [path.read_text() for path in sorted(SHIPPED.glob("*.toml"))] + [
    tiny.EXPERIMENT,
    'plugins = ["my_transforms.py"]\n' + tiny.EXPERIMENT.replace('"zscore"', '"invert"'),
]
TOMLS = st.sampled_from(TEXTS).flatmap(
    lambda text: revalued(text) | revalued(text) | retyped(text) | mutated(text.encode(), len(text))
)


def check_experiment(content: bytes) -> None:
    """Check a file beside those that ship."""
    with folder() as here:
        for path in SHIPPED.iterdir():
            if path.is_file():
                shutil.copy(path, here)
        (here / "e.toml").write_bytes(content)
        with bounded():
            try:
                loaded = load_experiment(here / "e.toml", data=False)
            except UserError as error:
                assert error.faults and all(error.faults)
            else:
                (here / "resolved.toml").write_text(loaded.resolved("."))
                again = load_experiment(here / "resolved.toml", data=False)
                assert again.resolved(".") == loaded.resolved(".")


KEYS = st.lists(st.sampled_from([*NASTY, "0", "1", "train", "augment"]), min_size=1, max_size=4).map(".".join)
SETTINGS = st.tuples(KEYS, st.sampled_from(["=", ""]), st.lists(st.sampled_from(NASTY), max_size=4).map("".join))


def set_option(setting: tuple[str, str, str]) -> None:
    """Change one key from outside."""
    tree = toml_document.parse(TEXTS[0], "e.toml", Path())
    with bounded():
        try:
            toml_document.override(tree, "".join(setting), EXCLUSIVE)
        except UserError as error:
            assert len(error.faults) == 1


# Pictures


def saved(values: np.ndarray, mode: str | None = None, **options: Any) -> bytes:
    """A picture that Pillow writes."""
    stream, picture = io.BytesIO(), Image.fromarray(values)
    (picture.convert(mode) if mode else picture).save(stream, **{"format": "PNG", **options})
    return stream.getvalue()


def tiff(values: np.ndarray, **options: Any) -> bytes:
    """A TIFF."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


GREY = np.random.default_rng(0).integers(0, 255, (24, 32), np.uint8)
COLOUR = np.stack([GREY, GREY.T.reshape(24, 32), GREY[::-1]], -1)
PNGS = [
    saved(GREY),
    saved(GREY > 99),
    saved(GREY.astype(np.uint16) * 257),
    saved(COLOUR),
    saved(COLOUR, "P"),
    saved(COLOUR, "RGBA"),
    saved(COLOUR, "LA"),
    saved(GREY, "P", transparency=3),
]
TIFFS = [
    tiff(GREY),
    tiff(GREY.astype(np.uint16), byteorder=">"),
    tiff(GREY.astype(np.float32), compression="zlib"),
    tiff(COLOUR, photometric="rgb"),
    tiff(GREY, tile=(16, 16), bigtiff=True),
    tiff(GREY, rowsperstrip=4, imagej=True),
    tiff(GREY > 99),
    tiff(GREY, photometric="palette", colormap=np.arange(768, dtype=np.uint16).reshape(3, 256)),
    tiff(np.stack([GREY] * 5), metadata={"axes": "ZYX"}),
    saved(GREY, format="TIFF", compression="tiff_lzw"),
    saved(GREY, format="TIFF", compression="packbits"),
    saved(COLOUR, "CMYK", format="TIFF"),
]


@st.composite
def valid_chunks(draw: st.DrawFn, content: bytes) -> bytes:
    """A PNG with the data of a chunk mutated, and its length and check sum right."""
    chunks, place = [], 8
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += length + 12
    index = draw(st.integers(0, len(chunks) - 1))
    kind, data = chunks[index]
    chunks[index] = (kind, draw(mutated(zlib.decompress(data) if kind == b"IDAT" else data, 40)))
    if kind == b"IDAT":
        chunks[index] = (kind, zlib.compress(chunks[index][1]))
    if draw(st.booleans()):
        chunks.insert(draw(st.integers(0, len(chunks))), draw(st.sampled_from(chunks)))
    return content[:8] + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


PICTURES = st.sampled_from(PNGS).flatmap(lambda one: valid_chunks(one) | mutated(one, 64)) | st.sampled_from(
    TIFFS
).flatmap(lambda one: mutated(one, 400))


def read_picture(content: bytes) -> None:
    """Read a picture as image and as mask."""
    with folder() as here:
        path = here / "a.png"
        path.write_bytes(content)
        with bounded():
            for read in (read_image, read_mask):
                try:
                    found = read(path)
                except UserError as error:
                    assert len(error.faults) == 1 and "\n" not in error.faults[0]
                    assert error.faults[0].startswith(f"{path}: ")
                else:
                    assert found.size and found.ndim == (3 if read is read_image else 2)


# HDF5 files


def stored(make: Callable[[Path], object]) -> bytes:
    """The bytes of a file."""
    with folder() as here:
        make(here / "d.h5")
        return (here / "d.h5").read_bytes()


def grouped(path: Path) -> None:
    """Two images of two sizes."""
    sizes = {"a": 8, "b": 12}
    hdf5_file.write(path, {"train": ["a"], "val": ["b"]}, lambda name: tiny.image(1, 16 + sizes[name]), provenance={})


def plain(path: Path) -> None:
    """Compressed stacks without names."""
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("raw", data=np.stack([GREY] * 4), chunks=(1, 24, 32), compression="gzip", shuffle=True)
        file.create_dataset("gt", data=np.stack([GREY] * 4) > 99, fletcher32=True, chunks=(2, 24, 32))


HDF5S = [stored(lambda path: tiny.write_data(path, 2, 1)), stored(grouped), stored(plain)]


def places(content: bytes) -> list[int]:
    """Where a file holds numbers and names, not pixels or nothing."""
    words = [content[place : place + 8] for place in range(0, len(content), 8)]
    return [8 * index for index, word in enumerate(words) if any(word) and len(set(word)) < len(word)]


METADATA = [st.sampled_from(places(one)) for one in HDF5S]


@st.composite
def mutated_hdf5(draw: st.DrawFn) -> bytes:
    """A file of HDF5 with some bytes changed, mostly where its structure is written."""
    index = draw(st.integers(0, len(HDF5S) - 1))
    found = bytearray(HDF5S[index])
    for _ in range(draw(st.integers(1, 4))):
        start = draw(METADATA[index]) + draw(st.integers(0, 7))
        new = draw(BYTES)
        found[start : start + len(new)] = new
    return bytes(found) if draw(st.integers(0, 9)) else bytes(found[: draw(st.integers(0, len(found)))])


def read_hdf5(content: bytes) -> None:
    """Open a data set and read its images."""
    with folder() as here:
        path = here / "d.h5"
        path.write_bytes(content)
        with bounded():
            try:
                data = Hdf5(path)
                for name in data.splits["train"][:3] + data.splits["val"][:3]:
                    assert hdf5_file.is_plain(name)
                    data.read(name)
            except UserError as error:
                assert len(error.faults) == 1 and error.faults[0].startswith(f"{path}: ")


# The two lengths of each


TARGETS: dict[str, tuple[Callable[[Any], None], st.SearchStrategy[Any]]] = {
    "experiments": (check_experiment, TOMLS),
    "settings": (set_option, SETTINGS),
    "pictures": (read_picture, PICTURES),
    "hdf5": (read_hdf5, mutated_hdf5()),
}


@pytest.mark.parametrize("target", TARGETS)
def test_mutated_files_are_refused_in_a_line(target: str) -> None:
    meet, files = TARGETS[target]
    SHORT(given(files)(meet))()


@pytest.mark.fuzz
@pytest.mark.parametrize("target", TARGETS)
def test_many_mutated_files_are_refused_in_a_line(target: str) -> None:
    meet, files = TARGETS[target]
    LONG(given(files)(meet))()
