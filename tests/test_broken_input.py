"""What is broken, hostile or odd, given to the command line: the exact line, the exit status, and nothing left behind.

Every case is made in an empty folder, in which the command then runs; `{here}` in a message is that folder.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import pickle
import resource
import shlex
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import tiny
import torch
from PIL import Image

from yeastexp import plugins
from yeastexp.__main__ import main
from yeastexp.config.settings import SCHEMAS
from yeastexp.data import hdf5_file
from yeastexp.inspection import check as check_module
from yeastexp.registry import KINDS
from yeastexp.training import checkpoints

Make = Callable[[], object]
Outcome = tuple[int, str, str]
Call = Callable[[str], Outcome]

TRAIN_KEYS = "(known: {})".format(", ".join(sorted(SCHEMAS["train"].keys)))
TABLES = (
    "augment, dataset, extends, handler, loss, metric, model, name, optimizer, patches, plugins, runtime, scheduler, "
    "task, train, transform, validation"
)


@dataclass(frozen=True)
class Broken:
    """How a case is made, the command that meets it, what it says on stderr line by line, and its exit status.

    `room` is the largest size in bytes to which the command may let a file grow.
    """

    make: Make
    command: str
    says: str | tuple[str, ...]
    status: int = 2
    room: int | None = None


@pytest.fixture
def call(call: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """`call("check e.toml")` runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda command: call(*shlex.split(command))


def listing(folder: Path) -> dict[str, str]:
    """Everything below a folder, and the digest of what it holds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        plain = path.is_file() and not path.is_symlink()
        found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest() if plain else "no file"
    return found


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Experiment files


def written(text: str | bytes, name: str = "e.toml") -> Make:
    """A file in the working directory."""
    return lambda: Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())


def experiment(old: str = "", new: str = "") -> Make:
    """The tiny experiment and its data, with one line changed."""
    return lambda: tiny.write_experiment(Path(), tiny.changed({old: new} if old else {}, tiny.EXPERIMENT), "e.toml")


def experiment_with(entry: Callable[[Path], object], name: str, old: str, new: str) -> Make:
    """The same, and something beside it under a name."""

    def make() -> None:
        experiment(old, new)()
        entry(Path(name))

    return make


def family(count: int) -> Make:
    """`0.toml` extends `1.toml`, and so on."""

    def make() -> None:
        for index in range(count):
            Path(f"{index}.toml").write_text(f'extends = "{index + 1}.toml"')
        Path(f"{count}.toml").write_text(tiny.EXPERIMENT)

    return make


CHECK = "check e.toml"
CHECKING, RUNNING = "e.toml: reading its images, then timing a step", "e.toml: reading its images"
"""What is said at once."""
DEEP = "e.toml{}: nested too deeply; an experiment needs three levels"
LONG = "x" * 300
PATH = 'path = "data.h5"'

TOML = {
    "syntax": Broken(written("[task\n"), CHECK, "e.toml:1:6: Expected ']' at the end of a table declaration"),
    "a string without an end": Broken(written('name = "a\n'), CHECK, "e.toml:1:10: Illegal character '\\n'"),
    "empty": Broken(
        written(""),
        CHECK,
        (
            *(
                f"e.toml:1:1: [{table}]: missing; every experiment needs it"
                for table in ("task", "train", "dataset", "model", "loss", "optimizer")
            ),
            "e.toml:1:1: [[metric]]: missing; every experiment needs one",
        ),
    ),
    "no file": Broken(nothing := lambda: None, CHECK, "e.toml: no such experiment file"),
    "a device": Broken(nothing, "check /dev/null", "/dev/null: no such experiment file"),
    "a name too long": Broken(nothing, f"check {LONG}", f"{LONG}: no such experiment file"),
    "a name of two lines": Broken(nothing, "check 'a\nb'", "a\\nb: no such experiment file"),
    "Latin-1": Broken(
        written('name = "Größe"'.encode("latin-1")), CHECK, "e.toml: not UTF-8 text (byte 10); save it as UTF-8"
    ),
    "UTF-16": Broken(written("[task]".encode("utf-16")), CHECK, "e.toml: not UTF-8 text (byte 0); save it as UTF-8"),
    "half a character": Broken(
        written(b'name = "\xed\xa0\x80"'), CHECK, "e.toml: not UTF-8 text (byte 8); save it as UTF-8"
    ),
    "deep arrays": Broken(written("x = " + "[" * 5_000 + "]" * 5_000), CHECK, DEEP.format("")),
    "deep keys": Broken(written(".".join("a" * 100) + " = 1"), CHECK, DEEP.format(":1:1")),
    "huge": Broken(
        written("#" * 2_000_000), CHECK, "e.toml: 2000000 bytes are more than an experiment file has; wrong file?"
    ),
    "a number of thousands of digits": Broken(
        written("x = 1" + "0" * 5_000), CHECK, "e.toml: an integer has thousands of digits; TOML's have 64 bits"
    ),
    "a key twice": Broken(written("a = 1\na = 2\n"), CHECK, "e.toml:2:6: Cannot overwrite a value"),
    "a table twice": Broken(written("[a]\n[a]\n"), CHECK, "e.toml:2:3: Cannot declare ('a',) twice"),
    "extends itself": Broken(
        written('extends = "e.toml"'),
        CHECK,
        "e.toml:1:1: extends: 'e.toml' extends this file in turn; break the circle",
    ),
    "extends nothing": Broken(written('extends = "no.toml"'), CHECK, "e.toml:1:1: extends: no file 'no.toml'"),
    "extends a folder": Broken(written('extends = "."'), CHECK, "e.toml:1:1: extends: no file '.'"),
    "extends too long a name": Broken(written(f'extends = "{LONG}"'), CHECK, f"e.toml:1:1: extends: no file '{LONG}'"),
    "extends a name that a terminal obeys": Broken(
        written('extends = "\\u001b[31m\\u202e\\n"'),
        CHECK,
        "e.toml:1:1: extends: no file '\\x1b[31m\\u202e\\n'",
    ),
    "extends a circle of links": Broken(
        lambda: (written('extends = "l.toml"')(), Path("l.toml").symlink_to("l.toml")),
        CHECK,
        "e.toml:1:1: extends: no file 'l.toml'",
    ),
    "extends a device": Broken(written('extends = "/dev/zero"'), CHECK, "e.toml:1:1: extends: no file '/dev/zero'"),
    "extends without end": Broken(
        family(40), "check 0.toml", "19.toml:1:1: extends: 20 files extend one another by now; write some as one"
    ),
    "a key that a terminal obeys": Broken(
        lambda: tiny.write_experiment(Path(), '"\\u001b[2J\\n" = 3\n' + tiny.EXPERIMENT, "e.toml"),
        CHECK,
        f"e.toml:1:1: \\x1b[2J\\n: unknown table or key (known: {TABLES})",
    ),
    "a class that a terminal obeys": Broken(
        experiment('"cell"', '"\\u001b[31m"'),
        CHECK,
        'e.toml:3:26: [task] classes.1: wants no spaces, slashes or control characters in a name, got "\\u001b[31m"',
    ),
    "a name that leads out": Broken(
        lambda: tiny.write_experiment(Path(), 'name = "../../x"\n' + tiny.EXPERIMENT, "e.toml"),
        "run e.toml",
        "e.toml:1:1: name: should be a plain name for a folder, got '../../x'",
    ),
    "wrong types": Broken(
        experiment("epochs = 2\nbatch_size = 4", 'epochs = "2"\nbatch_size = true'),
        "run e.toml",
        (
            'e.toml:29:1: [train] epochs: should be a valid integer, got "2"',
            "e.toml:30:1: [train] batch_size: should be a valid integer, got true",
        ),
    ),
    "a long value": Broken(
        experiment("batch_size = 4", f'batch_size = "{LONG}"'),
        CHECK,
        f'e.toml:30:1: [train] batch_size: should be a valid integer, got "{"x" * 99}…',
    ),
    "NaN and infinity": Broken(
        experiment("learning_rate = 0.01", "learning_rate = nan\nweight_decay = inf"),
        CHECK,
        (
            "e.toml:21:1: [optimizer] learning_rate: should be a finite number, got NaN",
            "e.toml:22:1: [optimizer] weight_decay: should be a finite number, got Infinity",
        ),
    ),
    "a date": Broken(
        experiment(PATH, "path = 2024-01-02"),
        CHECK,
        "e.toml:6:1: [dataset] path: should be no date or time, got 2024-01-02; put text in quotes",
    ),
    "a time from outside": Broken(
        experiment(),
        "check e.toml --set dataset.path=07:32:00",
        "--set dataset.path=07:32:00: [dataset] path: should be no date or time, got 07:32:00; put text in quotes",
    ),
    "beyond 64 bits": Broken(
        experiment("epochs = 2", "epochs = 9223372036854775808"),
        "run e.toml",
        "e.toml:29:1: [train] epochs: should fit into 64 bits, got 9223372036854775808",
    ),
    "larger than memory": Broken(
        experiment("size = 16", "size = 1000000000000"),
        CHECK,
        "e.toml:32:1: [patches] size: should be less than or equal to 32768, got 1000000000000",
    ),
    "a setting in 3000 levels": Broken(
        experiment(),
        f"check e.toml --set {'.'.join('a' * 3_000)}=1",
        f"--set {'a.' * 100}…: nested too deeply; an experiment needs three levels",
    ),
    "data too long a name": Broken(
        experiment(PATH, f'path = "{LONG}"'), CHECK, f"e.toml:6:1: [dataset] path: no file '{{here}}/{LONG}'"
    ),
    "data with a null character": Broken(
        experiment(PATH, 'path = "a\\u0000"'),
        CHECK,
        'e.toml:6:1: [dataset] path: no path (embedded null byte), got "a\\u0000"',
    ),
    "data in a folder": Broken(
        experiment(PATH, 'path = "."'),
        CHECK,
        "e.toml:6:1: [dataset] path: {here}: cannot be opened (Is a directory); name an HDF5 file",
    ),
    "data in a pipe": Broken(
        experiment_with(os.mkfifo, "pipe", PATH, 'path = "pipe"'),
        CHECK,
        "e.toml:6:1: [dataset] path: {here}/pipe: is a pipe; name an HDF5 file",
    ),
    "data in a device": Broken(
        experiment(PATH, 'path = "/dev/zero"'),
        CHECK,
        "e.toml:6:1: [dataset] path: /dev/zero: is not an HDF5 file; 'yeastexp pack' makes one from images",
    ),
    "an old run that is none": Broken(
        experiment("epochs = 2", 'epochs = 2\ninit_from = "nowhere"'),
        CHECK,
        "e.toml:30:1: [train] init_from: no run '{here}/nowhere'",
    ),
    "an old run without weights": Broken(
        experiment("epochs = 2", 'epochs = 2\ninit_from = "."'),
        CHECK,
        "e.toml:30:1: [train] init_from: '{here}' holds no checkpoints/best.pt; name a run that does",
    ),
}


# Plugins


def plugin(text: str | bytes) -> Make:
    """The tiny experiment with a plugin."""

    def make() -> None:
        tiny.write_experiment(Path(), 'plugins = ["p.py"]\n' + tiny.EXPERIMENT, "e.toml")
        written(text, "p.py")()

    return make


def plugins_named(names: str, entry: Make = nothing) -> Make:
    """The tiny experiment with plugins of these names."""

    def make() -> None:
        tiny.write_experiment(Path(), f"plugins = [{names}]\n" + tiny.EXPERIMENT, "e.toml")
        entry()

    return make


AT = "e.toml:1:12: plugins: {here}/p.py:"
DICE = KINDS["loss"].find("dice").place

PLUGINS = {
    "syntax error": Broken(plugin("def f(:\n"), CHECK, f"{AT}1:7: invalid syntax"),
    "too many brackets": Broken(plugin("(" * 5_000), "run e.toml", f"{AT}1:201: too many nested parentheses"),
    "import error": Broken(
        plugin("\nimport no_such_module\n"), CHECK, f"{AT}2: ModuleNotFoundError: No module named 'no_such_module'"
    ),
    "raises in two lines": Broken(plugin("raise ValueError('a\\n\\tb')"), "run e.toml", f"{AT}1: ValueError: a b"),
    "raises what cannot speak": Broken(
        plugin("class Mute(Exception):\n  __str__ = None\nraise Mute"), CHECK, f"{AT}3: Mute: <exception str() failed>"
    ),
    "raises no exception": Broken(plugin("raise BaseException('x')"), CHECK, f"{AT}1: BaseException: x"),
    "exits": Broken(plugin("import os\nraise SystemExit"), CHECK, f"{AT}2: SystemExit"),
    "without end": Broken(
        plugin("def f(): f()\nf()"), CHECK, f"{AT}1: RecursionError: maximum recursion depth exceeded"
    ),
    "out of memory": Broken(plugin("raise MemoryError"), CHECK, f"{AT}1: MemoryError"),
    "Latin-1": Broken(
        plugin(b"x = '\xe4'\n"),
        CHECK,
        f"{AT}1:8: (unicode error) 'utf-8' codec can't decode byte 0xe4 in position 0: unexpected end of data",
    ),
    "null characters": Broken(plugin(b"x = 1\0"), CHECK, f"{AT}1:1: source code string cannot contain null bytes"),
    "a taken name": Broken(
        plugin("from yeastexp import loss\n@loss('dice')\ndef f(classes): ..."),
        "run e.toml",
        f"{AT[:-1]}:2: loss 'dice' is taken by {DICE}; choose another name",
    ),
    "no name": Broken(
        plugin("from yeastexp import loss\n@loss\ndef f(classes): ..."),
        CHECK,
        f"{AT}2: @loss needs a name, as in @loss('mine')",
    ),
    "a hint that nothing fits": Broken(
        plugin("from yeastexp import loss\nfrom typing import *\n@loss('x')\ndef f(classes, y: Callable = 1): ..."),
        CHECK,
        f"{AT}3: loss 'x' has a hint that no TOML value fits: "
        "Cannot generate a JsonSchema for core_schema.CallableSchema",
    ),
    "not there": Broken(plugins_named('"p.py"'), CHECK, "e.toml:1:12: plugins: no file '{here}/p.py'"),
    "a folder": Broken(
        plugins_named('"p.py"', lambda: Path("p.py").mkdir()), CHECK, "e.toml:1:12: plugins: no file '{here}/p.py'"
    ),
    "no Python": Broken(
        plugins_named('"data.h5"'),
        CHECK,
        "e.toml:1:12: plugins: {here}/data.h5: not a Python file; a plugin ends in .py",
    ),
    "names that are none": Broken(
        plugins_named(f'"{LONG}.py", "a\\u0000.py", "a\\nb.py"'),
        CHECK,
        (
            f"e.toml:1:12: plugins: no file '{{here}}/{LONG}.py'",
            "e.toml:1:319: plugins: no file '{here}/a\\x00.py'",
            "e.toml:1:333: plugins: no file '{here}/a\\nb.py'",
        ),
    ),
}


# Pictures


def save(path: Path, values: np.ndarray) -> None:
    """A PNG of 8 or 16 bit, in a folder that may have to be made."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(values).save(path, format="PNG")


def pictures(names: Sequence[str] = ("a", "b", "c")) -> None:
    """Images with their masks of 0 and 255."""
    for index, name in enumerate(names):
        arrays = tiny.image(index)
        save(Path("images") / f"{name}.png", arrays["raw"])
        save(Path("masks") / f"{name}.png", arrays["gt"] * np.uint8(255))


def instead(make: Callable[[Path], object], place: str = "images/b.png") -> Make:
    """Three pictures with their masks, but for one file: `make` writes it, by the suffix of `place`."""

    def write() -> None:
        pictures()
        Path(place).with_suffix(".png").unlink()
        make(Path(place))

    return write


def named(*names: str) -> Make:
    """Pictures of these names."""
    return lambda: pictures(names)


def pillow(mode: str, form: str = "PNG", **options: Any) -> Callable[[Path], object]:
    """A picture of 32 × 32 pixels in one of Pillow's modes."""
    return lambda path: Image.new(mode, (32, 32)).save(path, format=form, **options)


def tiff(values: np.ndarray, **options: Any) -> Callable[[Path], object]:
    """A TIFF of these values."""
    return lambda path: tifffile.imwrite(path, values, **options)


def cut(make: Callable[[Path], object], keep: int) -> Callable[[Path], object]:
    """The first bytes of a file."""

    def write(path: Path) -> None:
        make(path)
        path.write_bytes(path.read_bytes()[:keep])

    return write


def noise(shape: tuple[int, ...] = (32, 32), dtype: Any = np.uint8) -> np.ndarray:
    """Values that compress badly."""
    return np.random.default_rng(0).integers(0, 255, shape).astype(dtype)


def claiming(height: int, width: int) -> Callable[[Path], object]:
    """A PNG whose header claims a size."""

    def write(path: Path) -> None:
        Image.new("L", (1, 1)).save(path)
        content = path.read_bytes()
        path.write_bytes(content[:16] + struct.pack(">II", width, height) + content[24:])

    return write


def claiming_tiff(path: Path) -> None:
    """A TIFF whose tags claim 60000 × 60000 pixels."""
    tifffile.imwrite(path, noise())
    with tifffile.TiffFile(path, mode="r+") as file:
        for name in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[name].overwrite(60_000)


PACK = "pack images masks -o out.h5"
DAMAGED = "cannot be decoded ({}); the file is damaged"
TYPES = "save it as integers of 8, 16 or 32 bit or as float32"
SMOOTH = np.asarray(Image.fromarray(tiny.image(0)["gt"] * np.uint8(255)).resize((64, 64)).resize((32, 32)))
SHOWN = ", ".join(map(str, np.unique(SMOOTH)[:5]))

PICTURES = {
    "PNG cut short": Broken(
        instead(cut(lambda path: save(path, noise()), 600)),
        PACK,
        f"images/b.png: {DAMAGED.format('image file is truncated')}",
    ),
    "TIFF cut short": Broken(
        instead(cut(tiff(noise()), 600), "images/b.tif"),
        PACK,
        f"images/b.tif: {DAMAGED.format('pixels are missing')}",
    ),
    "no bytes": Broken(instead(Path.touch), PACK, "images/b.png: is empty; copy or save it again"),
    "CMYK": Broken(
        instead(pillow("CMYK", "TIFF"), "images/b.tif"),
        PACK,
        "images/b.tif: is stored as CMYK; save it as grey, RGB or palette",
    ),
    "a GIF under another name": Broken(
        instead(pillow("L", "GIF")), PACK, "images/b.png: is not a PNG or TIFF file; save it as one of them"
    ),
    "text under another name": Broken(
        instead(lambda path: path.write_text("hello"), "images/b.tif"),
        PACK,
        "images/b.tif: is not a PNG or TIFF file; save it as one of them",
    ),
    "a palette among grey": Broken(
        instead(pillow("P")), PACK, "images/b.png: has 3 channels, but 'a' has 1; pack them apart"
    ),
    "64 bit integers": Broken(
        instead(tiff(noise(dtype=np.int64)), "images/b.tif"), PACK, f"images/b.tif: holds int64 values; {TYPES}"
    ),
    "64 bit numbers": Broken(
        instead(tiff(noise(dtype=np.float64)), "images/b.tif"), PACK, f"images/b.tif: holds float64 values; {TYPES}"
    ),
    "NaN": Broken(
        instead(tiff(np.full((32, 32), np.nan, np.float32)), "images/b.tif"),
        PACK,
        "images/b.tif: holds NaN or infinite values; fix or remove it",
    ),
    "several pages": Broken(
        instead(tiff(noise((5, 32, 32))), "images/b.tif"),
        PACK,
        "images/b.tif: holds 5 pages of 32 × 32 and does not say what they are; add --axes TYX if they are frames, "
        "CYX if channels, ZYX with --z if planes in depth",
    ),
    "a moving picture": Broken(
        instead(pillow("L", save_all=True, append_images=[Image.new("L", (32, 32), 9)])),
        PACK,
        "images/b.png: has 2 pages; save each as a file of its own",
    ),
    "a bomb": Broken(
        instead(claiming(90_000, 100_000)),
        PACK,
        "images/b.png: claims 90000 × 100000 pixels, more than this program reads; cut it into pieces",
    ),
    "a TIFF bomb": Broken(
        instead(claiming_tiff, "images/b.tif"),
        PACK,
        "images/b.tif: claims 60000 × 60000 pixels, more than this program reads; cut it into pieces",
    ),
    "no pixels": Broken(
        instead(claiming(5, 0)),
        PACK,
        "images/b.png: cannot be decoded (cannot identify image file 'images/b.png'); the file is damaged",
    ),
    "transparent": Broken(
        instead(pillow("RGBA")),
        PACK,
        "images/b.png: has transparent pixels, whose values are unknown; save it without alpha channel",
    ),
    "a link to nothing": Broken(
        instead(lambda path: path.symlink_to("nothing")),
        PACK,
        "images/b.png: cannot be opened (No such file or directory); name a PNG or TIFF file",
    ),
    "a link to itself": Broken(
        instead(lambda path: path.symlink_to("b.png")),
        PACK,
        "images/b.png: cannot be opened (Too many levels of symbolic links); name a PNG or TIFF file",
    ),
    "unreadable": Broken(
        instead(lambda path: path.symlink_to("/proc/self/mem")),
        PACK,
        "images/b.png: cannot be opened (Input/output error); name a PNG or TIFF file",
    ),
    "a pipe": Broken(instead(os.mkfifo), PACK, "images/b.png: is a pipe; name a PNG or TIFF file"),
    "a folder": Broken(instead(Path.mkdir), PACK, "no image for the label 'b'; remove or add it"),
    "no image": Broken(instead(lambda path: None), PACK, "no image for the label 'b'; remove or add it"),
    "no mask": Broken(
        instead(lambda path: None, "masks/b.png"),
        PACK,
        "no label for 'b'; give each image a label file of the same name, or add --labelled-only",
    ),
    "a mask of another size": Broken(
        instead(lambda path: save(path, noise((32, 31))), "masks/b.png"),
        PACK,
        "images/b.png and masks/b.png: differ in size, 32 × 32 and 32 × 31 pixels; give each image its own label file",
    ),
    "a mask with smooth edges": Broken(
        instead(lambda path: save(path, SMOOTH), "masks/b.png"),
        PACK,
        f"the labels hold {SHOWN}, … 255, neither 0 and 1 nor 0 and 255; say what they are: --labels class (class "
        "indices) or --labels instance (ids of cells); masks with smooth edges have to be saved without",
    ),
    "a mask in colour": Broken(
        instead(lambda path: save(path, noise((32, 32, 3))), "masks/b.png"),
        PACK,
        "masks/b.png: is coloured, so it does not say which label a pixel has; save it as grey, or say what its "
        "colours mean, as --colours cell=#ff0000",
    ),
    "a mask of fractions": Broken(
        instead(tiff(noise(dtype=np.float32) / np.float32(7)), "masks/b.tif"),
        PACK,
        "masks/b.tif: holds float32 values with fractions, but labels are integers; save it as 8 or 16 bit grey",
    ),
    "no folder": Broken(
        pictures, "pack nowhere masks -o out.h5", "nowhere: no such file or folder; name a folder, a file or a glob"
    ),
    "a folder too long": Broken(
        pictures, f"pack {LONG} masks -o out.h5", f"{LONG}: no such file or folder; name a folder, a file or a glob"
    ),
    "more to validate than there is": Broken(
        pictures, f"{PACK} --val 99", "--val: 99 of 3 images cannot be chosen; give a number from 1 to 2"
    ),
    "a number of thousands of digits": Broken(
        pictures,
        f"{PACK} --val {'9' * 5_000}",
        f"--val: none of the images is called '{'9' * 5_000}'; there are 3, from 'a' to 'c'",
    ),
    "no size of a pixel": Broken(
        pictures,
        f"{PACK} --pixel-um nan",
        "--pixel-um: nan is not the size of a pixel; give a number of micrometres above 0",
    ),
    "a name of two lines": Broken(
        named("a\nb", "c"), PACK, "images/a\\nb.png: 'a\\nb' cannot be the name of an image; rename it"
    ),
    "a name that a terminal obeys": Broken(
        named("\x1b[2J", "c"), PACK, "images/\\x1b[2J.png: '\\x1b[2J' cannot be the name of an image; rename it"
    ),
    "a name that is no UTF-8": Broken(
        named("a\udcff", "c"), PACK, "images/a\\udcff.png: 'a\\udcff' cannot be the name of an image; rename it"
    ),
    "a name too long": Broken(
        named("x" * 230, "y"),
        PACK,
        f"images/{'x' * 230}.png: '{'x' * 230}' cannot be the name of an image; rename it",
    ),
}


# HDF5 files


def hdf5(edit: Callable[[h5py.File], object]) -> Make:
    """An experiment on `d.h5`, the tiny data after an edit."""

    def make() -> None:
        Path("e.toml").write_text(tiny.changed({PATH: 'path = "d.h5"'}, tiny.EXPERIMENT))
        tiny.write_data(Path("d.h5"))
        with h5py.File("d.h5", "r+") as file:
            edit(file)

    return make


def hdf5_as(write: Callable[[Path], object]) -> Make:
    """An experiment on `d.h5`, whatever that is."""

    def make() -> None:
        Path("e.toml").write_text(tiny.changed({PATH: 'path = "d.h5"'}, tiny.EXPERIMENT))
        write(Path("d.h5"))

    return make


def stacks(raw: np.ndarray) -> Callable[[Path], object]:
    """A plain file of stacked images, all background."""

    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file["raw"], file["gt"] = raw, np.zeros((len(raw), *raw.shape[-2:]), np.uint8)

    return write


def replaced(key: str, value: Any) -> Callable[[h5py.File], object]:
    """Another value for a key, or none."""

    def edit(file: h5py.File) -> None:
        del file[key]
        if value is not None:
            file[key] = value

    return edit


def claiming_stack(path: Path) -> None:
    """A file of 2 × 10¹² pixels that stores none."""
    with h5py.File(path, "w") as file:
        for key in ("raw", "gt"):
            file.create_dataset(key, (2, 10**6, 10**6), "u1", chunks=(1, 64, 64))


RAW = np.arange(4 * 8 * 8, dtype=np.float32).reshape(4, 8, 8)
HOLE = np.where(RAW == 5, np.nan, RAW)
NORMALIZE = "normalize d.h5 out.h5"
IN_PATH = "e.toml:6:1: [dataset] path: {here}/d.h5: "
OUT_OF_FILE = "is a link, which may lead out of the file; copy the data into the file"

HDF5 = {
    "cut short": Broken(
        hdf5_as(cut(lambda path: tiny.write_data(path), 5_000)), CHECK, f"{IN_PATH}is cut short; copy or make it again"
    ),
    "no HDF5": Broken(
        hdf5_as(lambda path: path.write_text("raw")),
        NORMALIZE,
        "d.h5: is not an HDF5 file; 'yeastexp pack' makes one from images",
    ),
    "no bytes": Broken(hdf5_as(Path.touch), "run e.toml", f"{IN_PATH}is empty; make it again"),
    "a pipe": Broken(hdf5_as(os.mkfifo), NORMALIZE, "d.h5: is a pipe; name an HDF5 file"),
    "not there": Broken(nothing, NORMALIZE, "d.h5: cannot be opened (No such file or directory); name an HDF5 file"),
    "other keys": Broken(
        hdf5(lambda file: file.move("raw", "images")),
        CHECK,
        f"{IN_PATH}has no 'raw' (it holds gt, images, names, splits); store images as 'raw' and their labels as 'gt'",
    ),
    "a key that a terminal obeys": Broken(
        hdf5(lambda file: file.move("raw", "\x1b[2J\n")),
        NORMALIZE,
        "d.h5: has no 'raw' (it holds \\x1b[2J\\n, gt, names, splits); store images as 'raw' and their labels as 'gt'",
    ),
    "one picture": Broken(
        hdf5_as(stacks(RAW[0])), CHECK, f"{IN_PATH}'raw' has shape (8, 8); it must be (N, H, W) or (N, C, H, W)"
    ),
    "NaN": Broken(hdf5_as(stacks(HOLE)), NORMALIZE, "d.h5: image '000' holds NaN or infinite values; fix or remove it"),
    "NaN in training": Broken(
        hdf5_as(stacks(HOLE)),
        "check e.toml",
        (CHECKING, "{here}/d.h5: image '000' holds NaN or infinite values; fix or remove it"),
    ),
    "infinite": Broken(
        hdf5_as(stacks(np.where(RAW == 5, np.inf, RAW))),
        NORMALIZE,
        "d.h5: image '000' holds NaN or infinite values; fix or remove it",
    ),
    "constant": Broken(
        hdf5_as(stacks(RAW * 0 + 7)),
        NORMALIZE,
        "d.h5: all pixels have the value 7, so their spread is 0; check the images",
    ),
    "no image": Broken(hdf5_as(stacks(RAW[:0])), CHECK, f"{IN_PATH}holds no image"),
    "no validation": Broken(
        hdf5(replaced("splits/val", None)),
        "run e.toml",
        f"{IN_PATH}leaves no validation image; choose others with 'val'",
    ),
    "a link into another file": Broken(
        hdf5(replaced("gt", h5py.ExternalLink("/etc/passwd", "/gt"))), NORMALIZE, f"d.h5: 'gt' {OUT_OF_FILE}"
    ),
    "a soft link": Broken(hdf5(replaced("gt", h5py.SoftLink("/raw"))), CHECK, f"{IN_PATH}'gt' {OUT_OF_FILE}"),
    "pixels in another file": Broken(
        hdf5(
            lambda file: (
                replaced("gt", None)(file),
                file.create_dataset("gt", (6, 32, 32), "u1", external=[("/etc/passwd", 0, 6 * 32 * 32)]),
            )
        ),
        NORMALIZE,
        "d.h5: 'gt' is kept in another file; copy the data into this file",
    ),
    "objects": Broken(
        hdf5_as(stacks(np.array([b"a", b"b"], object).reshape(2, 1, 1))),
        NORMALIZE,
        "d.h5: 'raw' holds object values; store numbers",
    ),
    "pixels of parts": Broken(
        hdf5_as(stacks(np.zeros((2, 3, 3), [("x", "u1"), ("y", "f4")]))),
        NORMALIZE,
        "d.h5: 'raw' holds [('x', 'u1'), ('y', '<f4')] values; store numbers",
    ),
    "a bomb": Broken(
        hdf5_as(claiming_stack),
        NORMALIZE,
        "d.h5: image '000' of shape (1000000, 1000000) is larger than this program reads; cut it into pieces",
    ),
    "JSON without end": Broken(
        hdf5(lambda file: file.attrs.modify("provenance", "[" * 30_000)),
        NORMALIZE,
        "d.h5: attribute 'provenance' is not a JSON object; make the file again",
    ),
    "figures that are none": Broken(
        hdf5(lambda file: file.attrs.modify("normalization", json.dumps({"mean": "1", "std": 0}))),
        CHECK,
        f"{IN_PATH}attribute 'normalization' has no 'mean' and 'std'; make the file again",
    ),
    "another version": Broken(
        hdf5(lambda file: file.attrs.create("yeastexp_layout", "1\n")),
        CHECK,
        f"{IN_PATH}has layout '1\\n', this version reads 1; use the version that wrote it",
    ),
    "labels of no class": Broken(
        hdf5(lambda file: file["gt"].write_direct(np.full((1, 1, 1), 200, np.uint8), dest_sel=np.s_[:1, :1, :1])),
        CHECK,
        (
            CHECKING,
            "image 'square_0': its labels hold 0, 1, 200 where [task] classes has 0 to 1; "
            "pack the masks again, or name all classes",
        ),
    ),
    "read and written at once": Broken(
        hdf5(lambda file: None),
        "normalize d.h5 d.h5 --force",
        "d.h5: is the file that is read; name another one to write",
    ),
    "normalised already": Broken(
        hdf5(lambda file: file.attrs.modify("normalization", '{"mean": 1, "std": 2}')),
        NORMALIZE,
        "d.h5: is normalised already; give the file it was made from",
    ),
    **{
        f"an image called {name[:9]!r}": Broken(
            hdf5(replaced("names", [*(f"square_{index}" for index in range(5)), name])),
            "run e.toml",
            f"{IN_PATH}'names' holds {name[:200]!r}, which cannot be the name of an image; make the file again",
        )
        for name in ("../../x", "/etc/passwd", "a\nb", "\x1b[2J", "x" * 5_000)
    },
}


# Disks


def beside_a_file(make: Make) -> Make:
    """A file called `file`, where a folder would have to be."""
    return lambda: (make(), Path("file").touch())


NO_ROOM = "cannot be written ({}); make room or name another place"
ELSEWHERE = "name another place"
FULL = "File too large"

DISKS = {
    "pack into a file": Broken(
        beside_a_file(pictures), "pack images masks -o file/o.h5", f"file/o.h5: {NO_ROOM.format('File exists')}", 1
    ),
    "pack where nothing can be written": Broken(
        pictures,
        "pack images masks -o /proc/out.h5",
        f"/proc/out.h5: {NO_ROOM.format('No such file or directory')}",
        1,
    ),
    "pack into too long a name": Broken(
        pictures, f"pack images masks -o {LONG}", f"{LONG}: File name too long; {ELSEWHERE}", 1
    ),
    "pack onto a full disk": Broken(pictures, PACK, f"out.h5: {NO_ROOM.format(FULL)}", 1, room=3_000),
    "normalize onto a full disk": Broken(
        hdf5(lambda file: None), NORMALIZE, f"out.h5: {NO_ROOM.format(FULL)}", 1, room=3_000
    ),
    "synth onto a full disk": Broken(
        nothing, "synth -o s.h5 --images 2 --size 64", f"s.h5: {NO_ROOM.format(FULL)}", 1, room=3_000
    ),
    "synth onto a file": Broken(
        lambda: Path("s.h5").touch(), "synth -o s.h5", "s.h5: exists; add --force to replace it, or name another file"
    ),
    "run where a file is": Broken(
        lambda: (experiment()(), Path("runs").touch()),
        "run e.toml",
        (RUNNING, f"runs/e: Not a directory; {ELSEWHERE}"),
        1,
    ),
    "run where a name is taken": Broken(
        lambda: (experiment()(), Path("runs").mkdir(), Path("runs/e").touch()),
        "run e.toml",
        (RUNNING, f"runs/e: File exists; {ELSEWHERE}"),
        1,
    ),
    "run where nothing can be written": Broken(
        lambda: (experiment()(), Path("runs").symlink_to("/proc")),
        "run e.toml",
        (RUNNING, f"runs/e: No such file or directory; {ELSEWHERE}"),
        1,
    ),
}


# Runs


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step; not to be written to."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", shlex.split("yeastexp run tiny.toml --set train.steps=1"))
        tiny.write_experiment(folder)
        threads = torch.get_num_threads()
        main()
        torch.set_num_threads(threads)
    return folder / "runs" / "tiny" / "001"


def edited(name: str, edit: Callable[[str], str]) -> Callable[[Path], object]:
    """A text file of the run after an edit."""
    return lambda run: (run / name).write_text(edit((run / name).read_text()))


PREDICT = "predict run images -o out"
BEST = "run/checkpoints/best.pt"
NO_RUN = "run: not a run directory; 'run' prints its path on the last line"


def best(write: Callable[[Path], object]) -> Callable[[Path], object]:
    """Another best checkpoint."""
    return lambda run: write(run / "checkpoints" / "best.pt")


RUNS: dict[str, tuple[Callable[[Path], object], Broken]] = {
    "not there": (shutil.rmtree, Broken(nothing, PREDICT, NO_RUN)),
    "a file": (lambda run: (shutil.rmtree(run), run.touch()), Broken(nothing, PREDICT, NO_RUN)),
    "without its experiment": (lambda run: (run / "experiment.toml").unlink(), Broken(nothing, PREDICT, NO_RUN)),
    "without a checkpoint": (
        best(Path.unlink),
        Broken(nothing, PREDICT, f"{BEST}: no such checkpoint; --checkpoint last takes the other one"),
    ),
    "of a newer version": (
        edited("experiment.toml", lambda text: text.replace("[train]\n", "[train]\nfuture = 1\n")),
        Broken(nothing, PREDICT, f"run/experiment.toml:{{line}}:1: [train] future: unknown key {TRAIN_KEYS}"),
    ),
    "of other classes": (
        edited("experiment.toml", lambda text: text.replace('"cell",', '"cell", "bud",')),
        Broken(
            nothing,
            PREDICT,
            f"run/experiment.toml: is not the experiment of {BEST} (task.classes was ('background', 'cell'), is "
            "('background', 'cell', 'bud')); put it back",
        ),
    ),
    "of another model": (
        edited("experiment.toml", lambda text: text.replace("width = 2", "width = 3")),
        Broken(
            nothing,
            PREDICT,
            f"run/experiment.toml: is not the experiment of {BEST} (model.width was 2, is 3); put it back",
        ),
    ),
    "given a picture of other channels": (
        lambda run: save(Path("images/a.png"), noise((32, 32, 3))),
        Broken(nothing, PREDICT, "images/a.png: has 3 channels; the run was trained on 1; save it as a grey image"),
    ),
    "given a broken picture": (
        lambda run: Path("images/a.png").write_bytes(b""),
        Broken(nothing, PREDICT, "images/a.png: is empty; copy or save it again"),
    ),
    "given a picture of no numbers": (
        lambda run: (
            Path("images/a.png").unlink(),
            tifffile.imwrite("images/a.tif", np.full((32, 32), np.inf, np.float32)),
        ),
        Broken(nothing, PREDICT, "images/a.tif: holds NaN or infinite values; fix or remove it"),
    ),
    "given a pipe": (
        lambda run: os.mkfifo("pipe"),
        Broken(nothing, "predict run pipe -o out", "pipe: is a pipe; name a PNG or TIFF file"),
    ),
    "given a device": (
        lambda run: None,
        Broken(
            nothing,
            "predict run /dev/zero -o out",
            "/dev/zero: is not a PNG or TIFF file; save it as one of them",
        ),
    ),
    "given its own folder": (
        lambda run: None,
        Broken(
            nothing,
            "predict run images -o images",
            "images/a.png: is one of the images; choose another folder for the masks",
        ),
    ),
    "writing into a file": (
        lambda run: Path("file").touch(),
        Broken(nothing, "predict run images -o file/x", f"file/x/a.png: {NO_ROOM.format('Not a directory')}", 1),
    ),
    "writing onto a file": (
        lambda run: Path("file").touch(),
        Broken(
            nothing, "predict run images -o file", "file: is a file, but results are written into a folder; name one"
        ),
    ),
    "writing where nothing can be written": (
        lambda run: None,
        Broken(
            nothing, "predict run images -o /proc", f"/proc/a.png: {NO_ROOM.format('No such file or directory')}", 1
        ),
    ),
    "writing onto a full disk": (
        lambda run: Path("out").mkdir(),
        Broken(nothing, PREDICT, f"out/a.png: {NO_ROOM.format(FULL)}", 1, room=50),
    ),
}


class Evil:
    """What leaves a file behind where a pickle is trusted."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("obeyed",)


def resaved(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """The best checkpoint after an edit."""

    def write(path: Path) -> None:
        state = torch.load(path, weights_only=True)
        edit(state)
        torch.save(state, path)

    return best(write)


DIGEST = "damaged (its contents do not match their digest); --checkpoint last takes the other one"
RUNS |= {
    "with other weights": (
        resaved(lambda state: state["model"]["head.weight"].fill_(torch.nan)),
        Broken(nothing, PREDICT, f"{BEST}: {DIGEST}"),
    ),
    "with less in its checkpoint": (
        resaved(lambda state: state.pop("transforms")),
        Broken(nothing, PREDICT, f"{BEST}: {DIGEST}"),
    ),
    "with a checkpoint of another version": (
        resaved(lambda state: state.update(format=99)),
        Broken(
            nothing,
            PREDICT,
            f"{BEST}: has format 99, of another version of yeastexp; this one reads format {checkpoints.FORMAT}; "
            "--checkpoint last takes the other one",
        ),
    ),
}

NO_CHECKPOINT: dict[str, Callable[[Path], object]] = {
    "no bytes": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello"),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:5_000]),
    "a program": lambda path: torch.save({"model": Evil()}, path),
    "a plain pickle": lambda path: path.write_bytes(pickle.dumps(Evil())),
    "a list": lambda path: torch.save([1], path),
    "nothing": lambda path: torch.save({}, path),
}

SECTIONS = {"toml": TOML, "plugins": PLUGINS, "pictures": PICTURES, "hdf5": HDF5, "disks": DISKS}
CASES = {f"{section}: {name}": case for section, cases in SECTIONS.items() for name, case in cases.items()}


def meet(case: Broken, call: Call, here: Path, **also: object) -> None:
    """Give a case to its command; compare all it says and leaves."""
    before = listing(here)
    with full_disk(case.room) if case.room else nullcontext():
        status, out, err = call(case.command)
    lines = [case.says] if isinstance(case.says, str) else case.says
    expected = "".join(f"{line}\n" for line in lines)
    for key, value in {"here": here, **also}.items():
        expected = expected.replace(f"{{{key}}}", str(value))
    assert err == expected
    assert (status, out) == (case.status, "")
    assert listing(here) == before, "something is left behind"


@pytest.mark.parametrize("name", CASES)
def test_a_broken_input(call: Call, tmp_path: Path, name: str) -> None:
    CASES[name].make()
    meet(CASES[name], call, tmp_path)


@pytest.mark.parametrize("name", RUNS)
def test_a_broken_run(call: Call, tmp_path: Path, trained: Path, name: str) -> None:
    shutil.copytree(trained, "run")
    save(Path("images/a.png"), tiny.image(0)["raw"])
    edit, case = RUNS[name]
    edit(Path("run"))
    toml = Path("run/experiment.toml")
    line = toml.read_text().partition("future")[0].count("\n") + 1 if toml.is_file() else 0
    meet(case, call, tmp_path, line=line)


@pytest.mark.parametrize("name", NO_CHECKPOINT)
def test_what_is_no_checkpoint(call: Call, tmp_path: Path, trained: Path, name: str) -> None:
    shutil.copytree(trained, "run")
    save(Path("images/a.png"), tiny.image(0)["raw"])
    best(NO_CHECKPOINT[name])(Path("run"))
    before = listing(tmp_path)
    status, out, err = call(PREDICT)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"{BEST}: damaged, or no checkpoint of yeastexp")
    assert listing(tmp_path) == before, "something is left behind, or a pickle was obeyed"


# Odd, and right

BITS = tiny.image(0)["gt"]
GREY = noise()
COLOURS = np.array([[9, 9, 9], [200, 0, 0]], np.uint8)


def with_palette(path: Path) -> None:
    """The bits as indices into two colours."""
    picture = Image.fromarray(BITS).convert("P")
    picture.putpalette(COLOURS.ravel().tolist())
    picture.save(path)


def png(values: np.ndarray) -> Callable[[Path], object]:
    """A PNG of these values."""
    return lambda path: save(path, values)


ODD: dict[str, tuple[Callable[[Path], object], np.ndarray, Callable[[Path], object], np.ndarray]] = {
    "1 bit": (png(BITS.astype(bool)), BITS[None], png(BITS.astype(bool)), BITS),
    "palettes": (with_palette, np.moveaxis(COLOURS[BITS], -1, 0), with_palette, BITS),
    "fractions": (tiff(GREY / np.float32(7)), (GREY / np.float32(7))[None], tiff(BITS), BITS),
    "a TIFF under another name": (tiff(GREY, byteorder=">"), GREY[None], tiff(BITS * np.uint8(255)), BITS),
    "1 × 1": (png(GREY[:1, :1]), GREY[None, :1, :1], png(BITS[:1, :1] * 0 + 1), BITS[:1, :1] * 0 + 1),
    "a mask of three equal channels": (png(GREY), GREY[None], png(np.stack([BITS] * 3, -1)), BITS),
    "16 bit": (png(GREY * np.uint16(257)), (GREY * np.uint16(257))[None], png(BITS * np.uint16(255)), BITS),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_picture_is_packed_as_it_is(call: Call, name: str) -> None:
    image, raw, mask, gt = ODD[name]
    for folder, make in (("images", image), ("masks", mask)):
        Path(folder).mkdir()
        for stem in ("a", "b"):
            make(Path(folder, f"{stem}.png"))
    assert call(PACK)[0] == 0
    packed = hdf5_file.Reader(Path("out.h5")).read("b")
    np.testing.assert_array_equal(packed["raw"], raw, strict=True)
    np.testing.assert_array_equal(packed["gt"], gt, strict=True)


@pytest.mark.parametrize("text", [b"\xef\xbb\xbf" + tiny.EXPERIMENT.encode(), tiny.EXPERIMENT.replace("\n", "\r\n")])
def test_an_experiment_from_another_editor_is_read(call: Call, text: str | bytes) -> None:
    experiment()()
    written(text)()
    status, out, err = call(CHECK)
    assert (status, out.splitlines()[-1], err) == (0, "e.toml: no faults", f"{CHECKING}\n")


def test_a_name_that_is_no_utf8_is_printed_as_it_is(tmp_path: Path) -> None:
    tiny.write_data(tmp_path / "data.h5")
    done = subprocess.run(
        [sys.executable, "-m", "yeastexp", "normalize", "data.h5", b"\xff.h5"],
        cwd=tmp_path,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict", "PYTHONPATH": str(Path(hdf5_file.__file__).parents[2])},
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (0, b"\xff.h5", b"")
    assert {path.name for path in tmp_path.iterdir()} == {"data.h5", os.fsdecode(b"\xff.h5")}


# Endings of any command


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        (MemoryError(), "out of memory; try smaller images, or a smaller [patches] size\n"),
        (MemoryError("1 GiB"), "out of memory (1 GiB); try smaller images, or a smaller [patches] size\n"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has 8.00 GiB."),
            "out of memory (Tried to allocate 2.50 GiB); try smaller images, or a smaller [patches] size\n",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "a\nb"), f"a\\nb: Permission denied; {ELSEWHERE}\n"),
        (OSError(errno.EROFS, "Read-only file system", "a"), f"a: Read-only file system; {ELSEWHERE}\n"),
        (OSError(errno.EISDIR, "Is a directory", "a"), "a: Is a directory; move that folder away\n"),
    ],
)
def test_what_a_machine_lacks_is_a_line(
    call: Call, monkeypatch: pytest.MonkeyPatch, raised: BaseException, says: str
) -> None:
    def verb(*arguments: object) -> None:
        raise raised

    monkeypatch.setattr(check_module, "check", verb)
    assert call("check x.toml") == (1, "", says)


@pytest.mark.parametrize(
    "raised", [OSError("no file in it"), OSError(errno.EIO, "no file in it"), RuntimeError("no file in it")]
)
def test_what_is_no_answer_of_the_system_is_a_bug(
    call: Call, monkeypatch: pytest.MonkeyPatch, raised: BaseException
) -> None:
    def verb(*arguments: object) -> None:
        raise raised

    monkeypatch.setattr(check_module, "check", verb)
    with pytest.raises(type(raised), match="no file in it"):
        call("check x.toml")


@pytest.mark.filterwarnings("default")
def test_a_broken_installed_plugin_is_a_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("the\x1b[2Jirs", "no_such_module", "yeastexp.plugins")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    plugins.load_installed.cache_clear()
    status, out, err = call("list loss dice")
    plugins.load_installed.cache_clear()
    assert (status, out.splitlines()[0]) == (0, f"loss 'dice'   {DICE}")
    assert err == (
        "warning: plugin 'the\\x1b[2Jirs' (no_such_module) was left out: "
        "ModuleNotFoundError: No module named 'no_such_module'\n"
    )


def test_the_table_is_long() -> None:
    assert len(CASES) + len(RUNS) + len(ODD) > 140
