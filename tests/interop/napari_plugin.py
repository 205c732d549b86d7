"""Lets napari itself use the plugin: a window that nobody sees, files opened, the widget run; status 1 if that fails.

xvfb-run -a python tests/interop/napari_plugin.py shot.png          # in an environment that is made for it, some 2 GB
xvfb-run -a python tests/interop/napari_plugin.py shot.png --here   # in this one: pip install -e . 'napari[pyqt6]' npe2

Debian's packages for it: xvfb libgl1-mesa-dri libegl1 libxcb-cursor0 libxkbcommon-x11-0 libxcb-icccm4 libxcb-keysyms1
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parents[2]
INSTALLED = (["torch==2.13.0"], [HOME, "napari[pyqt6]", "npe2"])
"""By one call of pip each: PyTorch first, so that nothing else chooses its version."""

CELLS = {
    "name": "cells",
    "extends": "yeastexp:quick_cells",
    "dataset": {"images": 6, "size": 128},
    "model": {"width": 8, "levels": 3},
    "patches": {"size": 64},
    "train": {"steps": 300, "batch_size": 4},
    "validation": {"every": 300},
}


def in_its_own_environment(picture: Path) -> int:
    """Make an environment, and this program's status there."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    with tempfile.TemporaryDirectory() as temporary:
        venv.create(temporary, with_pip=True)
        python = Path(temporary) / ("Scripts" if os.name == "nt" else "bin") / "python"
        for packages in INSTALLED:
            words = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
            subprocess.run(words, check=True, env=environment, cwd=temporary)
        words = [python, __file__, picture, "--here"]
        return subprocess.run(words, check=False, env=environment, cwd=temporary).returncode


def until(true: Any, seconds: float = 120) -> None:
    """Let the window work until something is true."""
    from napari.utils.notifications import notification_manager
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, [each.message for each in notification_manager.records]
        QApplication.processEvents()
        time.sleep(0.01)


def main(picture: Path) -> None:
    """Train a small run, open its data in napari, segment there, and compare with Python and with `predict`."""
    assert "napari" not in sys.modules
    import numpy as np

    import yeastexp as yx
    from yeastexp.data import hdf5_file, tiff_file

    run = yx.train(yx.experiment(CELLS, {"runtime.threads": 1})).path
    data = yx.dataset["synthetic_yeast"](images=5, size=160, seed=3)
    names = [*data.splits["train"], *data.splits["val"]]
    kept = ("raw", "gt", "instances")
    arrays = {name: {key: data.arrays(name)[key] for key in kept} for name in names}
    arrays[names[-1]] = {key: array[..., :120, :150] for key, array in arrays[names[-1]].items()}
    hdf5_file.write(Path("cells.h5"), {"train": names[:-1], "val": names[-1:]}, arrays.get, provenance={}, pixel_um=0.1)
    Path("images").mkdir()
    for name in names:
        tiff_file.write(Path("images") / f"{name}.tif", arrays[name]["raw"], 0.1)
    command = [sys.executable, "-m", "yeastexp", "predict", run, "images", "-o", "masks"]
    subprocess.run(list(map(str, command)), check=True)
    assert "napari" not in sys.modules, "importing this package does not import napari"

    import napari
    from napari.utils.notifications import notification_manager
    from npe2 import PluginManager, PluginManifest

    manifest = PluginManifest.from_distribution("yeastexp")
    manifest.validate_imports()
    PluginManager.instance().discover()
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1300, 850)

    viewer.open("cells.h5", plugin="yeastexp")
    named = [each.name for each in viewer.layers]
    assert named == ["cells", "cells names", "cells classes", "cells instances"], named
    raw = viewer.layers["cells"]
    assert raw.data.shape == (5, 160, 160) and np.array_equal(raw.data[0], np.squeeze(arrays[names[0]]["raw"]))
    _, widget = viewer.window.add_plugin_dock_widget("yeastexp", "Segment with a run")
    model = yx.load(run)
    expected = [model.predict(arrays[name]["raw"], pixel_um=0.1) for name in names]

    viewer.dims.set_point(0, 4)  # the smaller one
    widget.run.value = run
    widget()
    until(lambda: "cells cells" in viewer.layers)
    shown = viewer.layers["cells cells"]
    assert shown.data.shape == (1, 160, 160) and shown.translate[0] == 4
    assert np.array_equal(shown.data[0, :120, :150], expected[4].instances), "one image, without what continues it"
    assert np.allclose(shown.features["area_um2"], expected[4].table["area_um2"])
    viewer.layers.remove(shown)

    widget.all_images.value = True
    widget()
    until(lambda: "cells cells" in viewer.layers)
    whole = viewer.layers["cells cells"].data
    for plane, result in zip(whole, expected, strict=True):
        height, width = result.instances.shape
        assert np.array_equal(plane[:height, :width], result.instances), "the whole stack"
    viewer.layers["cells instances"].visible = False
    viewer.dims.set_point(0, 1)
    viewer.layers["cells cells"].contour = 1
    until(lambda: True)
    picture_of(viewer, picture)

    notification_manager.records.clear()
    widget.run.value = Path("images")
    with notification_manager:  # as in the window's own loop, which shows errors of threads
        widget()
        until(lambda: notification_manager.records)
    said = notification_manager.records[-1].message
    print("said of a folder that is no run:", said)
    assert "\n" not in said and "images" in said

    viewer.layers.clear()
    viewer.open("masks/predictions.csv", plugin="yeastexp")
    assert [each.name for each in viewer.layers] == ["masks", "masks names", "masks cells"]
    assert all(np.array_equal(plane[: len(e.instances), : len(e.instances[0])], e.instances)
               for plane, e in zip(viewer.layers["masks cells"].data, expected, strict=True))  # fmt: skip
    assert tuple(viewer.layers["masks"].scale) == (1, 0.1, 0.1)
    picture_of(viewer, picture.with_stem(f"{picture.stem}_predictions"))
    viewer.close()
    print("napari", napari.__version__, "opens packed files and predictions, and segments as Python does")


def picture_of(viewer: Any, path: Path) -> None:
    """The window as a picture."""
    end = time.monotonic() + 1
    until(lambda: time.monotonic() > end)
    viewer.screenshot(str(path), canvas_only=False, flash=False)


if __name__ == "__main__":
    out = Path(sys.argv[1]).resolve()
    if "--here" not in sys.argv[2:]:
        sys.exit(in_its_own_environment(out))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"XDG_STATE_HOME": folder, "NAPARI_CONFIG": ""}
        os.chdir(folder)
        main(out)
