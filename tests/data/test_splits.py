"""Which images train, validate and test."""

import pytest

from yeastexp.data.splits import chosen, default_validation, parse_choice, plain_splits, split
from yeastexp.errors import UserError


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("8", 8),
        (" 8 ", 8),
        ("0.3", 0.3),
        (".5", 0.5),
        ("8,", ("8",)),
        ("a, b*", ("a", "b*")),
        ("1e3", ("1e3",)),
        ("-3", ("-3",)),
        ("nan", ("nan",)),
        ("", ()),
    ],
)
def test_what_a_choice_means(text, choice):
    assert parse_choice(text) == choice
    assert type(parse_choice(text)) is type(choice)


@pytest.mark.parametrize(
    ("val", "test", "expected"),
    [
        (None, None, {"train": "abcdef", "val": "ghij"}),
        (3, None, {"train": "abcdefg", "val": "hij"}),
        (3, 2, {"train": "abcde", "val": "fgh", "test": "ij"}),
        (0.3, 0.2, {"train": "abcde", "val": "fgh", "test": "ij"}),
        (("a", "[c-d]"), None, {"train": "befghij", "val": "acd"}),
        (1, ("j", "a"), {"train": "bcdefgh", "val": "i", "test": "aj"}),
        (None, 1, {"train": "abcde", "val": "fghi", "test": "j"}),
    ],
)
def test_images_are_split(val, test, expected):
    assert split("abcdefghij", val, test) == {part: tuple(names) for part, names in expected.items()}


@pytest.mark.parametrize("test", [2, ("*",), ("a", "b")])
def test_all_images_may_be_to_test(test):
    assert split("ab", None, test) == {"test": ("a", "b")}


TOO_FEW = (
    "training and validation need one image each at least; lower --val or --test, or add images "
    "(pack --test '*' packs all for evaluation alone)"
)


@pytest.mark.parametrize(
    ("names", "val", "test", "message"),
    [
        ("abc", 3, None, f"of 3 in all 0 train, 3 val; {TOO_FEW}"),
        ("a", None, None, f"of 1 in all 0 train, 1 val; {TOO_FEW}"),
        ("ab", None, 1, f"of 2 in all 0 train, 1 val, 1 test; {TOO_FEW}"),
        ("abc", 0, None, "--val: 0 of 3 images cannot be chosen; give a number from 1 to 2"),
        ("abc", 4, None, "--val: 4 of 3 images cannot be chosen; give a number from 1 to 2"),
        ("abc", 3, 1, "--val: 3 of 2 images cannot be chosen; give a number from 1 to 1"),
        ("ab", 1, 2, "--val: 1 of 0 images cannot be chosen; no image is left"),
        ("abc", 1.0, None, "--val: 1.0 is not a fraction; give a number between 0 and 1, or a whole number of images"),
        ("abc", None, ("x",), "--test: none of the images is called 'x'; there are 3, from 'a' to 'c'"),
        ("abc", ("c",), ("c",), "--val: none of the images is called 'c'; there are 2, from 'a' to 'b'"),
    ],
)
def test_splits_that_cannot_be(names, val, test, message):
    with pytest.raises(UserError) as caught:
        split(names, val, test)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("count", "validate"), [(1, 1), (2, 1), (3, 1), (4, 2), (9, 4), (10, 4), (18, 8), (36, 16), (1000, 444)]
)
def test_eight_of_eighteen_validate(count, validate):
    assert default_validation(count) == validate
    names = [str(index) for index in range(count)]
    assert plain_splits(names) == {
        "train": tuple(names[: count - validate]),
        "val": tuple(names[count - validate :]),
    }


@pytest.mark.parametrize(
    ("choice", "expected"),
    [(2, "de"), (5, "abcde"), (0.4, "de"), (0.01, "e"), (["c", "a"], "ac"), (["[ab]", "b"], "ab"), (["*"], "abcde")],
)
def test_chosen(choice, expected):
    assert chosen("abcde", choice) == tuple(expected)


def test_a_name_with_brackets_is_a_name_before_it_is_a_glob():
    assert chosen(["a[1]", "a1"], ["a[1]"]) == ("a[1]",)
    assert chosen(["a[2]", "a1"], ["a[1]"]) == ("a1",)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (0, "0 of 2 images cannot be chosen; give a number from 1 to 1"),
        (3, "3 of 2 images cannot be chosen; give a number from 1 to 1"),
        (1.5, "1.5 is not a fraction; give a number between 0 and 1, or a whole number of images"),
        ((), "no image is chosen; name at least one"),
        (("frame_01.png",), "none of the images is called 'frame_01.png'; did you mean 'frame_01'?"),
        (("x*",), "none of the images is called 'x*'; there are 2, from 'frame_01' to 'frame_02'"),
    ],
)
def test_bad_choices(choice, message):
    with pytest.raises(UserError) as caught:
        chosen(["frame_01", "frame_02"], choice)
    assert str(caught.value) == message
