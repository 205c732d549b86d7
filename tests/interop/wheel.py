"""Builds the wheel, installs it into an empty environment, and uses it outside of the checkout; status 1 if that fails.

python tests/interop/wheel.py           # everything is downloaded: PyTorch first, then what the wheel asks for
python tests/interop/wheel.py --reuse   # what this Python's environment has is used beside the wheel: half a minute
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
PYTORCH = "torch==2.13.0"
SOURCES = ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "yeastexp", "experiments")

IN_PYTHON = """
import yeastexp as yx
assert {place!r} in yx.__file__, yx.__file__
data = yx.dataset["synthetic_yeast"](images=2, size=64)
for run in ("runs/mine/001", "yeast"):
    print(yx.load(run).predict(data.arrays(data.splits["val"][0])["raw"]))
"""


def run(*words: object, folder: Path, environment: Mapping[str, str]) -> str:
    """What a command prints; its output and this program's end where it fails."""
    print("$", *words, flush=True)
    done = subprocess.run(
        [str(word) for word in words], cwd=folder, env=environment, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nends with status {done.returncode}")
    return done.stdout


def built(folder: Path, environment: Mapping[str, str]) -> Path:
    """The wheel, of a copy of the checkout, which is left as it is."""
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        place = HOME / name
        if place.is_dir():
            shutil.copytree(place, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif place.exists():
            shutil.copy(place, source)
    isolation = ["--no-build-isolation"] if find_spec("setuptools") else []  # else it is downloaded
    words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", *isolation, "-w", folder, source]
    run(*words, folder=folder, environment=environment)
    (wheel,) = folder.glob("*.whl")
    shutil.rmtree(source)
    return wheel


def lacking(wheel: Path) -> set[str]:
    """The files of the package and the starters that are not in the wheel."""
    wanted = {path.relative_to(HOME).as_posix() for path in (HOME / "yeastexp").rglob("*") if path.is_file()}
    wanted |= {f"yeastexp/starters/{path.name}" for path in (HOME / "experiments").iterdir() if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in wanted - {*archive.namelist()} if "__pycache__" not in name}


def main(reuse: bool) -> None:
    """Build, install, use."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        environment |= {"OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(folder / "state")}
        wheel = built(folder, environment)
        if missing := lacking(wheel):
            sys.exit(f"not in the wheel: {', '.join(sorted(missing))}")
        venv.create(folder / "venv", with_pip=True)
        programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        pip = (programs / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check")
        if reuse:
            run(*pip, "--no-deps", wheel, folder=folder, environment=environment)
            (place,) = (folder / "venv").rglob("site-packages")
            (place / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
        else:
            run(*pip, PYTORCH, folder=folder, environment=environment)
            run(*pip, wheel, folder=folder, environment=environment)
        work = folder / "work"
        work.mkdir()
        small = [word for key in ("train.steps=4", "dataset.size=64", "patches.size=32") for word in ("--set", key)]
        for words in (
            ["--version"],
            ["doctor"],
            ["new", "yeastexp:quick", "-o", "mine.toml"],
            ["run", "mine.toml", *small],
            ["report", "runs/mine/001"],
            ["schema"],
        ):
            out = run(programs / "yeastexp", *words, folder=work, environment=environment)
            print("\n".join(out.splitlines()[:3]))
        program = IN_PYTHON.format(place=str(folder / "venv"))
        print(run(programs / "python", "-W", "ignore", "-c", program, folder=work, environment=environment))


if __name__ == "__main__":
    main("--reuse" in sys.argv[1:])
