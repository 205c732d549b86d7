"""ImageJ's regions, as roifile writes them, come back as the cells that were drawn, and bad ones with one line."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated_cells import SIZE, contours, label_image, least_iou, traced
from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi, roiwrite
from skimage.draw import polygon

from yeastexp.data.annotations import KINDS, imagej, polygons, recognised
from yeastexp.errors import UserError

LABELS = label_image()
MASKS = [number == LABELS for number in range(1, 9)]


def from_fiji(points: Any, kind: ROI_TYPE = ROI_TYPE.TRACED, **more: Any) -> ImagejRoi:
    """A region without the marks of Python's."""
    roi = ImagejRoi.frompoints(points)
    roi.roitype, roi.options = kind, roi.options & ROI_OPTIONS.SUB_PIXEL_RESOLUTION
    for key, value in more.items():
        setattr(roi, key, value)
    return roi


def box(kind: ROI_TYPE, left: int, top: int, right: int, bottom: int, **more: Any) -> ImagejRoi:
    roi = ImagejRoi(roitype=kind, left=left, top=top, right=right, bottom=bottom)
    for key, value in more.items():
        setattr(roi, key, value)
    return roi


def write(path: Path, rois: list[ImagejRoi]) -> Path:
    path.unlink(missing_ok=True)
    roiwrite(path, rois, name=[f"{index:04}" for index in range(len(rois))])
    return path


def read(path: Path, frames: dict[str, Any] | None = None) -> Any:
    assert recognised(path) == "imagej_roi"
    return KINDS["imagej_roi"].read(path, frames=frames or {"a": SIZE})


def test_regions_traced_in_fiji_come_back_exactly(tmp_path: Path) -> None:
    result = read(write(tmp_path / "a.zip", [from_fiji(traced(mask)) for mask in MASKS]))
    np.testing.assert_array_equal(result.labels("a").instances, LABELS)


@pytest.mark.parametrize("shift", [0, 0.5])
def test_contours_come_back_exactly(tmp_path: Path, shift: float) -> None:
    path = write(tmp_path / "a.zip", [ImagejRoi.frompoints(ring + shift) for ring in contours(LABELS)])
    np.testing.assert_array_equal(read(path).labels("a").instances, LABELS)


def test_outlines_from_pixel_to_pixel_come_back(tmp_path: Path) -> None:
    """As Cellpose saves its outlines, which run through the pixels at the border of a cell."""
    labels = label_image(radius=9, count=3)
    rings = []
    for number in range(1, 4):
        ring = np.rint(max(contours_of_border(labels == number), key=len)).astype(int)
        rings.append(ring[(np.roll(ring, 1, axis=0) != ring).any(axis=1)])
    result = read(write(tmp_path / "a.zip", [ImagejRoi.frompoints(ring) for ring in rings]))
    assert least_iou(result.labels("a").instances, labels) >= 0.98


def contours_of_border(mask: Any) -> list[Any]:
    """Contours just within a cell, so that rounding them gives its outermost pixels."""
    return [ring + 1e-3 * np.sign(ring.mean(axis=0) - ring) for ring in contours(mask.astype(int))]


def test_smooth_outlines_of_fiji_and_of_python(tmp_path: Path) -> None:
    ring = polygons.ellipse((40.3, 30.4), (5.2, 5.2))
    wanted = np.zeros(SIZE, int)
    wanted[polygon(ring[:, 1], ring[:, 0], SIZE)] = 1
    python = read(write(tmp_path / "a.zip", [ImagejRoi.frompoints(ring)]))
    np.testing.assert_array_equal(python.labels("a").instances, wanted)
    fiji = read(write(tmp_path / "a.zip", [from_fiji(ring + 0.5, ROI_TYPE.FREEHAND)]))
    np.testing.assert_array_equal(fiji.labels("a").instances, wanted)


def test_boxes_composites_groups_and_lines(tmp_path: Path) -> None:
    paths = [*(0, 50, 40, 1, 60, 40, 1, 60, 50, 1, 50, 50, 4), *(0, 52, 42, 1, 55, 42, 1, 55, 45, 1, 52, 45, 4)]
    composite = box(ROI_TYPE.RECT, 50, 40, 60, 50, multi_coordinates=np.array(paths, np.float32))
    composite.shape_roi_size = len(paths)
    rois = [
        box(ROI_TYPE.RECT, 2, 3, 10, 9, group=2),
        box(ROI_TYPE.OVAL, 20, 20, 31, 29),
        composite,
        box(ROI_TYPE.LINE, 1, 1, 5, 5),
    ]
    result = read(write(tmp_path / "a.zip", rois))
    ids, classes = result.labels("a").instances, result.labels("a").classes
    assert np.argwhere(ids == 1).tolist() == [[y, x] for y in range(3, 9) for x in range(2, 10)]
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    oval = ((columns - 25) / 5.5) ** 2 + ((rows - 24) / 4.5) ** 2 <= 1
    np.testing.assert_array_equal(ids == 2, oval)
    assert (ids == 3).sum() == 100 - 9 and ids[43, 53] == 0
    assert result.class_names == ("background", "no group", "group 2") and classes[4, 4] == 2
    assert result.notes == ("1 region without an area left out",)


def test_a_single_region_and_frames(tmp_path: Path) -> None:
    roi = from_fiji(traced(MASKS[0]))
    roi.tofile(tmp_path / "a.roi")
    assert (read(tmp_path / "a.roi").labels("a").instances == MASKS[0]).all()
    rois = [from_fiji(traced(mask), position=position) for mask, position in zip(MASKS, (3, 1, 3), strict=False)]
    result = read(write(tmp_path / "a.zip", rois), dict.fromkeys(("t0", "t1", "t2"), SIZE))
    assert set(result.names) == {"t0", "t2"}
    assert (result.labels("t2").instances == MASKS[0] + 2 * MASKS[2]).all()
    cut_out = read(write(tmp_path / "a.zip", [from_fiji(traced(MASKS[0]), position=7)]))
    assert cut_out.labels("a").instances.any()


SQUARE = [(1, 1), (5, 1), (5, 5), (1, 5)]
NOWHERE = np.full((4, 2), np.nan, np.float32)


@pytest.mark.parametrize(
    ("rois", "frames", "message"),
    [
        ([], 1, ": holds no region with an area; annotate the image, or remove the file"),
        ([box(ROI_TYPE.LINE, 1, 1, 5, 5)], 1, ": holds no region with an area"),
        ([from_fiji(SQUARE, position=4)], 3, ": region '0000' lies on frame 4, but the image has 3 frames"),
        ([from_fiji(SQUARE)], 3, ": region '0000' has no position, but there are 3 frames"),
        (
            [from_fiji(np.array(SQUARE, np.float32), subpixel_coordinates=np.full((4, 2), np.nan, np.float32))],
            1,
            ": '0000.roi': has coordinates that lie outside",
        ),
    ],
)
def test_bad_regions(tmp_path: Path, rois: list[ImagejRoi], frames: int, message: str) -> None:
    for index, roi in enumerate(rois):
        roi.name = f"{index:04}"
    path = write(tmp_path / "a.zip", rois)
    with pytest.raises(UserError) as caught:
        read(path, {f"t{index}": SIZE for index in range(frames)})
    assert str(caught.value).startswith(f"{path}{message}") and "\n" not in str(caught.value)


def one_line(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    return str(caught.value)


def test_every_truncation_is_one_line(tmp_path: Path) -> None:
    data = from_fiji(traced(MASKS[0])).tobytes()
    for length in range(0, 64 + 20, 7):
        (tmp_path / "a.roi").write_bytes(data[:length])
        assert "is no region of ImageJ, or damaged" in one_line(tmp_path / "a.roi")
    path = write(tmp_path / "a.zip", [from_fiji(traced(mask)) for mask in MASKS])
    path.write_bytes(path.read_bytes()[:-40])
    assert "is damaged" in one_line(path)


def test_claimed_sizes_take_no_memory(tmp_path: Path) -> None:
    data = bytearray(ImagejRoi.frompoints(SQUARE).tobytes())
    data[16:18], data[18:22] = struct.pack(">H", 0), struct.pack(">i", 2**31 - 1)
    (tmp_path / "a.roi").write_bytes(bytes(data))
    assert "is no region of ImageJ, or damaged" in one_line(tmp_path / "a.roi")


def test_zips_that_could_do_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("../outside.roi", from_fiji(SQUARE).tobytes())
    assert "member '../outside.roi' has an unsafe path" in one_line(path)
    write(path, [from_fiji(SQUARE)] * 3)
    monkeypatch.setattr(imagej, "LARGEST_ENTRY", 20)
    assert "member '0000.roi' has" in one_line(path)
    monkeypatch.setattr(imagej, "LARGEST_ZIP", 300)
    assert "unpacks to more than 300 bytes; take members out" in one_line(path)
