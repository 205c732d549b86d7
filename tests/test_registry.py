"""Names to factories, and factories to the schemas of their tables."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

import yeastexp
from yeastexp import plugins
from yeastexp.config import catalogue
from yeastexp.errors import UserError, did_you_mean
from yeastexp.registry import KINDS, Entry, InputFile, MustExist, Registry, Schema

HERE = Path(__file__)
ENTRIES = [entry for registry in KINDS.values() for entry in registry.entries() if entry.plugin is None]


def line_of(text: str) -> int:
    """The line of this file that a factory's definition starts with."""
    return next(number for number, line in enumerate(HERE.read_text().splitlines(), 1) if line.strip() == text)


def test_editors_are_told_the_public_names() -> None:
    program = "import sys, yeastexp; assert 'torch' not in sys.modules; print(*dir(yeastexp))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"model", "Task", "load_experiment", "assemble", "__doc__"} <= set(done.stdout.split())
    assert set(yeastexp.__all__) <= set(dir(yeastexp))


# What is registered


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_a_registered_part_tells_what_it_is(entry: Entry) -> None:
    described = json.loads(json.dumps(catalogue.described(entry), default=str))
    assert described["doc"], "a part needs a docstring"
    assert described["summary"].endswith((".", ":")) or "\n" in described["doc"], "the first sentence is whole"
    file, line = described["place"].rsplit(":", 1)
    assert f'@{entry.kind}("{entry.name}")' in Path(file).read_text().splitlines()[int(line) - 1]
    for option in described["options"]:
        assert option["type"] and "any" not in option["type"], option
        assert option["name"] != "name"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_defaults_satisfy_their_own_schema(entry: Entry) -> None:
    defaults = {p.name: p.default for p in entry.schema.parameters if p.default is not p.empty}
    needed = {p.name for p in entry.schema.parameters if p.default is p.empty}
    typed, problems = entry.schema.check({key: value for key, value in defaults.items() if value is not None})
    assert [problem for problem in problems if problem.keys[0] not in needed] == []
    assert needed or typed == {key: value for key, value in defaults.items() if value is not None}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_a_misspelt_option_is_never_ignored(entry: Entry) -> None:
    _, problems = entry.schema.check({"no_such_option": 1})
    assert [p.message for p in problems if p.keys == ("no_such_option",)] == [
        f"unknown key{did_you_mean('no_such_option', entry.schema.keys)}"
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_part_and_a_decorator_by_its_name(kind: str) -> None:
    """Handlers are what users add: the package's own need no name, for every run has them."""
    assert getattr(yeastexp, kind) is KINDS[kind]
    names = list(KINDS[kind])
    assert bool(names) == (kind != "handler") and names == sorted(names)
    assert all(KINDS[kind][name] is KINDS[kind].find(name).factory for name in names)


# Registering


def test_a_decorator_registers_and_gives_the_factory_back() -> None:
    @yeastexp.loss("zero")
    def zero(classes: int, weight: float = 1.0) -> Callable[..., float]:
        """Always zero.

        More of it.
        """
        return lambda logits, labels: 0.0

    assert yeastexp.loss["zero"] is zero
    entry = yeastexp.loss.find("zero")
    assert (entry.kind, entry.name, entry.summary, entry.plugin) == ("loss", "zero", "Always zero.", None)
    assert entry.schema.keys == ["weight"] and entry.schema.given == ["classes"]
    line = line_of('@yeastexp.loss("zero")')
    assert entry.place == f"{HERE}:{line}"


def test_a_taken_name_names_both_places() -> None:
    registry = Registry("loss", "classes")

    @registry("one")
    def first(classes: int) -> None: ...

    with pytest.raises(UserError) as error:

        @registry("one")
        def second(classes: int) -> None: ...

    place = line_of('@registry("one")')
    second_place = place + next(
        number for number, line in enumerate(HERE.read_text().splitlines()[place:], 1) if '@registry("one")' in line
    )
    assert str(error.value) == (f"{HERE}:{second_place}: loss 'one' is taken by {HERE}:{place}; choose another name")
    assert registry["one"] is first


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    registry = Registry("loss")
    with pytest.raises(UserError, match=r"^unknown loss 'x' \(known: none\)$"):
        registry["x"]
    for name in ("dice", "focal"):
        registry(name)(lambda: None)
    with pytest.raises(UserError, match=r"^unknown loss 'dise'; did you mean 'dice'\? \(known: dice, focal\)$"):
        registry["dise"]


def test_a_dataclass_without_a_docstring_has_none() -> None:
    @yeastexp.transform("bare")
    @dataclass(frozen=True)
    class Bare:
        p: float = 0.5

    assert yeastexp.transform.find("bare").doc == ""


HINT = "the hint is the schema of the TOML key"


def factories() -> Iterator[tuple[str, Callable[..., Any], tuple[str, ...], str]]:
    @dataclass
    class Listed:
        x: list[int] = field(default_factory=list)

    def keywords(**options: int) -> None: ...
    def positions(*options: int) -> None: ...
    def unhinted(p=0.5): ...  # type: ignore[no-untyped-def]
    def named(name: str) -> None: ...
    def short(channels: int) -> None: ...
    def long(logits, labels): ...  # type: ignore[no-untyped-def]
    def unknown(p: Nothing) -> None: ...  # type: ignore[name-defined]  # noqa: F821
    def keyword_only(*, channels: int, classes: int) -> None: ...
    def positional_only(p: float, /) -> None: ...
    def underscored(_p: float) -> None: ...

    yield "keywords", keywords, (), "takes *options; name every option, so that a misspelt one is found"
    yield "positions", positions, (), "takes *options; name every option, so that a misspelt one is found"
    yield "unhinted", unhinted, (), f"option 'p' has no type hint; {HINT}, and it is called as f(**table)"
    yield "named", named, (), "option 'name' would hide the name of the part; call it something else"
    called, given = "it is called as f(channels, outputs, **table)", ("channels", "outputs")
    yield "short", short, given, f"takes 1 of the 2 arguments that are given by position; {called}"
    yield "none", lambda: None, given, f"takes 0 of the 2 arguments that are given by position; {called}"
    yield "keyword_only", keyword_only, given, f"takes 'channels' by name only; it is given by position: {called}"
    yield (
        "long",
        long,
        ("classes",),
        f"option 'labels' has no type hint; {HINT}, and it is called as f(classes, **table)",
    )
    yield "unknown", unknown, (), "has a hint that cannot be evaluated: NameError: name 'Nothing' is not defined"
    yield "positional_only", positional_only, (), "option 'p' cannot be a TOML key; drop the '/' or the underscore"
    yield "underscored", underscored, (), "option '_p' cannot be a TOML key; drop the '/' or the underscore"
    yield "listed", Listed, (), "option 'x' has a default factory; give it a plain, immutable default"


@pytest.mark.parametrize(("name", "factory", "given", "fault"), list(factories()), ids=lambda value: str(value)[:15])
def test_a_factory_whose_options_are_no_schema_is_refused(
    name: str, factory: Callable[..., Any], given: tuple[str, ...], fault: str
) -> None:
    registry = Registry("model", *given)
    with pytest.raises(UserError) as error:
        registry(name)(factory)
    place, message = str(error.value).split(": ", 1)
    assert message == f"model '{name}' {fault}"
    assert place.startswith(f"{HERE}:")
    assert list(registry) == []


def test_options_may_be_called_what_they_like() -> None:
    def factory(copy: int, json: str = "x", model_width: int = 3, schema: bool = False, validate: int = 1) -> None: ...

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Schema(factory).check({"copy": 2, "model_width": 4}) == ({"copy": 2, "model_width": 4}, [])


# Checking a table


def factory(
    whole: int = 0,
    real: float = 0.0,
    share: Annotated[float, Field(ge=0, le=1)] = 0.5,
    flag: bool = False,
    text: str = "",
    choice: Literal["red", "green"] = "red",
    pair: tuple[float, float] = (0.0, 1.0),
    many: tuple[int, ...] = (),
    some: Annotated[int, Field(ge=1)] | None = None,
    either: tuple[str, ...] | Annotated[int, Field(ge=1)] | None = None,
    path: Path | None = None,
    data: InputFile = Path("x"),
    several: tuple[InputFile, ...] | None = None,
    pairs: dict[str, tuple[str, Annotated[Path, MustExist("folder")]]] | None = None,
) -> None: ...


@pytest.mark.parametrize(
    ("key", "value", "typed"),
    [
        ("whole", -3, -3),
        ("whole", 2**63 - 1, 2**63 - 1),
        ("whole", -(2**63), -(2**63)),
        ("real", 1, 1.0),
        ("real", -1.5e300, -1.5e300),
        ("share", 0, 0.0),
        ("share", 1, 1.0),
        ("flag", True, True),
        ("text", "ä\n\0", "ä\n\0"),
        ("choice", "green", "green"),
        ("pair", [1, 2.5], (1.0, 2.5)),
        ("many", [], ()),
        ("many", [1, 2], (1, 2)),
        ("some", 1, 1),
        ("either", ["a", "b"], ("a", "b")),
        ("either", 8, 8),
        ("path", "a/b", Path("a/b")),
        ("data", "a/b", Path("a/b")),
    ],
)
def test_a_right_value(key: str, value: Any, typed: Any) -> None:
    found, problems = Schema(factory).check({key: value})
    assert problems == []
    assert found == {key: typed}
    assert type(found[key]) is type(typed)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("whole", 1.0, "should be a valid integer, got 1.0"),
        ("whole", "8", 'should be a valid integer, got "8"'),
        ("whole", True, "should be a valid integer, got true"),
        ("real", "8", 'should be a valid number, got "8"'),
        ("real", True, "should be a valid number, got true"),
        ("real", float("nan"), "should be a finite number, got NaN"),
        ("real", float("inf"), "should be a finite number, got Infinity"),
        ("share", 1.5, "should be less than or equal to 1, got 1.5"),
        ("share", -0.1, "should be greater than or equal to 0, got -0.1"),
        ("share", float("nan"), "should be a finite number, got NaN"),
        ("flag", 1, "should be a valid boolean, got 1"),
        ("flag", "true", 'should be a valid boolean, got "true"'),
        ("text", 3, "should be a valid string, got 3"),
        ("choice", "gren", "should be 'red' or 'green', got \"gren\"; did you mean 'green'? (known: green, red)"),
        ("choice", 3, "should be 'red' or 'green', got 3"),
        ("many", 3, "should be a valid array, got 3"),
        ("many", {"a": 1}, 'should be a valid array, got {"a": 1}'),
        ("some", 0, "should be greater than or equal to 1, got 0"),
        ("either", True, "should be a valid array, got true or should be a valid integer, got true"),
        ("either", 0, "should be a valid array, got 0 or should be greater than or equal to 1, got 0"),
        ("path", 3, "should be a valid string, got 3"),
        ("path", date(2024, 1, 2), "should be no date or time, got 2024-01-02; put text in quotes"),
        ("text", time(7, 32), "should be no date or time, got 07:32:00; put text in quotes"),
        ("choice", datetime(2024, 1, 2, 3), "should be no date or time, got 2024-01-02 03:00:00; put text in quotes"),
        ("whole", 2**63, "should fit into 64 bits, got 9223372036854775808"),
        ("real", -(2**63) - 1, "should fit into 64 bits, got -9223372036854775809"),
        ("whole", 10**400, f"should fit into 64 bits, got 1{'0' * 99}…"),
        ("whole", "8" * 101, f'should be a valid integer, got "{"8" * 99}…'),
    ],
)
def test_a_wrong_value(key: str, value: Any, message: str) -> None:
    typed, problems = Schema(factory).check({key: value})
    assert typed == {}
    assert [(problem.keys, problem.message) for problem in problems] == [((key,), message)]


def test_the_place_of_a_wrong_element() -> None:
    _, problems = Schema(factory).check({"many": [1, "2", 3, 4.5], "either": ["a", 1]})
    assert [problem.keys for problem in problems] == [("many", 1), ("many", 3), ("either",)]
    _, problems = Schema(factory).check({"many": [1, 2**70, date(2024, 1, 2)], "flag": 3})
    assert [problem.keys for problem in problems] == [("many", 1), ("many", 2), ("flag",)]


def test_missing_and_unknown_keys_and_wrong_values_are_all_found() -> None:
    def needy(channels: int, path: str, width: int, depth: int = 3) -> None: ...

    schema = Schema(needy, ["classes"])
    _, problems = schema.check({"widht": 3, "depth": "x", "channels": 1})
    assert {problem.keys[0]: problem.message for problem in problems} == {
        "path": "missing; add 'path = …'",
        "width": "missing; add 'width = …'",
        "depth": 'should be a valid integer, got "x"',
        "widht": "unknown key; did you mean 'width'? (known: depth, path, width)",
        "channels": "unknown key (known: depth, path, width)",
    }


def test_which_paths_must_exist() -> None:
    schema = Schema(factory)
    assert [key for key in schema.keys if schema.must_exist(key)] == ["data", "several", "pairs"]
    assert schema.must_exist("pairs") == MustExist("folder")
    assert schema.must_exist("no_such_key") is None


# Forgetting what a plugin registered


def test_forgotten_parts_come_back_only_where_the_name_is_free() -> None:
    registry = Registry("loss")

    def register(plugin: str) -> Entry:
        Registry.loading = Path(plugin)
        try:
            registry("one")(lambda: plugin)
        finally:
            Registry.loading = None
        return registry.find("one")

    first = register("a.py")
    registry.forget([Path("a.py")])
    assert "one" not in registry
    second = register("b.py")
    (fault,) = registry.restore([first])
    assert "loss 'one' is taken by" in fault
    assert registry.restore([second]) == [] and registry["one"]() == "b.py"
    registry.forget([Path("b.py")])
    assert registry.restore([first]) == []
    assert registry["one"]() == "a.py"


def test_a_metric_has_to_say_its_direction(tmp_path: Path) -> None:
    """A default would take the worst checkpoint for the best, in silence."""
    path = tmp_path / "mine.py"
    text = (
        "from yeastexp import PerImageMetric, metric\n\n"
        "@metric('error')\nclass Error(PerImageMetric):\n    def score(self, counts):\n        return counts[0]\n"
    )
    path.write_text(text)
    with plugins.preserved(), pytest.raises(UserError) as caught:
        plugins.load([path])
    said = "metric 'error' does not say 'higher_is_better'; add 'higher_is_better = True', or False, to the class"
    assert caught.value.faults == (f"{path}:3: {said}",)
    path.write_text(text.replace("    def score", "    higher_is_better = False\n\n    def score"))
    with plugins.preserved():
        plugins.load([path])
        assert yeastexp.metric["error"](2).higher_is_better is False
    assert all(isinstance(yeastexp.metric[name](2).higher_is_better, bool) for name in yeastexp.metric)
