"""Cells in the formats of other programs: read back by the programs' own readers and by ours, no pixel is lost."""

from __future__ import annotations

import json
import os
import re
import tracemalloc
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import tiny
from conftest import Call
from roifile import ROI_TYPE, ImagejRoi, roiread
from skimage.draw import polygon2mask
from tiny import quiet

from yeastexp.data import annotations, images, pieces
from yeastexp.data.datasets.synthetic_yeast import SyntheticYeast
from yeastexp.data.images import write_png
from yeastexp.data.pack import pack
from yeastexp.data.pieces import StoredImage
from yeastexp.data.recordings import kinds
from yeastexp.data.recordings.recording import Choices, as_recording
from yeastexp.errors import UserError
from yeastexp.prediction import exports
from yeastexp.prediction.cell_table import measure
from yeastexp.prediction.exports import outlines
from yeastexp.prediction.predict import predict
from yeastexp.training.run import run

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
DATA = SyntheticYeast(images=6, size=96)
SIZE = (60, 83)


def label_image(seed: int = 0) -> np.ndarray:
    """Cells that touch, that the border cuts, with holes, and of pieces that meet at a corner or not at all."""
    source = np.random.default_rng(seed)
    labels = np.zeros(SIZE, np.int32)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    for number in range(1, 15):
        row, column, radius = *source.uniform(0, SIZE), source.uniform(3, 8)
        labels[np.hypot(rows - row, columns - column) < radius] = number
    for number in np.unique(labels)[1:]:
        labels[(labels == number) & (source.random(SIZE) < 0.15)] = 0
    numbers, compact = np.unique(labels, return_inverse=True)
    assert len(numbers) > 10
    return compact.reshape(SIZE).astype(np.int32)


def labelled(labels: np.ndarray, name: str = "a.png", **more: Any) -> exports.Labelled:
    values = np.random.default_rng(1).normal(100, 10, (1, *labels.shape)).astype(np.float32)
    settings: dict[str, Any] = {
        "name": f"in/{name}", "stem": Path(name).stem, "path": Path("in", name), "channels": 1, "pixel_um": 0.25,
        "table": measure(labels, values, confidence=np.full(labels.shape, 0.5, np.float32), pixel_um=0.25),
    }  # fmt: skip
    image, opened = StoredImage.of(name, values), StoredImage.of(name, labels[None])
    return exports.Labelled(**{**settings, **more}, size=SIZE, image=lambda: image, open=lambda: opened)


def written(images: list[exports.Labelled], kind: str, output: Path) -> None:
    assert exports.write(exports.chosen([kind]), images, output) == []


def read(path: Path, kind: str, names: list[str]) -> annotations.Annotation:
    assert annotations.recognised(path) == kind
    return annotations.KINDS[kind].read(path, frames=dict.fromkeys(names, SIZE))


def ids(annotation: annotations.Annotation, name: str) -> np.ndarray:
    labels = annotation.labels(name)
    assert labels.instances is not None and not labels.counts
    return labels.instances


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("kind", "reader", "file"),
    [("roi", "imagej_roi", "roi/a.zip"), ("geojson", "geojson", "geojson/a.geojson"), ("coco", "coco", "coco.json")],
)
def test_no_pixel_is_lost(tmp_path: Path, kind: str, reader: str, file: str, seed: int) -> None:
    labels = label_image(seed)
    written([labelled(labels)], kind, tmp_path)
    np.testing.assert_array_equal(ids(read(tmp_path / file, reader, ["a"]), "a"), labels)


@pytest.mark.parametrize(
    ("kind", "reader", "file"),
    [("roi", "imagej_roi", "roi/m.zip"), ("geojson", "geojson", "geojson/m.geojson"), ("coco", "coco", "coco.json")],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_frames_of_a_stack(tmp_path: Path, kind: str, reader: str, file: str, channels: int) -> None:
    frames = [label_image(seed) for seed in range(3)]
    names = [f"m_t{index:04}" for index in range(3)]
    settings = {"path": Path("m.tif"), "stack": "m", "channels": channels}
    stack = [
        labelled(labels, f"{names[index]}.tif", frame=index, **settings) for index, labels in enumerate(frames)
    ]  # fmt: skip
    written(stack, kind, tmp_path)
    back = read(tmp_path / file, reader, names)
    for name, labels in zip(names, frames, strict=True):
        np.testing.assert_array_equal(ids(back, name), labels)
    if kind == "roi":
        rois = roiread(tmp_path / file)
        assert isinstance(rois, list)
        assert rois[0].name == "0001-0001" and rois[-1].name.startswith("0003-")
        last = rois[-1]
        assert (last.position, last.t_position) == ((3, 0) if channels == 1 else (0, 3))


@pytest.mark.parametrize(
    ("axes", "of_image", "wanted"),
    [
        ("TZ", {"plane": 1}, (0, 0, 2, 3)),
        ("TZ", {"plane": None}, (0, 0, 0, 3)),
        ("ZC", {"plane": 1}, (0, 0, 2, 0)),
        ("Z", {"plane": 1}, (2, 0, 0, 0)),
        ("Z", {"plane": None}, (0, 0, 0, 0)),
        ("T", {}, (3, 0, 0, 0)),
        ("TC", {}, (0, 0, 0, 3)),
        ("C", {}, (0, 0, 0, 0)),
    ],
)
def test_positions_on_the_slices_of_imagej(
    tmp_path: Path, axes: str, of_image: dict[str, Any], wanted: tuple[int, ...]
) -> None:
    """A position counts all slices, which is the frame's, or the plane's, number along a single axis alone."""
    of_stack = {"stack": "a", "frame": 2} if "T" in axes else {}
    image = labelled(
        label_image(), planes=4 if "Z" in axes else 1, channels=2 if "C" in axes else 1, **of_stack, **of_image
    )
    written([image], "roi", tmp_path)
    rois = roiread(tmp_path / "roi/a.zip")
    assert isinstance(rois, list)
    assert {(roi.position, roi.c_position, roi.z_position, roi.t_position) for roi in rois} == {wanted}


@pytest.mark.parametrize(
    ("of_image", "wanted"),
    [
        ({}, None),
        ({"planes": 4, "plane": 2}, (2, 0)),
        ({"planes": 4, "plane": None}, (0, 0)),
        ({"planes": 4, "plane": 2, "stack": "a", "frame": 3}, (2, 3)),
        ({"stack": "a", "frame": 3}, (0, 3)),
    ],
)
def test_planes_of_qupath(tmp_path: Path, of_image: dict[str, Any], wanted: tuple[int, int] | None) -> None:
    """In depth and in time."""
    written([labelled(label_image(), **of_image)], "geojson", tmp_path)
    features = json.loads((tmp_path / "geojson/a.geojson").read_text())["features"]
    plane = {"c": -1, "z": wanted[0], "t": wanted[1]} if wanted else None
    assert all(feature["geometry"].get("plane") == plane for feature in features)


def area(ring: Any) -> float:
    x, y = np.asarray(ring, float).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def test_polygons_are_valid_and_of_the_area_of_the_pixels() -> None:
    """Any mask: outer rings run one way and holes the other, and no ring visits a point twice."""
    source = np.random.default_rng(0)
    for _ in range(300):
        mask = source.random(source.integers(1, 9, 2)) < source.uniform(0.2, 0.95)
        polygons = outlines.polygons(mask, 3, 2)
        assert sum(area(ring) for part in polygons for ring in part) == mask.sum()
        for outer, *holes in polygons:
            assert area(outer) > 0 > max(map(area, holes), default=-1)
            assert all(len(set(ring)) == len(ring) for ring in (outer, *holes))
            assert all((np.diff([*ring, ring[0]], axis=0) != 0).sum(axis=1).tolist() == [1] * len(ring)
                       for ring in (outer, *holes))  # fmt: skip
    assert outlines.polygons(np.array([[1, 0], [0, 1]])) == [
        [[(0, 0), (1, 0), (1, 1), (0, 1)]],
        [[(1, 1), (2, 1), (2, 2), (1, 2)]],
    ]


def test_regions_of_imagej(tmp_path: Path) -> None:
    """As roifile reads them; filled as scikit-image does it they are the cell, but for a border of half a pixel."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    labels = np.zeros(SIZE, np.int32)
    for number, (row, column, radius) in enumerate([(20, 20, 7), (20, 40, 5.2), (45, 30, 8.7)], 1):
        labels[np.hypot(rows - row, columns - column) < radius] = number
    labels[45, 30] = 0
    written([labelled(labels)], "roi", tmp_path)
    rois = roiread(tmp_path / "roi/a.zip")
    assert isinstance(rois, list) and [roi.name for roi in rois] == ["0001", "0002", "0003"]
    assert [roi.roitype for roi in rois] == [ROI_TYPE.TRACED, ROI_TYPE.TRACED, ROI_TYPE.RECT]
    assert [roi.composite for roi in rois] == [False, False, True] and rois[0].position == 0
    for number, roi in enumerate(rois, 1):
        ring = max(roi.coordinates(multi=True), key=len)
        filled = polygon2mask(SIZE, ring[:, ::-1] - 0.5)
        cell = labels == number
        assert (filled & cell).sum() / (filled | cell).sum() >= 0.98
    assert (rois[1].left, rois[1].top, rois[1].right - 1, rois[1].bottom - 1) == (35, 15, 46, 26)


def test_regions_far_from_the_corner_are_told_in_floats() -> None:
    far = 70_000
    roi = exports.roi.region([[(far, 1), (far + 2, 1), (far + 2, 3), (far, 3)]], "0001", labelled(label_image()))
    back = ImagejRoi.frombytes(roi.tobytes())
    assert back.coordinates().max(axis=0).tolist() == [far + 2, 3] and back.roitype == ROI_TYPE.TRACED


def test_detections_of_qupath_have_the_row_of_the_table(tmp_path: Path) -> None:
    image = labelled(label_image())
    written([image], "geojson", tmp_path)
    content = json.loads((tmp_path / "geojson/a.geojson").read_text())
    assert content["type"] == "FeatureCollection" and len({each["id"] for each in content["features"]}) == image.most
    for index, feature in enumerate(content["features"]):
        properties = feature["properties"]
        assert (properties["objectType"], properties["name"]) == ("detection", str(index + 1))
        assert properties["measurements"] == {
            name: pytest.approx(float(values[index])) for name, values in image.table.items() if name != "label"
        }
        polygons = feature["geometry"]["coordinates"]
        polygons = [polygons] if feature["geometry"]["type"] == "Polygon" else polygons
        assert all(ring[0] == ring[-1] for polygon in polygons for ring in polygon)
        assert sum(area(ring) for polygon in polygons for ring in polygon) == image.table["area"][index]


def test_areas_and_boxes_of_coco(tmp_path: Path) -> None:
    pictures = [labelled(label_image(seed), f"{'ab'[seed]}.png") for seed in range(2)]
    written(pictures, "coco", tmp_path)
    content = json.loads((tmp_path / "coco.json").read_text())
    assert [each["file_name"] for each in content["images"]] == ["a.png", "b.png"]
    numbers = [each["id"] for each in content["annotations"]]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) == sum(image.most for image in pictures)
    for annotation in content["annotations"]:
        labels = label_image(annotation["image_id"] - 1)
        rows, columns = np.nonzero(labels == annotation["cell"])
        assert annotation["area"] == len(rows) and annotation["score"] == pytest.approx(0.5)
        x, y, width, height = annotation["bbox"]
        assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_run_lengths_go_down_the_columns() -> None:
    mask = np.ones((3, 2), bool)
    assert exports.coco.runs(mask, 0, 0, (3, 2)) == [0, 6]
    assert exports.coco.runs(mask, 0, 0, (3, 4)) == [0, 6, 6]
    assert exports.coco.runs(mask, 1, 1, (5, 4)) == [6, 3, 2, 3, 6]


@pytest.mark.parametrize(
    ("path", "name", "stem", "wanted"),
    [
        ("in/a.png", "in/a.png", "a", "a.png"),
        ("in/a.ome.tif", "in/a.ome.tif", "a", "a.ome.tif"),
        ("in/a.ome.tif", "in/a.ome.tif", "a.ome", "a.ome.tif"),
        ("in/a.tif", "in/a.tif/a_t0001", "a_t0001", "a_t0001"),
        ("in/a.h5", "in/a.h5/a", "a", "a"),
    ],
)
def test_names_of_files_in_coco(tmp_path: Path, path: str, name: str, stem: str, wanted: str) -> None:
    """That of a file with a single image; several in one have their own."""
    image = replace(labelled(label_image()), path=Path(path), name=name, stem=stem)
    written([image], "coco", tmp_path)
    (entry,) = json.loads((tmp_path / "coco.json").read_text())["images"]
    assert entry["file_name"] == wanted


def test_results_of_the_tracking_challenge(tmp_path: Path) -> None:
    """Numbers of frames as in the names, one sequence a folder; what an earlier call wrote does not stay."""
    frames = {number: label_image(number) for number in (0, 2)}
    pictures = [
        labelled(labels, f"t{number:03}.tif", path=Path("movies/02", f"t{number:03}.tif"))
        for number, labels in frames.items()
    ]
    (tmp_path / "ctc/02_RES").mkdir(parents=True)
    (tmp_path / "ctc/02_RES/mask009.tif").touch()
    written(pictures, "ctc", tmp_path)
    assert sorted(path.name for path in (tmp_path / "ctc/02_RES").iterdir()) == ["mask000.tif", "mask002.tif"]
    for number, labels in frames.items():
        values = tifffile.imread(tmp_path / f"ctc/02_RES/mask{number:03}.tif")
        assert values.dtype == np.uint16 and np.array_equal(values, labels)
    others = [labelled(label_image(), f"{name}.png") for name in "ab"]
    written(others, "ctc", tmp_path / "more")
    assert sorted(path.name for path in (tmp_path / "more/ctc/01_RES").iterdir()) == ["mask000.tif", "mask001.tif"]


def test_a_frame_that_is_missing_moves_no_others_of_the_tracking_challenge(tmp_path: Path) -> None:
    """Nor does a sequence of which nothing could be predicted."""
    asked = [labelled(label_image(seed), f"{folder}{seed}.png", path=Path(folder, f"{seed}.png"))
             for folder in "ab" for seed in range(3)]  # fmt: skip
    assert exports.write(exports.chosen(["ctc"]), [asked[4]], tmp_path, asked) == []
    assert [path.relative_to(tmp_path / "ctc") for path in (tmp_path / "ctc").rglob("*.tif")] == [
        Path("02_RES/mask001.tif")
    ]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "ctc/02_RES/mask001.tif"), label_image(1))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["t010", "t012", "other"], "in/other.tif: its name is not that of a frame, such as t012, as others of its "
         "folder are, by which --as ctc numbers them; rename it, or predict it apart"),
        (["t012", "t0012"], "in/t0012.tif: is frame 12 of --as ctc, as in/t012.tif is; rename one"),
    ],
)  # fmt: skip
def test_names_of_frames_are_those_of_all_or_of_none(tmp_path: Path, names: list[str], said: str) -> None:
    """Before anything is predicted."""
    frames = [labelled(label_image(), f"{name}.tif") for name in names]
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        exports.KINDS["ctc"].targets(frames, tmp_path)


def test_what_the_tracking_challenge_cannot_hold(tmp_path: Path) -> None:
    table = {**labelled(label_image()).table, "label": np.array([65_536])}
    too_many = labelled(label_image(), table=table)
    assert exports.write(exports.chosen(["ctc"]), [too_many], tmp_path) == [
        "in/a.png: has 65536 cells, more than the 65535 that --as ctc holds; omit it, or cut the image into pieces"
    ]
    odd = [labelled(label_image()), labelled(label_image(), "b.png")]
    object.__setattr__(odd[1], "size", (9, 8))
    (fault,) = exports.write(exports.chosen(["ctc"]), odd, tmp_path)
    assert fault == (
        "in/b.png: has 9 × 8 pixels, but in/a.png has 60 × 83, and frames of --as ctc are of one size; "
        "predict them apart"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 3])
def test_label_images_for_imagej(tmp_path: Path, count: int) -> None:
    frames = [label_image(seed) for seed in range(count)]
    stack = {"stack": "a"} if count > 1 else {}
    pictures = [labelled(labels, frame=index, **stack) for index, labels in enumerate(frames)]
    written(pictures, "tif", tmp_path)
    with tifffile.TiffFile(tmp_path / "tif/a.tif") as tiff:
        assert tiff.is_imagej and tiff.imagej_metadata is not None and tiff.imagej_metadata["unit"] == "um"
        assert tiff.series[0].axes == ("TYX" if count > 1 else "YX") and tiff.series[0].dtype == np.uint16
    (array,) = kinds.arrays(tmp_path / "tif/a.tif", Choices(), labels=True)
    assert array.pixel_um == pytest.approx(0.25)
    recording = as_recording(array, Choices())
    for frame, labels in enumerate(frames):
        np.testing.assert_array_equal(recording.read(frame)[0], labels)


def test_ids_above_16_bits_for_imagej(tmp_path: Path) -> None:
    labels = label_image() * 10_000
    written([labelled(labels, pixel_um=None)], "tif", tmp_path)
    with tifffile.TiffFile(tmp_path / "tif/a.tif") as tiff:
        assert tiff.series[0].dtype == np.float32 and "unit" not in (tiff.imagej_metadata or {})
    np.testing.assert_array_equal(images.read_mask(tmp_path / "tif/a.tif"), labels)


@pytest.mark.parametrize("count", [1, 3])
def test_images_with_labels_of_ome_zarr(tmp_path: Path, count: int) -> None:
    pytest.importorskip("zarr")
    stack = {"stack": "a"} if count > 1 else {}
    pictures = [labelled(label_image(seed), frame=seed, **stack) for seed in range(count)]
    written(pictures, "zarr", tmp_path)
    for is_labels in (False, True):
        (array,) = kinds.arrays(tmp_path / "zarr/a.zarr", Choices(), labels=is_labels)
        assert array.pixel_um == pytest.approx(0.25) and array.kind == "OME-Zarr"
        recording = as_recording(array, Choices())
        assert recording.frames == count
        for frame, picture in enumerate(pictures):
            wanted = (picture.open() if is_labels else picture.image()).whole
            np.testing.assert_array_equal(recording.read(frame), wanted)


def halved(values: np.ndarray, image: bool) -> np.ndarray:
    """As by hand: the mean of up to four pixels, the last ones twice where they are odd, or the first of them."""
    rows, columns = (np.arange(0, length, 2) for length in values.shape[-2:])
    near = [
        np.minimum(np.array([at, at + 1]), length - 1)
        for at, length in zip((rows, columns), values.shape[-2:], strict=True)
    ]
    blocks = values[..., near[0][:, None, :, None], near[1][None, :, None, :]].astype(float)
    return (np.rint(blocks.mean(axis=(-4, -3))) if image else blocks[..., 0, 0, :, :]).astype(values.dtype)


@pytest.mark.parametrize("frames", [1, 2])
def test_smaller_resolutions_of_ome_zarr(tmp_path: Path, frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    zarr = pytest.importorskip("zarr")
    monkeypatch.setattr(exports.ome_zarr, "CHUNK", 16)
    values = [np.random.default_rng(frame).integers(0, 60_000, (2, *SIZE)).astype(np.uint16) for frame in range(frames)]
    stack = {"stack": "a"} if frames > 1 else {}
    pictures = [
        replace(
            labelled(label_image(frame), frame=frame, **stack),
            image=lambda frame=frame: StoredImage.of("a", values[frame]),
        )
        for frame in range(frames)
    ]
    written(pictures, "zarr", tmp_path)
    root = zarr.open_group(str(tmp_path / "zarr/a.zarr"), mode="r")
    for group, is_image in ((root, True), (root["labels/cells"], False)):
        wanted = np.stack(values if is_image else [picture.open().whole[0] for picture in pictures])
        (said,) = group.attrs["multiscales"]
        assert [each["path"] for each in said["datasets"]] == ["0", "1", "2", "3"]
        for level, each in enumerate(said["datasets"]):
            stored = group[each["path"]]
            assert max(stored.chunks) <= 16 and stored.dtype == (np.uint16 if is_image else np.uint32)
            np.testing.assert_array_equal(stored[:] if frames > 1 else stored[:][None], wanted)
            scale, *shift = [each[each["type"]] for each in each["coordinateTransformations"]]
            assert scale[-2:] == [0.25 * 2**level] * 2 and set(scale[:-2]) <= {1.0}
            # The centre of the first pixel is that of the pixels it is made from.
            assert [place[-2:] for place in shift] == [[(2**level - 1) * 0.125] * 2] * (is_image and level > 0)
            wanted = halved(wanted, is_image)
    assert max(group[each["path"]].shape[-2:]) <= 16


@pytest.mark.parametrize("kind", ["tif", "ctc", "zarr"])
def test_memory_does_not_grow_with_the_height(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are read as they are written: of an image five times as high no more lies in memory."""
    if kind == "zarr":
        pytest.importorskip("zarr")
    monkeypatch.setattr(pieces, "BAND", 1 << 16)
    monkeypatch.setattr(exports.ome_zarr, "CHUNK", 128)
    peaks = {}
    for height in (640, 640, 3200):  # the first call imports what it needs

        def stored(dtype: type[np.generic], height: int = height) -> StoredImage:
            def read(rows: slice, columns: slice) -> np.ndarray:
                down, across = np.ogrid[rows, columns]
                return ((down // 20 + across // 20) % 7).astype(dtype)[None]

            return StoredImage("a", (1, height, 512), np.dtype(dtype), read)

        image, labels = partial(stored, np.uint16), partial(stored, np.uint32)
        picture = labelled(label_image(), table={"label": np.arange(1, 7)})
        picture = replace(picture, size=(height, 512), image=image, open=labels)
        tracemalloc.start()
        written([picture], kind, tmp_path)
        peaks[height] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[3200] < 1.5 * peaks[640], peaks
    file = {"tif": "tif/a.tif", "ctc": "ctc/01_RES/mask000.tif", "zarr": "zarr/a.zarr"}[kind]
    (array,) = kinds.arrays(tmp_path / file, Choices(), labels=True)
    np.testing.assert_array_equal(as_recording(array, Choices()).read(), picture.open().whole)


def test_a_kind_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=r"^--as zarr: needs another package; pip install zarr$"):
        exports.chosen(["roi", "zarr"])


@pytest.mark.parametrize("kind", ["tif", "zarr"])
def test_frames_that_are_missing_move_no_others(tmp_path: Path, kind: str) -> None:
    if kind == "zarr":
        pytest.importorskip("zarr")
    written([labelled(label_image(), frame=frame, stack="a") for frame in (1, 3)], kind, tmp_path)
    (array,) = kinds.arrays(tmp_path / kind / f"a.{kind}", Choices(), labels=True)
    recording = as_recording(array, Choices())
    assert [bool(recording.read(frame).any()) for frame in range(recording.frames)] == [False, True, False, True]


def test_a_stack_and_an_image_of_one_name(tmp_path: Path) -> None:
    pictures = [labelled(label_image()), labelled(label_image(), path=Path("in/a.tif"), stack="a")]
    assert exports.write(exports.chosen(["roi"]), pictures, tmp_path) == [
        "in/a.tif: its cells would go into the file of those of in/a.png; predict them apart"
    ]


def test_an_image_larger_than_memory(semantic: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.tile(DATA.arrays(DATA.splits["val"][0])["raw"], (2, 2))[:150, :170]
    tifffile.imwrite("large.tif", values)
    monkeypatch.setattr(images, "LARGEST", 10_000)
    predict(semantic, ["large.tif"], Path("out"), cells=True, kinds=["coco", "geojson", "tif"])
    labels = tifffile.imread("out/cells/large.tif")
    assert labels.max() > 0
    for kind, file in (("coco", "coco.json"), ("geojson", "geojson/large.geojson")):
        back = annotations.KINDS[kind].read(here / "out" / file, frames={"large": labels.shape})
        np.testing.assert_array_equal(ids(back, "large"), labels)
    np.testing.assert_array_equal(tifffile.imread("out/tif/large.tif"), labels)


def test_an_image_without_cells(tmp_path: Path) -> None:
    empty = labelled(np.zeros(SIZE, np.int32))
    assert exports.write(list(exports.KINDS.values()), [empty], tmp_path) == []
    assert json.loads((tmp_path / "coco.json").read_text())["annotations"] == []
    assert json.loads((tmp_path / "geojson/a.geojson").read_text())["features"] == []
    with zipfile.ZipFile(tmp_path / "roi/a.zip") as archive:
        assert archive.namelist() == []


# With a run


def trained(folder: Path, task: str) -> Path:
    here = Path.cwd()
    os.chdir(folder)
    try:
        text = (EXPERIMENTS / "quick_cells.toml").read_text().replace('name = "instances"', f'name = "{task}"')
        Path("mine.toml").write_text(text)
        settings = ["train.steps=60", "runtime.threads=1", "patches.size=48"]
        return run(Path("mine.toml"), settings, console=quiet()).resolve()
    finally:
        os.chdir(here)


@pytest.fixture(scope="module")
def semantic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("semantic"), "semantic")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    for name in DATA.splits["val"]:
        write_png(Path("in") / f"{name}.png", DATA.arrays(name)["raw"])
    yield tmp_path


def test_predict_writes_every_kind(semantic: Path, here: Path, call: Call) -> None:
    every = [part for kind in exports.KINDS for part in ("--as", kind)]
    status, out, err = call("predict", semantic, "in", "-o", "out", "--cells", *every)
    assert status == 0, err
    assert "QuPath GeoJSON: out/geojson/NAME.geojson" in out and "out/ctc/01_RES/maskNNN.tif (no tracks)" in out
    for index, name in enumerate(DATA.splits["val"]):
        labels = images.read_mask(here / f"out/cells/{name}.png")
        assert labels.max() > 0
        frames = {name: labels.shape}
        for kind, file in (
            ("imagej_roi", f"roi/{name}.zip"), ("geojson", f"geojson/{name}.geojson"), ("coco", "coco.json"),
        ):  # fmt: skip
            wanted = dict.fromkeys(DATA.splits["val"], labels.shape) if kind == "coco" else frames
            back = annotations.KINDS[kind].read(here / "out" / file, frames=wanted)
            np.testing.assert_array_equal(ids(back, name), labels)
        np.testing.assert_array_equal(tifffile.imread(f"out/tif/{name}.tif"), labels)
        np.testing.assert_array_equal(tifffile.imread(f"out/ctc/01_RES/mask{index:03}.tif"), labels)


def test_a_stack_of_frames_gives_one_of_labels(semantic: Path, here: Path) -> None:
    values = np.stack([DATA.arrays(name)["raw"] for name in DATA.splits["val"]])
    tifffile.imwrite(
        "movie.tif", values, imagej=True, resolution=(5, 5), metadata={"axes": "TYX", "unit": "um"}
    )  # fmt: skip
    assert predict(semantic, ["movie.tif"], Path("out"), cells=True, kinds=["tif", "roi", "ctc"]) == len(values)
    (array,) = kinds.arrays(Path("out/tif/movie.tif"), Choices(), labels=True)
    recording = as_recording(array, Choices())
    assert recording.letters == "TYX" and array.pixel_um == pytest.approx(0.2)
    stack = annotations.KINDS["imagej_roi"].read(
        Path("out/roi/movie.zip"), frames={recording.image_name(frame): (96, 96) for frame in range(len(values))}
    )
    predict(semantic, ["in"], Path("apart"), cells=True)
    predict(semantic, ["movie.tif"], Path("plain"), cells=True, form="tif")
    for file in ("movie_t0000.tif", "cells/movie_t0000.tif"):
        (plain,) = kinds.arrays(Path("plain", file), Choices(), labels=True)
        assert plain.pixel_um == pytest.approx(0.2) and plain.kind == "ImageJ TIFF"
        np.testing.assert_array_equal(
            images.read_mask(Path("plain", file)), images.read_mask(Path("out", file).with_suffix(".png"))
        )
    for frame, name in enumerate(DATA.splits["val"]):
        labels = images.read_mask(Path(f"apart/cells/{name}.png"))
        np.testing.assert_array_equal(recording.read(frame)[0], labels)
        np.testing.assert_array_equal(ids(stack, f"movie_t{frame:04}"), labels)
        np.testing.assert_array_equal(tifffile.imread(f"out/ctc/01_RES/mask{frame:03}.tif"), labels)
        np.testing.assert_array_equal(images.read_mask(Path(f"out/cells/movie_t{frame:04}.png")), labels)
    table = (here / "out/cells.csv").read_text().splitlines()
    assert "area_um2" in table[0] and table[1].startswith("movie.tif/movie_t0000,")


def test_a_plane_in_depth_is_that_of_the_regions(semantic: Path, here: Path) -> None:
    """The middle of three, in both frames."""
    values = np.stack([DATA.arrays(name)["raw"] for name in DATA.splits["train"][:2]])
    tifffile.imwrite("tz.tif", np.stack([values] * 3, axis=1), imagej=True, metadata={"axes": "TZYX"})
    predict(semantic, ["tz.tif"], Path("out"), cells=True, kinds=["roi"], choices=Choices(z="middle"))
    rois = roiread("out/roi/tz.zip")
    assert isinstance(rois, list)
    assert {(roi.position, roi.z_position, roi.t_position) for roi in rois} == {(0, 2, 1), (0, 2, 2)}


def test_a_frame_that_cannot_be_read_moves_no_others(semantic: Path, here: Path) -> None:
    """Whether it is cut short or something else."""
    Path("seq").mkdir()
    for index in range(4):
        tifffile.imwrite(f"seq/f{index}.tif", DATA.arrays(DATA.splits["val"][0])["raw"])
    whole = Path("seq/f1.tif").read_bytes()
    Path("seq/f1.tif").write_bytes(whole[: len(whole) // 2])
    Path("seq/f2.tif").write_bytes(b"no image")
    with pytest.raises(UserError) as caught:
        predict(semantic, ["seq"], Path("out"), cells=True, kinds=["ctc"])
    assert len(caught.value.faults) == 2
    assert sorted(path.name for path in Path("out/ctc/01_RES").iterdir()) == ["mask000.tif", "mask003.tif"]


def test_pages_of_which_nothing_is_said(semantic: Path, here: Path, call: Call) -> None:
    values = np.stack([DATA.arrays(name)["raw"] for name in DATA.splits["val"]])
    tifffile.imwrite("movie.tif", values, metadata=None, photometric="minisblack")
    status, _, err = call("predict", semantic, "movie.tif", "-o", "out")
    assert status == 2 and "add --axes TYX if they are frames" in err and err.count("\n") == 1
    status, out, err = call("predict", semantic, "movie.tif", "-o", "out", "--axes", "TYX")
    assert status == 0 and f"{len(values)} masks" in out, err


def test_what_is_refused_before_anything_is_predicted(semantic: Path, here: Path, call: Call) -> None:
    for arguments, said in (
        (
            ["--cells", "--as", "geojsn"],
            r"--as geojsn: no such kind of file; did you mean 'geojson'\? \(known: coco, ctc",
        ),
        (["--as", "roi"], r"--as roi writes cells, and the run tells none apart; add --cells \(approximate\)"),
    ):
        status, _, err = call("predict", semantic, "in", "-o", "out", *arguments)
        assert status == 2 and re.search(said, err) and err.count("\n") == 1
        assert not Path("out").exists()
    Path("out").touch()
    status, _, err = call("predict", semantic, "in", "-o", "out")
    assert (status, err) == (2, "out: is a file, but results are written into a folder; name one\n")


@pytest.mark.parametrize(
    ("kind", "given", "output", "said"),
    [
        ("tif", "tif/a.tif", ".", "tif/a.tif: is one of the images; choose another folder for the masks"),
        ("ctc", "ctc/01_RES/a.tif", ".", "{given}: is one of the images, and ctc/01_RES would change it; {remedy}"),
        ("zarr", "zarr/a.zarr", ".", "zarr/a.zarr: is one of the images; choose another folder for the masks"),
        ("roi", "a.zarr", "a.zarr", "{given}: is one of the images, and a.zarr/a.png would change it; {remedy}"),
    ],
)
def test_exports_are_not_written_over_images(
    semantic: Path, here: Path, kind: str, given: str, output: str, said: str
) -> None:
    """Nor over a folder with images, nor into an image that is a folder."""
    if given.endswith(".zarr"):
        zarr = pytest.importorskip("zarr")
        group = zarr.open_group(given, mode="w", zarr_format=2)
        group.create_array("0", data=tiny.image(0)["raw"])
        group.attrs["multiscales"] = [{"version": "0.4", "axes": ["y", "x"], "datasets": [{"path": "0"}]}]
    else:
        Path(given).parent.mkdir(parents=True)
        tifffile.imwrite(given, tiny.image(0)["raw"])
    before = contents(here)
    said = said.format(given=given, remedy="choose another folder")
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        predict(semantic, [given], Path(output), cells=True, kinds=[kind])
    assert contents(here) == before


@pytest.mark.parametrize("foreign", [f"{DATA.splits['val'][0]}.png", "cells.csv", "coco.json"])
def test_files_of_others_are_not_written_over(semantic: Path, here: Path, foreign: str, call: Call) -> None:
    """Whether it is a mask, a table or an export; afterwards predictions replace each other."""
    arguments = ("predict", semantic, "in", "-o", "out", "--cells", "--as", "coco")
    Path("out").mkdir()
    Path("out", foreign).write_text("made by hand")
    status, _, err = call(*arguments)
    said = f"out/{foreign}: exists, and no prediction wrote it; name another folder, or move it\n"
    assert (status, err, Path("out", foreign).read_text()) == (2, said, "made by hand")
    assert [path.name for path in Path("out").rglob("*")] == [foreign]
    Path("out", foreign).unlink()
    assert [call(*arguments)[0] for _ in range(2)] == [0, 0]


def test_outputs_of_other_images_or_options_do_not_stay_beside_new_ones(semantic: Path, here: Path) -> None:
    """Their ids would be those of other label images; those of the same ones stay."""
    predict(semantic, ["in"], Path("out"), cells=True, kinds=["coco"])
    predict(semantic, ["in"], Path("out"), cells=True, kinds=["roi"], form="tif")
    before = contents(Path("out"))
    assert {Path("out/coco.json"), Path(f"out/roi/{DATA.splits['val'][0]}.zip")} < before.keys()
    first, *_ = DATA.splits["val"]
    said = rf"^out/cells/{first}\.png: is of an earlier prediction of other images or options"
    with pytest.raises(UserError, match=said):
        predict(semantic, ["in"], Path("out"), cells=True, kinds=["coco", "roi"], form="tif", tta=True)
    write_png(Path(f"in/{first}.png"), tiny.image(0)["raw"])
    with pytest.raises(UserError, match=said):
        predict(semantic, ["in"], Path("out"), cells=True, kinds=["coco", "roi"], form="tif")
    assert contents(Path("out")) == before
    predict(semantic, ["in"], Path("new"), cells=True, kinds=["coco"])
    write_png(Path(f"in/{first}.png"), tiny.image(1)["raw"])
    predict(semantic, ["in"], Path("new"), cells=True, kinds=["coco"])
    labels = images.read_mask(Path(f"new/cells/{first}.png"))
    back = annotations.KINDS["coco"].read(
        Path("new/coco.json"),
        frames={name: images.read_mask(Path(f"in/{name}.png")).shape for name in DATA.splits["val"]},
    )
    np.testing.assert_array_equal(ids(back, first), labels)


def test_outputs_of_an_image_stay_where_others_are_predicted_with_it(semantic: Path, here: Path) -> None:
    """Whatever they are; a file of all images is one of other images then."""
    first, *others = DATA.splits["val"]
    for name in others:
        Path(f"in/{name}.png").rename(f"{name}.png")
    predict(semantic, ["in"], Path("out"), cells=True, overlay=True, kinds=["roi", "geojson", "coco"])
    for name in others:
        Path(f"{name}.png").rename(f"in/{name}.png")
    with pytest.raises(
        UserError, match=r"^out/coco\.json: is of an earlier prediction of other images or options, and"
    ):
        predict(semantic, ["in"], Path("out"), cells=True)
    predict(semantic, ["in"], Path("out"), cells=True, kinds=["coco"])
    there = [path.as_posix() for path in Path("out").rglob("*.*") if path.stem == first]
    assert sorted(there) == [
        f"out/cells/{first}.png",
        f"out/geojson/{first}.geojson",
        f"out/overlays/{first}.png",
        f"out/roi/{first}.zip",
        f"out/{first}.png",
    ]


@pytest.mark.parametrize("first", [{}, {"cells": True, "kinds": ["coco"]}])
def test_results_of_another_run_are_kept_apart(semantic: Path, here: Path, first: dict[str, Any], call: Call) -> None:
    """Those of the same run are replaced, as when it is called with further kinds of files."""
    predict(semantic, ["in"], Path("out"), **first)
    predict(semantic, ["in"], Path("out"), cells=True, kinds=["coco", "roi"])
    record = Path("out/.predicted.json")
    record.write_text(json.dumps({"run": "runs/other/001", "checkpoint": "0"}))
    before = contents(Path("out"))
    refusals = {
        "out: holds results of another run or checkpoint (runs/other/001); name another folder": record.unlink,
        "out/predictions.csv: is of a run that is not known; name another folder, or remove the results here": None,
    }
    for said, then in refusals.items():
        status, _, err = call("predict", semantic, "in", "-o", "out")
        assert (status, err.count("\n")) == (2, 1) and said in err
        assert contents(Path("out")) == before
        if then:
            then()
            del before[record]


def test_results_of_other_images_are_kept_apart(semantic: Path, here: Path, call: Call) -> None:
    """They would be in no table any more, or be replaced by those of an image of the same name."""
    for folder, numbers in (("more", (0, 1)), ("few", (0,))):
        for number in numbers:
            write_png(Path(folder) / f"{number}.png", tiny.image(number)["raw"])
    predict(semantic, ["few"], Path("out"))
    predict(semantic, [str(here / "few")], Path("out"), overlay=True)  # the same ones by other paths
    before = contents(Path("out"))
    status, _, err = call("predict", semantic, "more", "-o", "out")
    said = "out: holds results of 1 other image (few/0.png); name another folder, or predict all of them in one call\n"
    assert (status, err.replace(f"{here}/", ""), contents(Path("out"))) == (2, said, before)
    Path("broken.h5").write_bytes(b"no HDF5 file")  # a fault of another input switches nothing off
    status, _, err = call("predict", semantic, "more", "broken.h5", "-o", "out")
    assert (status, err.count("\n"), contents(Path("out"))) == (2, 2, before) and "broken.h5: " in err


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("taken", ["roi", ".predicted.json"])
def test_a_file_that_cannot_be_written_keeps_no_other(semantic: Path, here: Path, taken: str) -> None:
    Path("out").mkdir()
    if taken == "roi":
        Path("out/roi").touch()
    else:
        Path("out", taken).mkdir()
    with pytest.raises(UserError) as caught:
        predict(semantic, ["in"], Path("out"), cells=True, kinds=["roi", "coco"])
    assert len(caught.value.faults) == 1 and "cannot be written" in str(caught.value)
    assert Path("out/coco.json").is_file() and Path("out/predictions.csv").is_file()


def test_a_packed_stack_comes_out_as_one(semantic: Path, here: Path) -> None:
    values = np.stack([DATA.arrays(name)["raw"] for name in DATA.splits["val"]])
    labels = np.stack([DATA.arrays(name)["gt"] for name in DATA.splits["val"]]).astype(np.uint16)
    for name, array in (("movie", values), ("movie_masks", labels)):
        tifffile.imwrite(f"{name}.tif", array, imagej=True, metadata={"axes": "TYX"})
    pack(["movie.tif"], ["movie_masks.tif"], Path("data.h5"), part_groups=True)
    with h5py.File("data.h5", "r+") as file:
        file["channel_names"] = ["phase"]
    predict(semantic, ["data.h5"], Path("out"), cells=True, kinds=["roi"])
    predict(semantic, ["movie.tif"], Path("direct"), cells=True, kinds=["roi"])
    assert [path.name for path in Path("out/roi").iterdir()] == ["movie.zip"]
    assert Path("out/roi/movie.zip").read_bytes() == Path("direct/roi/movie.zip").read_bytes()


@pytest.mark.parametrize(
    "file", ["roi/movie.zip", "geojson/movie.geojson", "coco.json", "tif/movie.tif", "zarr/movie.zarr"]
)
def test_what_comes_out_is_packed_as_it_was(semantic: Path, here: Path, file: str) -> None:
    if "zarr" in file:
        pytest.importorskip("zarr")
    values = np.stack([DATA.arrays(name)["raw"] for name in DATA.splits["val"]])
    tifffile.imwrite("movie.tif", values, imagej=True, metadata={"axes": "TYX"})
    kind = Path(file).parent.name or "coco"
    predict(semantic, ["movie.tif"], Path("out"), cells=True, kinds=[kind])
    given = "instance" if kind in ("tif", "zarr") else "auto"
    pack(["movie.tif"], [Path("out", file)], Path("data.h5"), kind=given, part_groups=True)
    labels = [images.read_mask(Path(f"out/cells/movie_t{frame:04}.png")) for frame in range(len(values))]
    with h5py.File("data.h5") as packed:
        np.testing.assert_array_equal(packed["instances"][()], labels)


@pytest.mark.parametrize("kind", ["roi", "geojson", "coco", "ctc", "tif", "zarr"])
def test_an_interruption_leaves_nothing_half(tmp_path: Path, kind: str) -> None:
    if kind == "zarr":
        pytest.importorskip("zarr")
    picture = labelled(label_image())
    names = [name for name in ("open", "image") if kind == "zarr" or name == "open"]

    class Interrupted(StoredImage):
        def __init__(self) -> None:
            super().__init__("a", (1, *SIZE), np.dtype(np.int32), self.stop)

        def stop(self, *_: Any) -> Any:
            raise KeyboardInterrupt

    broken = replace(picture, **dict.fromkeys(names, Interrupted))
    with pytest.raises(KeyboardInterrupt):
        exports.write(exports.chosen([kind]), [broken], tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if not path.is_dir()] == []
    written([picture], kind, tmp_path / "out")
