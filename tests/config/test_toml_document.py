"""TOML files merged into one tree in which every value knows where it was written."""

from __future__ import annotations

import datetime
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from yeastexp.config.toml_document import (
    DEEPEST,
    LARGEST_FAMILY,
    LARGEST_FILE,
    Document,
    Keys,
    override,
    parse,
    positions,
    read,
)
from yeastexp.errors import UserError

LENGTHS = {("train",): ("epochs", "steps", "budget")}


def paths(value: Any, at: Keys = ()) -> Iterator[Keys]:
    """The keys of everything in parsed TOML."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*at, key)
        yield from paths(one, (*at, key))


def first_key(text: str) -> str | None:
    """The key that a piece of TOML begins with, as its parser reads it; nothing where it begins with none."""
    line = text.partition("\n")[0].lstrip("[ ")
    for end in range(1, len(line)):
        if line[end] in " \t.=]":
            try:
                return str(next(iter(tomllib.loads(f"{line[:end]}.x = 0\n"))))
            except tomllib.TOMLDecodeError:
                continue
    return None


def keys_of_header(text: str) -> list[str]:
    """The dotted keys of the header that a text begins with."""
    line = text.partition("\n")[0].strip("[ ")
    for end in range(len(line), 0, -1):
        try:
            value: Any = tomllib.loads(f"[{line[:end].rstrip('] ')}]")
        except tomllib.TOMLDecodeError:
            continue
        keys = []
        while value:
            ((key, value),) = value.items()
            keys.append(key)
        return keys
    return []


def check_positions(text: str) -> None:
    """Every key path that tomllib parses has a position, no other has one, and the text there starts the key."""
    values = tomllib.loads(text)
    found = positions(text)
    assert set(found) == set(paths(values))
    lines = text.split("\n")
    for keys, (line, column) in found.items():
        rest = "\n".join([lines[line - 1][column - 1 :], *lines[line:]])
        named = [key for key in keys if isinstance(key, str)]
        if rest.startswith("[") and column == 1 and keys_of_header(rest)[: len(named)] == named:
            continue
        if isinstance(keys[-1], str):
            # A dotted key starts at its first part, which may be any of the path.
            assert first_key(rest) in named, (keys, line, column, rest[:40])
        else:
            value = values
            for key in keys:
                value = value[key]  # type: ignore[index]
            assert element(rest) == value, (keys, line, column, rest[:40])


def element(text: str) -> Any:
    """The value that a text begins with."""
    ends = [index for index, character in enumerate(text) if character in ",]}#\n"] + [len(text)]
    for end in ends:
        for last in (end, end + 1):
            try:
                return tomllib.loads(f"x = {text[:last]}")["x"]
            except tomllib.TOMLDecodeError:
                continue
    raise AssertionError(f"no value at {text[:40]!r}")


KEYS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["a", "b-c", "1", "a.b", "]", '"', "#", "="])
SCALARS = (
    st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.text(st.characters(codec="utf-8"), max_size=12)
    | st.sampled_from(["#", "]", "}", ", ", "\n[x]\n", '"""', "'''", "\\", 'a"', "x = 1\ny = 2\n"])
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.just(datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC))
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)


@given(DOCUMENTS, st.booleans())
@settings(max_examples=100, deadline=None)
def test_positions_of_generated_documents(values: dict[str, Any], multiline: bool) -> None:
    text = tomli_w.dumps(values, multiline_strings=multiline).replace("\r\n", "\n")
    check_positions(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing but a comment",
        "\n\n  a = 1  # b = 2\n\tc = 3",
        '"quoted key" = 1\n\'a.b\' = 2\n"\\u00e4 \\"x\\" ]" = 3\nä = 4\n'.replace("ä", "'ä'"),
        "a.b.c = 1\na . d = 2\n'e'.\"f.g\" = 3\na.b.e = 4",
        "[a.b]\nx = 1\n[a]\ny = 2\n[ a . c ]\nz = 3",
        '["x.y"."]"]\na = 1\n[\'z#\'] # [no]\nb = 2',
        'a = """one\n# no comment\n[no.table]\nb = 1]]\n"""\nc = 1',
        "a = '''\n# no comment '' ]\nb = 1'''\nc = 1",
        'a = """""x"""\nb = """x"""""\nc = """\\"""\\\n   y"""\nd = \'\'\'\'x\'\'\'\'\'\ne = ""\nf = \'\'\ng = """"""',
        'a = "\\\\"\nb = "\\"] # }"\nc = \'\\\'',
        "a = {x = 1, y.z = 2, 'q r' = [1, {s = '}'}], t = {}}\nb = 2",
        "a = [ # a comment ] with [ brackets\n  1, # one, two\n\n  [2, 'x]y', [],], # ]\n  {b = 3},\n]\nc = 4",
        "a = [[1, 2], ['#'], []]\nb = []\nc = [1,]",
        "[[a]]\nx = 1\n[[a.b]]\ny = 1\n[[a.b]]\n[a.b.c]\nz = 1\n[[a]]\n[[a.b]]\n[a.d]\n[[e.f]]",
        "a = 1979-05-27 07:32:00Z\nb = 07:32:00\nc = -inf\nd = 1_000\ne = 0xff\nf = true\ng = +1.5e-3 # h",
        "[a]\n[a.b]\n[b]\na = {}\n[b.c]",
        "1 = 1\n2.3 = 4\n-_ = 5\ntrue = 6",
    ],
)
def test_positions_of_tricky_documents(text: str) -> None:
    check_positions(text)


def test_positions_are_exact() -> None:
    text = "a = 1\n[b]\n  c.d = [1,\n    {e = 2}]\n[[f.g]]\nh = 3\n[[f.g]]\n"
    assert positions(text) == {
        ("a",): (1, 1),
        ("b",): (2, 1),
        ("b", "c"): (3, 3),
        ("b", "c", "d"): (3, 3),
        ("b", "c", "d", 0): (3, 10),
        ("b", "c", "d", 1): (4, 5),
        ("b", "c", "d", 1, "e"): (4, 6),
        ("f",): (5, 1),
        ("f", "g"): (5, 1),
        ("f", "g", 0): (5, 1),
        ("f", "g", 0, "h"): (6, 1),
        ("f", "g", 1): (7, 1),
    }


def test_positions_take_time_in_proportion(benchmark_text: str = "k{} = [{}, 1, 2, 3]\n") -> None:
    text = "".join(benchmark_text.format(i, i) for i in range(20_000))
    assert len(positions(text)) == 100_000


# Files that cannot be read


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a = ", "f.toml:1:1: Invalid value at the end of the file"),
        ("a = 1\nb = [1, 2\n\n", "f.toml:2:1: Unclosed array at the end of the file"),
        ("a = 1\n\nb 2", "f.toml:3:3: Expected '=' after a key in a key/value pair"),
        ("a = 1\na = 2\nb = 3", "f.toml:2:6: Cannot overwrite a value"),
        ("[a]\n[b]\n[a]\n", "f.toml:3:3: Cannot declare ('a',) twice"),
        ("[a]\nx = 'y\n", """f.toml:2:1: Expected "'" at the end of the file"""),
        ('[a]\nx = "y\nz"', "f.toml:2:7: Illegal character '\\n'"),
    ],
)
def test_a_syntax_error_names_its_line(text: str, fault: str) -> None:
    with pytest.raises(UserError) as error:
        parse(text, "f.toml", Path())
    assert str(error.value) == fault


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 5_000 + "]" * 5_000,
        "x = " + "[" * 100 + "]" * 100,
        "x = " + "{a = " * 100 + "1" + "}" * 100,
        ".".join("a" * 3_000) + " = 1",
        "[" + ".".join("a" * 3_000) + "]",
    ],
    ids=["arrays", "fewer arrays", "inline tables", "dotted key", "header"],
)
def test_a_deep_document_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^f\.toml(:1:\d+)?: nested too deeply; an experiment needs three levels$"):
        parse(text, "f.toml", Path())


def test_the_deepest_document_is_read() -> None:
    text = "x = " + "[" * DEEPEST + "]" * DEEPEST
    assert len(parse(text, "f.toml", Path()).places) == DEEPEST


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(UserError) as error:
        parse(f"x = 1{'0' * 5_000}", "f.toml", Path())
    assert str(error.value) == "f.toml: an integer has thousands of digits; TOML's have 64 bits"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"a = 1\n\xff\xfe", "{path}: not UTF-8 text (byte 6); save it as UTF-8"),
        ("a = 'ä'".encode("utf-16"), "{path}: not UTF-8 text (byte 0); save it as UTF-8"),
        (b"#" * (LARGEST_FILE + 1), "{path}: 1000001 bytes are more than an experiment file has; wrong file?"),
    ],
)
def test_an_unreadable_file(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "f.toml"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read(path, {})
    assert str(error.value) == fault.format(path=path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path / "none.toml", {})
    assert str(error.value) == f"{tmp_path / 'none.toml'}: cannot be read (No such file or directory)"


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_byte_order_mark_and_line_ends(tmp_path: Path, before: bytes, end: bytes) -> None:
    path = tmp_path / "f.toml"
    path.write_bytes(before + end.join([b"a = 1", b"[b]", b'  c = """x', b'y"""', b"d = 2", b""]))
    document = read(path, {})
    assert document.values == {"a": 1, "b": {"c": "x\ny", "d": 2}}
    assert [str(document.place(keys)) for keys in (("a",), ("b", "c"), ("b", "d"))] == [
        f"{path}:1:1",
        f"{path}:3:3",
        f"{path}:5:1",
    ]


# A place


def test_the_place_of_a_missing_key_is_its_table() -> None:
    document = parse("[a.b]\nc = 1\n", "f.toml", Path())
    assert str(document.place(("a", "b", "x"))) == "f.toml:1:1"
    assert str(document.place(("a", "b", "c", 3))) == "f.toml:2:1"
    assert str(document.place(("z",))) == "f.toml:1:1"


def test_the_place_of_a_table_named_only_on_the_way() -> None:
    document = parse("x = 1\n[a.b]\n", "f.toml", Path())
    assert str(document.place(("a",))) == "f.toml:2:1"


# What a file extends


Family = Callable[..., Document]


@pytest.fixture
def family(tmp_path: Path) -> Family:
    """`family(parent, child)` reads a child that extends a parent."""

    def write(parent: str, child: str) -> Document:
        (tmp_path / "parent.toml").write_text(parent)
        (tmp_path / "child.toml").write_text(f'extends = "parent.toml"\n{child}')
        return read(tmp_path / "child.toml", LENGTHS)

    return write


@pytest.mark.parametrize(
    ("parent", "child", "merged"),
    [
        ("[task]\na = 1\nb = 2", "[task]\nb = 3\nc = 4", {"task": {"a": 1, "b": 3, "c": 4}}),
        ("[m]\nname = 'x'\na = 1", "[m]\nb = 2", {"m": {"name": "x", "a": 1, "b": 2}}),
        ("[m]\nname = 'x'\na = 1", "[m]\nname = 'x'\nb = 2", {"m": {"name": "x", "a": 1, "b": 2}}),
        ("[m]\nname = 'x'\na = 1", "[m]\nname = 'y'\nb = 2", {"m": {"name": "y", "b": 2}}),
        ("[m]\na = 1", "[m]\nname = 'y'", {"m": {"name": "y"}}),
        ("[[t]]\nname = 'x'\na = 1\n[[t]]\nname = 'y'", "[[t]]\nname = 'x'", {"t": [{"name": "x"}]}),
        ("[[t]]\nname = 'x'", "t = []", {"t": []}),
        ("[a]\nl = [1, 2, 3]", "[a]\nl = [4]", {"a": {"l": [4]}}),
        ("[a.b]\nx = 1\ny = 2", "[a.b]\nx = 3", {"a": {"b": {"x": 3, "y": 2}}}),
        ("[a]\nx = 1", "a = 2", {"a": 2}),
        ("a = 2", "[a]\nx = 1", {"a": {"x": 1}}),
        ("[train]\nepochs = 1\nbatch_size = 2", "[train]\nsteps = 3", {"train": {"batch_size": 2, "steps": 3}}),
        ("[train]\nepochs = 1\nsteps = 2", "[train]\nbudget = '5m'", {"train": {"budget": "5m"}}),
        ("[train]\nepochs = 1", "[train]\nepochs = 2", {"train": {"epochs": 2}}),
        ("[train]\nepochs = 1", "[train]\nbatch_size = 2", {"train": {"epochs": 1, "batch_size": 2}}),
        ("[train]\nepochs = 1", "[train]\nsteps = 2\nbudget = '1m'", {"train": {"steps": 2, "budget": "1m"}}),
        ("[other]\nepochs = 1", "[other]\nsteps = 2", {"other": {"epochs": 1, "steps": 2}}),
        ("name = 'parent'\na = 1", "", {"a": 1}),
        ("name = 'parent'", "name = 'child'", {"name": "child"}),
    ],
)
def test_a_child_is_merged_into_its_parent(family: Family, parent: str, child: str, merged: dict[str, Any]) -> None:
    document = family(parent, child)
    assert document.values == merged
    assert set(paths(merged)) <= set(document.places)


def test_every_value_keeps_the_place_that_wrote_it(family: Family, tmp_path: Path) -> None:
    document = family("[m]\na = 1\nb = 2\nc = [1, 2]\n[o]\nx = 1", "[m]\nb = 3\nc = [3]\n")
    parent, child = tmp_path / "parent.toml", tmp_path / "child.toml"
    assert str(document.top) == f"{child}:1:1"
    assert {keys: str(place) for keys, place in document.places.items()} == {
        ("m",): f"{child}:2:1",
        ("m", "a"): f"{parent}:2:1",
        ("m", "b"): f"{child}:3:1",
        ("m", "c"): f"{child}:4:1",
        ("m", "c", 0): f"{child}:4:6",
        ("o",): f"{parent}:5:1",
        ("o", "x"): f"{parent}:6:1",
    }


def test_a_parent_in_another_folder_keeps_its_own_paths(tmp_path: Path) -> None:
    (tmp_path / "common" / "deep").mkdir(parents=True)
    (tmp_path / "study").mkdir()
    (tmp_path / "common" / "deep" / "root.toml").write_text("[a]\nx = 'x.h5'\ny = 'y.h5'")
    (tmp_path / "common" / "base.toml").write_text("extends = 'deep/root.toml'\n[a]\ny = 'z.h5'")
    child = tmp_path / "study" / "child.toml"
    child.write_text("extends = '../common/base.toml'\n[a]\nw = 'w.h5'")
    document = read(child, {})
    assert document.values == {"a": {"x": "x.h5", "y": "z.h5", "w": "w.h5"}}
    folders = {key: document.place(("a", key)).folder.resolve() for key in "xyw"}
    assert folders == {
        "x": tmp_path / "common" / "deep",
        "y": tmp_path / "common",
        "w": tmp_path / "study",
    }


@pytest.mark.parametrize("circle", [["a.toml"], ["b.toml", "a.toml"], ["b.toml", "c.toml", "./b.toml"]])
def test_a_circle_is_refused(tmp_path: Path, circle: list[str]) -> None:
    files = ["a.toml", "b.toml", "c.toml"]
    for file, parent in zip(files, circle, strict=False):
        (tmp_path / file).write_text(f"x = 1\nextends = '{parent}'")
    with pytest.raises(UserError) as error:
        read(tmp_path / "a.toml", {})
    last = tmp_path / files[len(circle) - 1]
    assert str(error.value) == f"{last}:2:1: extends: '{circle[-1]}' extends this file in turn; break the circle"


def test_a_family_has_a_largest_size(tmp_path: Path) -> None:
    for index in range(LARGEST_FAMILY + 1):
        (tmp_path / f"{index}.toml").write_text(f"extends = '{index + 1}.toml'")
    (tmp_path / f"{LARGEST_FAMILY}.toml").write_text("x = 1")
    assert read(tmp_path / "1.toml", {}).values == {"x": 1}
    with pytest.raises(UserError) as error:
        read(tmp_path / "0.toml", {})
    last = tmp_path / f"{LARGEST_FAMILY - 1}.toml"
    assert str(error.value) == f"{last}:1:1: extends: 20 files extend one another by now; write some as one"


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("'none.toml'", "no file '{here}/none.toml'"),
        ("''", "no file '{here}'"),
        ("'.'", "no file '{here}'"),
        ('"a\\u0000b"', "no file '{here}/a\N{REPLACEMENT CHARACTER}b'"),
        (f"'{'x' * 300}'", f"no file '{{here}}/{'x' * 300}'"),
        ("'circle.toml'", "no file '{here}/circle.toml'"),
        ("['a.toml', 'b.toml']", "should be one file name, got ['a.toml', 'b.toml']"),
        ("3", "should be one file name, got 3"),
    ],
)
def test_a_wrong_parent(tmp_path: Path, written: str, fault: str) -> None:
    path = tmp_path / "child.toml"
    path.write_text(f"\nextends = {written}")
    (tmp_path / "circle.toml").symlink_to("circle.toml")
    with pytest.raises(UserError) as error:
        read(path, {})
    assert str(error.value) == f"{path}:2:1: extends: {fault.format(here=tmp_path)}"


def test_a_syntax_error_in_the_parent_names_the_parent(tmp_path: Path) -> None:
    (tmp_path / "parent.toml").write_text("a = 1\nb 2")
    (tmp_path / "child.toml").write_text("extends = 'parent.toml'")
    with pytest.raises(UserError, match=rf"^{tmp_path}/parent\.toml:2:3: Expected '='"):
        read(tmp_path / "child.toml", {})


# Settings from outside

TEXT = """\
name = "x"
[train]
epochs = 3
batch_size = 8
[model]
name = "unet"
width = 16
[[augment]]
name = "reflect"
p = 0.5
[[augment]]
name = "rotate90"
"""
REFLECT, ROTATE = {"name": "reflect", "p": 0.5}, {"name": "rotate90"}


@pytest.mark.parametrize(
    ("setting", "keys", "value"),
    [
        ("train.epochs=2", ("train",), {"epochs": 2, "batch_size": 8}),
        ("train.steps=2", ("train",), {"steps": 2, "batch_size": 8}),
        ("train.budget=5m", ("train",), {"budget": "5m", "batch_size": 8}),
        ('train.budget="5m"', ("train",), {"budget": "5m", "batch_size": 8}),
        ("train={steps = 7}", ("train",), {"steps": 7, "batch_size": 8}),
        (" train.epochs = 2 ", ("train", "epochs"), 2),
        ("train.seed=0", ("train", "seed"), 0),
        ("runtime.deterministic=false", ("runtime", "deterministic"), False),
        ("patches.size=1e2", ("patches", "size"), 100.0),
        ("runtime.device=cuda:0", ("runtime", "device"), "cuda:0"),
        ("train.init_from=runs/x=1", ("train", "init_from"), "runs/x=1"),
        ("train.init_from=", ("train", "init_from"), ""),
        ("name=a # b", ("name",), "a # b"),
        ("name=[1", ("name",), "[1"),
        ("name=" + "9" * 5_000, ("name",), "9" * 5_000),
        ("name=" + "[" * 5_000, ("name",), "[" * 5_000),
        ("task.classes=['a', 'b']", ("task", "classes"), ["a", "b"]),
        ("model.width=8", ("model",), {"name": "unet", "width": 8}),
        ("model.name=other", ("model",), {"name": "other"}),
        ("model={name='other', depth=1}", ("model",), {"name": "other", "depth": 1}),
        ("model={width=1}", ("model",), {"name": "unet", "width": 1}),
        ("augment=[]", ("augment",), []),
        ("augment=[{name='rotate90'}]", ("augment",), [ROTATE]),
        ("augment.0.p=0.2", ("augment",), [{"name": "reflect", "p": 0.2}, ROTATE]),
        ("augment.1.p=0.2", ("augment",), [REFLECT, {"name": "rotate90", "p": 0.2}]),
        ("augment.1={name='reflect'}", ("augment",), [REFLECT, {"name": "reflect"}]),
        ("augment.0.name=rotate90", ("augment",), [ROTATE, ROTATE]),
        ("augment.0.name=reflect", ("augment",), [REFLECT, ROTATE]),
        ("augment.0.range.low=1", ("augment", 0), {**REFLECT, "range": {"low": 1}}),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_setting(setting: str, keys: Keys, value: Any) -> None:
    document = parse(TEXT, "f.toml", Path())
    override(document, setting, LENGTHS)
    found: Any = document.values
    for key in keys:
        found = found[key]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("setting", "places"),
    [
        ("train.epochs=2", {("train",): "f.toml:2:1", ("train", "batch_size"): "f.toml:4:1", ("train", "epochs"): ""}),
        ("train.steps=2", {("train", "steps"): "", ("train", "epochs"): "f.toml:2:1"}),
        ("model.name=other", {("model", "name"): "", ("model", "width"): "f.toml:5:1"}),
        (
            "augment.0.p=1",
            {("augment", 0, "p"): "", ("augment", 0, "name"): "f.toml:9:1", ("augment", 0): "f.toml:8:1"},
        ),
        ("augment=[{name='rotate90'}]", {("augment", 0, "name"): "", ("train",): "f.toml:2:1"}),
    ],
)
def test_the_place_of_a_setting(setting: str, places: dict[Keys, str]) -> None:
    document = parse(TEXT, "f.toml", Path("elsewhere"))
    override(document, setting, LENGTHS)
    assert {keys: str(document.place(keys)) for keys in places} == {
        keys: place or f"--set {setting}" for keys, place in places.items()
    }
    changed = next(keys for keys, place in places.items() if not place)
    assert document.place(changed).folder == Path.cwd()


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("", "should be key=value, as in train.epochs=2"),
        ("train.epochs", "should be key=value, as in train.epochs=2"),
        ("=2", "should be key=value, as in train.epochs=2"),
        ("train..epochs=2", "should be key=value, as in train.epochs=2"),
        ("train.=2", "should be key=value, as in train.epochs=2"),
        ("augment.2.p=1", "'augment' has 2 elements, counted from 0"),
        ("augment.7=1", "'augment' has 2 elements, counted from 0"),
        ("augment.p=1", "'augment' is an array; name an element, as in augment.0"),
        ("augment.p.0=1", "'augment' is no table"),
        ("augment.0.p.x=1", "'augment.0.p' is no table"),
        ("train.epochs.x=1", "'train.epochs' is a value; it has no keys"),
        ("train.0=1", "'train' is no array, so that '0' addresses nothing"),
        ("metric.0.name=iou", "'metric' is no array, so that '0' addresses nothing"),
        ("0=1", "'0' is no array, so that '0' addresses nothing"),
        ("extends=base.toml", "'extends' belongs in the file; here it would come too late"),
        (".".join("a" * 21) + "=1", "nested too deeply; an experiment needs three levels"),
        ("train.epochs=" + "[" * 21 + "]" * 21, "nested too deeply; an experiment needs three levels"),
        (f"augment.{'9' * 5_000}.p=1", "'augment' is an array; name an element, as in augment.0"),
    ],
)
def test_a_setting_that_leads_nowhere(setting: str, fault: str) -> None:
    document = parse(TEXT, "f.toml", Path())
    with pytest.raises(UserError) as error:
        override(document, setting, LENGTHS)
    shown = setting if len(setting) <= 200 else f"{setting[:200]}…"
    assert str(error.value) == f"--set {shown}: {fault}"
    assert document.values == tomllib.loads(TEXT), "a refused setting changes nothing"


def test_later_settings_win() -> None:
    document = parse(TEXT, "f.toml", Path())
    for setting in ("train.epochs=1", "train.steps=5", "train.steps=6", "augment=[{name='zoom'}]", "augment.0.p=1"):
        override(document, setting, LENGTHS)
    assert document.values["train"] == {"batch_size": 8, "steps": 6}
    assert document.values["augment"] == [{"name": "zoom", "p": 1}]


@pytest.mark.parametrize("written", ["1\nx = 2", "1\n[patches]", "1\n[[augment]]\nname = 'x'"])
def test_a_setting_with_a_second_key_is_refused(written: str) -> None:
    with pytest.raises(UserError) as caught:
        override(parse("", "a.toml", Path()), f"train.epochs={written}", LENGTHS)
    assert str(caught.value) == f"--set train.epochs={written}: sets more than one key; give each a --set of its own"


def test_a_setting_may_have_several_lines() -> None:
    document = parse("", "a.toml", Path())
    override(document, "a.b=[1,\n2]\n", LENGTHS)
    assert document.values == {"a": {"b": [1, 2]}}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f"a{'.a' * 60_000} = 1", "1:1"),
        (f"x = 1\n[ a{' . a' * 60_000} ]", "2:3"),
        (f"[[a{'.a' * 60_000}]]", "1:3"),
        (f"""x = {{ "q"{".'a.='" * 60_000} = 1 }}""", "1:7"),
    ],
)
def test_a_key_of_very_many_parts_is_refused_at_once(text: str, place: str) -> None:
    began = time.process_time()
    with pytest.raises(UserError) as caught:
        parse(text, "a.toml", Path())
    assert time.process_time() - began < 5, "tomllib takes more than a minute"
    assert str(caught.value) == f"a.toml:{place}: nested too deeply; an experiment needs three levels"
    with pytest.raises(UserError, match=r"^--set a={b\.b[.b]*…: nested too deeply") as caught:
        override(parse("", "a.toml", Path()), f"a={{b{'.b' * 60_000}=1}}", LENGTHS)
    assert len(str(caught.value)) < 400


def test_many_points_that_belong_to_no_key_are_read() -> None:
    text = f"x = [{'0.5, ' * 500}] # {'a, b. ' * 500}\ny = '''{'a.b c ' * 500}'''"
    assert parse(text, "a.toml", Path()).values["x"] == [0.5] * 500
