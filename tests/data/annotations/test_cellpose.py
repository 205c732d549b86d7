"""Cellpose's `_seg.npy` gives its masks, and nothing that is pickled in such a file is ever executed."""

from __future__ import annotations

import contextlib
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated_cells import SIZE, label_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yeastexp.data.annotations import KINDS, cellpose, recognised
from yeastexp.errors import UserError

LABELS = label_image()


def seg(masks: Any, **more: Any) -> dict[str, Any]:
    """What Cellpose saves."""
    content = {
        "outlines": np.zeros(SIZE, np.uint16),
        "colors": np.zeros((8, 3), np.uint8),
        "masks": masks,
        "filename": "a.tif",
        "flows": [np.zeros((1, *SIZE), np.float32), [], None],
        "ismanual": np.zeros(8, bool),
        "manual_changes": [],
        "model_path": 0,
        "flow_threshold": 0.4,
        "est_diam": np.float32(10.5),
        "chan_choose": [0, 0],
    }
    return content | more


def read(path: Path, frames: dict[str, Any] | None = None) -> Any:
    assert recognised(path) == "cellpose_npy"
    return KINDS["cellpose_npy"].read(path, frames=frames or {"a": SIZE})


def one_line(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path).labels("a")
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["u2", "i4", ">u4", "i8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_masks_come_back_exactly(tmp_path: Path, dtype: str, order: Any) -> None:
    path = tmp_path / "a_seg.npy"
    np.save(path, seg(np.asarray(LABELS, dtype, order=order)), allow_pickle=True)
    result = read(path).labels("a")
    np.testing.assert_array_equal(result.instances, LABELS)
    assert result.instances.dtype == np.int32


@pytest.mark.parametrize("protocol", range(2, 6))
def test_other_protocols_of_pickle(tmp_path: Path, protocol: int) -> None:
    """Those that older versions of NumPy wrote; protocol 2 and before hold bytes in another way, which is refused."""
    content = np.array(seg(LABELS), dtype=object)
    path = tmp_path / "a_seg.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(content, file, protocol=protocol)
    if protocol in (3, 4):
        np.testing.assert_array_equal(read(path).labels("a").instances, LABELS)
    else:
        assert "nothing but arrays and plain values is unpickled" in one_line(path)


def test_stacks_and_plain_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a_seg.npy", seg(np.stack([LABELS, 0 * LABELS])), allow_pickle=True)
    result = read(tmp_path / "a_seg.npy", {"t0": SIZE, "t1": SIZE})
    assert (result.labels("t0").instances == LABELS).all() and not result.labels("t1").instances.any()
    np.save(tmp_path / "a.npy", LABELS)
    np.testing.assert_array_equal(read(tmp_path / "a.npy").labels("a").values, LABELS)


class Attack:
    """What a pickle can do."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "attack",
    [
        lambda place: Attack(os.system, f"touch {place}"),
        lambda place: Attack(eval, f"open({str(place)!r}, 'w')"),
        lambda place: Attack(getattr, [], "append"),
        lambda place: Attack(np.save, str(place), np.zeros(3)),
        lambda place: Attack(np.ndarray.tofile, np.zeros(3), str(place)),
        lambda place: Path(place),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_nothing_is_executed(tmp_path: Path, attack: Any, inside: bool) -> None:
    path, place = tmp_path / "a_seg.npy", tmp_path / "executed"
    content = seg(LABELS, more=attack(place)) if inside else attack(place)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(content, file, protocol=4)
    assert "nothing but arrays and plain values is unpickled; save the masks of Cellpose as TIFF" in one_line(path)
    assert not place.exists()


def test_no_instruction_reaches_further() -> None:
    """Those that are left build plain values, or call what is admitted."""
    known = {pickletools.code2op[chr(code)].name for code in cellpose._Unpickler.dispatch}
    reaching = {name for name in known if name in {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NEWOBJ"}}
    assert reaching == {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NEWOBJ"}
    assert not known & {"INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "BYTEARRAY8"}
    for admitted in cellpose.ADMITTED.values():
        assert admitted.__module__ == cellpose.__name__


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"outlines": LABELS}, "has no array 'masks'"),
        ([1, 2], "has no array 'masks'"),
        (seg([[1, 2]]), "has no array 'masks'"),
        (seg(LABELS[:-1]), "holds labels of 95 × 130 pixels, but the image has 96 × 130"),
        (seg(LABELS - 1), "holds ids from -1 to 7; ids are 0 or more"),
        (seg(LABELS + 0.5), "holds float64 values, but labels are whole numbers"),
        (seg(LABELS + np.nan), "holds float64 values, but labels are whole numbers"),
        (seg(LABELS.astype(object)), "holds masks that are no numbers"),
        (seg(LABELS.astype("M8[s]")), "holds values of the type"),
        (seg(LABELS.astype([("a", "i4")])), "holds values of the type"),
        (seg(LABELS.astype("U5")), "holds <U5 values, but labels are whole numbers"),
    ],
)
def test_bad_content(tmp_path: Path, content: Any, message: str) -> None:
    array = np.empty((), object)
    array[()] = content
    np.save(tmp_path / "a_seg.npy", array, allow_pickle=True)
    assert message in one_line(tmp_path / "a_seg.npy")


def test_truncated_files_and_headers_that_claim_more(tmp_path: Path) -> None:
    path = tmp_path / "a_seg.npy"
    np.save(path, seg(LABELS), allow_pickle=True)
    data = path.read_bytes()
    for length in (0, 5, 9, 40, 130, 300, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert "is damaged" in one_line(path)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<i8", "fortran_order": False, "shape": (1 << 30, 1 << 30)}
        )
    assert "is damaged" in one_line(path)
    claims = pickle.PROTO + b"\x04" + pickle.BINBYTES8 + (1 << 60).to_bytes(8, "little") + b"x."
    path.write_bytes(data[:128] + claims)
    assert "is damaged" in one_line(path)
    path.write_bytes(data[:128] + b"\x80\x04N" + pickle.LONG_BINPUT + b"\xff\xff\xff\x7f.")
    assert "has no array 'masks'" in one_line(path)


@pytest.mark.parametrize(
    "body",
    [b"N%s", b"}N%sNs", b"}(N%sNu", b"(N%sNd", b"\x8f(N%s\x90", b"(N%s\x91"],
    ids=["list", "key", "keys", "dictionary", "set", "frozen set"],
)
def test_tuples_in_tuples_do_not_end_the_process(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "a_seg.npy"
    np.save(path, seg(LABELS), allow_pickle=True)
    path.write_bytes(path.read_bytes()[:128] + b"\x80\x04" + body % (b"\x85" * 200_000) + b".")
    assert one_line(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_bytes_are_masks_or_one_line(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a_seg.npy"
    np.save(path, seg(LABELS[:5, :6]), allow_pickle=True)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        try:
            KINDS["cellpose_npy"].read(path, frames={"a": (5, 6)}).labels("a")
        except UserError as error:
            assert "\n" not in str(error)
            raise
