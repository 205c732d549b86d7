"""Files of Leica as their format describes them, written here; files of Nikon have no such description."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from yeastexp.data import pack
from yeastexp.data.hdf5_file import Reader
from yeastexp.data.recordings.recording import Choices
from yeastexp.errors import UserError

pytest.importorskip("liffile")

DIMENSION = {"X": 1, "Y": 2, "Z": 3, "T": 4, "M": 10}
PIXEL_M = 2.5e-7


def series(name: str, values: npt.NDArray[np.uint16], axes: str) -> tuple[str, bytes]:
    """The element and the memory of one series; channels, if there are any, are the slowest axis but time."""
    strides = dict(zip(axes, values.strides, strict=True))
    sizes = dict(zip(axes, values.shape, strict=True))
    channels = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" NameOfMeasuredQuantity="" Min="0" Max="65535"'
        f' Unit="" LUTName="Grey" IsLUTInverted="0" BytesInc="{strides.get("C", 0) * index}" BitInc="0"/>'
        for index in range(sizes.get("C", 1))
    )
    dimensions = "".join(
        f'<DimensionDescription DimID="{DIMENSION[axis]}" NumberOfElements="{sizes[axis]}" Origin="0" Unit="m"'
        f' Length="{PIXEL_M * (sizes[axis] - 1)}" BytesInc="{strides[axis]}" BitInc="0"/>'
        for axis in reversed(axes)
        if axis != "C"
    )
    memory = f"Mem_{name}"
    element = (
        f'<Element Name="{name}"><Data><Image><ImageDescription><Channels>{channels}</Channels>'
        f"<Dimensions>{dimensions}</Dimensions></ImageDescription></Image></Data>"
        f'<Memory Size="{values.nbytes}" MemoryBlockID="{memory}"/></Element>'
    )
    named = memory.encode("utf-16-le")
    head = struct.pack("<IIBQBI", 0x70, len(named) + 14, 0x2A, values.nbytes, 0x2A, len(memory))
    return element, head + named + values.tobytes()


def lif(path: Path, *held: tuple[str, bytes]) -> Path:
    """A file of these series."""
    header = (
        '<LMSDataContainerHeader Version="2"><Element Name="yeast.lif"><Children>'
        + "".join(element for element, _ in held)
        + "</Children></Element></LMSDataContainerHeader>"
    ).encode("utf-16-le")
    size = struct.pack("<IIBI", 0x70, len(header) + 5, 0x2A, len(header) // 2)
    path.write_bytes(size + header + b"".join(memory for _, memory in held))
    return path


def recorded(axes: str) -> npt.NDArray[np.uint16]:
    shape = [{"T": 3, "Z": 2, "C": 2, "Y": 12, "X": 16, "M": 2}[axis] for axis in axes]
    return np.arange(np.prod(shape), dtype=np.uint16).reshape(shape) * 7


def packed(root: Path, path: Path, frames: int, **options: Any) -> Reader:
    """The file packed with labels for each of so many frames."""
    labels = np.zeros((frames, 12, 16), np.uint8)
    labels[:, 2:6, 2:6] = 1
    tifffile.imwrite(root / f"{path.stem}_masks.tif", labels, photometric="minisblack")
    pack.pack([path], [root / f"{path.stem}_masks.tif"], root / "data.h5", val=1, part_groups=True, **options)
    return Reader(root / "data.h5")


@pytest.mark.parametrize(
    ("axes", "z"), [("TYX", None), ("TCYX", None), ("TZYX", "max"), ("TZCYX", "1"), ("TZCYX", "max")]
)
def test_frames_of_a_series_are_packed_with_their_channels_and_pixel_size(
    tmp_path: Path, axes: str, z: str | None
) -> None:
    values = recorded(axes)
    choices = Choices(z=z)
    reader = packed(tmp_path, lif(tmp_path / "a.lif", series("first", values, axes)), 3, choices=choices)
    if z is not None:
        values = values.max(1) if z == "max" else values[:, int(z)]
    for frame in range(3):
        assert np.array_equal(reader.read(f"a_t000{frame}")["raw"].squeeze(), values[frame])
    assert reader.contents.pixel_um == pytest.approx(0.25)


def test_each_series_is_an_image(tmp_path: Path) -> None:
    first, second = recorded("YX"), recorded("YX") + 1
    path = lif(tmp_path / "a.lif", series("first", first, "YX"), series("second", second, "YX"))
    for index in range(2):
        tifffile.imwrite(tmp_path / f"a_s{index}_masks.tif", np.eye(12, 16, dtype=np.uint8))
    pack.pack([path], sorted(tmp_path.glob("*_masks.tif")), tmp_path / "data.h5", val=1)
    reader = Reader(tmp_path / "data.h5")
    assert [
        np.array_equal(reader.read(f"a_s{index}")["raw"][0], kept) for index, kept in enumerate((first, second))
    ] == [
        True,
        True,
    ]


@pytest.mark.parametrize("left", [40, 400, 2000])
def test_a_file_that_was_cut_is_one_line(tmp_path: Path, left: int) -> None:
    path = lif(tmp_path / "a.lif", series("first", recorded("TYX"), "TYX"))
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(UserError, match=r"a\.lif: cannot be decoded .*; the file is damaged$"):
        packed(tmp_path, path, 3)
