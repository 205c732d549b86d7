"""Labels in HDF5 files of other programs come back exactly, and bad ones with one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from annotated_cells import SIZE, label_image

from yeastexp.data.annotations import KINDS, Hdf5Labels, recognised
from yeastexp.errors import UserError

LABELS = label_image()
STACK = np.stack([LABELS, LABELS[::-1], 0 * LABELS])
FRAMES = {f"t{index}": SIZE for index in range(3)}


def write(path: Path, axes: dict[str, str] | None = None, **arrays: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            array = file.create_dataset(name.replace("__", "/"), data=values)
            if axes and name in axes:  # as ilastik writes them
                tags = [{"key": axis, "typeFlags": 2, "resolution": 0, "description": ""} for axis in axes[name]]
                array.attrs["axistags"] = json.dumps({"axes": tags})
    return path


def read(path: Path, frames: dict[str, Any] | None = None, dataset: str | None = None) -> Any:
    assert recognised(path) == "hdf5"
    return Hdf5Labels(dataset).read(path, frames=frames or {"a": SIZE})


@pytest.mark.parametrize("dtype", ["u1", "u2", "i8", ">i4", "f4"])
def test_labels_of_pytorch_3dunet(tmp_path: Path, dtype: str) -> None:
    path = write(tmp_path / "a.h5", raw=np.zeros(STACK.shape), label=STACK.astype(dtype))
    result = read(path, FRAMES)
    assert result.names == tuple(FRAMES) and result.notes == ("labels from 'label'",)
    for name, wanted in zip(FRAMES, STACK, strict=True):
        np.testing.assert_array_equal(result.labels(name).values, wanted)
        assert result.labels(name).values.dtype.kind in "ui"


@pytest.mark.parametrize(
    ("axes", "turned"),
    [
        ("tyxc", lambda stack: stack[..., None]),
        ("tzcyx", lambda stack: stack[:, None, None]),
        ("xyt", lambda stack: stack.T),
        ("cyxz", lambda stack: np.moveaxis(stack, 0, -1)[None]),
    ],
)
def test_axes_of_ilastik(tmp_path: Path, axes: str, turned: Callable[[Any], Any]) -> None:
    result = read(write(tmp_path / "a.h5", {"exported_data": axes}, exported_data=turned(STACK)), FRAMES)
    for name, wanted in zip(FRAMES, STACK, strict=True):
        np.testing.assert_array_equal(result.labels(name).values, wanted)


def test_frames_of_yeaz_need_not_all_be_annotated(tmp_path: Path) -> None:
    result = read(write(tmp_path / "a.h5", FOV0__T0=STACK[0], FOV0__T2=STACK[1]), FRAMES)
    assert result.names == ("t0", "t2")
    np.testing.assert_array_equal(result.labels("t2").values, STACK[1])


def test_a_dataset_that_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", raw=LABELS * 0, deep__nuclei=LABELS)
    np.testing.assert_array_equal(read(path, dataset="deep/nuclei").labels("a").values, LABELS)
    assert KINDS["hdf5"] == Hdf5Labels()


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"raw": LABELS, "x": LABELS}, {}, "has no dataset 'label'; name the one with labels (there: 'raw', 'x')"),
        ({}, {}, "has no dataset 'label'; name the one with labels (there: none)"),
        ({"label": LABELS}, {"dataset": "labl"}, "has no dataset 'labl'; did you mean 'label'?"),
        ({"deep__label": LABELS}, {"dataset": "deep"}, "has no dataset 'deep'"),
        (
            {"label": LABELS[:5]},
            {},
            "holds labels of 5 × 130 pixels, but the image has 96 × 130; pair it with its image",
        ),
        ({"label": STACK}, {}, "'/label' has the axes z 3, y 96, x 130, but the image has 1 frame"),
        (
            {"label": STACK[:2]},
            {"frames": FRAMES},
            "'/label' has the axes z 2, y 96, x 130, but the image has 3 frames",
        ),
        ({"label": np.stack([STACK] * 2)}, {"frames": FRAMES}, "'/label' has the axes c 2, z 3, y 96, x 130"),
        ({"label": LABELS + 0.5}, {}, "holds float64 values, but labels are whole numbers"),
        ({"label": LABELS * np.nan}, {}, "holds float64 values, but labels are whole numbers"),
        ({"label": 5}, {}, "'/label' holds no values of int64, not labels"),
        ({"label": "text"}, {}, "'/label' holds no values of object, not labels"),
        ({"FOV0__T7": LABELS}, {"frames": FRAMES}, "has labels of frame 7, but the image has 3 frames"),
        ({"FOV0__T0": LABELS, "FOV1__T0": LABELS}, {}, "has labels of FOV0, FOV1; save one field of view a file"),
    ],
)
def test_bad_files(tmp_path: Path, arrays: dict[str, Any], options: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.h5", **arrays)
    with pytest.raises(UserError) as caught:
        read(path, **options).labels("a")
    assert str(caught.value).startswith(f"{path}: {message}") and "\n" not in str(caught.value)


def test_sizes_that_are_claimed_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("label", (1 << 30, 1 << 30), "u1", chunks=(64, 64))
    with pytest.raises(UserError, match="holds labels of 1073741824 × 1073741824 pixels"):
        read(path).labels("a")
    data = write(path, label=LABELS).read_bytes()
    for length in (9, 100, len(data) // 2, len(data) - 10):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"cannot be read \(.*\); it is damaged; save it again") as caught:
            read(path).labels("a")
        assert "\n" not in str(caught.value)
    with h5py.File(path, "w") as file:
        file.create_dataset("label", data=LABELS).attrs["axistags"] = "{"
    with pytest.raises(UserError, match="it is damaged"):
        read(path)
