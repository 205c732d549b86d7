"""Runs the commands of `exercise.md` and replaces the outputs and plots shown there.

`python docs/exercise.py` updates the whole page. It trains a model, so it takes about five minutes. The tests rerun all
blocks that are not marked `recorded`, and compare.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from yeastexp.cli import commands
from yeastexp.config.loading import load_experiment
from yeastexp.drawing import plots

HERE = Path(__file__).resolve().parent
HOME = HERE.parent
DOCUMENT = HERE / "exercise.md"
PICTURES = HERE / "exercise"

DRAWN = {
    "normalization.png": "figures/normalization.png",
    "preview.jpg": "preview.png",
    "accuracy_and_iou.png": "figures/accuracy_and_iou.png",
}
"""By the name of a figure on the page: the file that a command writes in its working directory."""

RUN = "runs/sheet/001"
TRAINED = {"validation.jpg": "validation.png", "curves.png": "curves.png", "effective.jpg": "effective.png"}
"""Likewise for the trained run: two figures from its TensorBoard events, and one written by a recorded command."""

TERMINAL = {"COLUMNS": "100", "LINES": "40", "TERM": "dumb"}
"""Environment variables that set the width of the output and turn colours off."""

WIDEST, QUALITY = 900, 72
"""Width in pixels and JPEG quality that keep the figures' files small."""

BLOCK = re.compile(r"^```(?P<language>\w+)(?P<recorded> recorded)?\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)
RECORDED_FOR = re.compile(r"^(<!-- recorded for experiment )[0-9a-f]*(; python .* -->)$", re.MULTILINE)


class Terminal(io.StringIO):
    """Standard output that claims to be a terminal."""

    def isatty(self) -> bool:
        """Always True."""
        return True


def rerun(text: str, folder: Path, *, recorded: bool) -> str:
    """The page with the current output of its commands, run in `folder`; recorded blocks only if `recorded`.

    Python and TOML blocks that begin with `# NAME` are written to files of that name there.
    """
    shutil.copytree(HOME / "experiments", folder / "experiments")
    with contextlib.chdir(folder):
        return BLOCK.sub(lambda block: _rerun_block(block, recorded), text)


def _rerun_block(block: re.Match[str], recorded: bool) -> str:
    if block["language"] != "console":
        first = block["content"].partition("\n")[0]
        if first.startswith("# "):
            Path(first.removeprefix("# ")).write_text(block["content"], encoding="utf-8")
        return block[0]
    if block["recorded"] and not recorded:
        return block[0]
    lines = [line for line in block["content"].splitlines() if line.startswith("$ ")]
    out = io.StringIO if block["recorded"] else Terminal  # without a terminal, training draws no progress bar
    answers = "".join(f"{line}\n{printed(line.removeprefix('$ '), out())}" for line in lines)
    return f"```console{block['recorded'] or ''}\n{answers}```"


def printed(line: str, out: io.StringIO) -> str:
    """The output of a command without absolute paths; what follows the first ` | ` is run by the shell, as is all else
    but Python.
    """
    command, _, filters = line.partition(" | ")
    if command.startswith("python "):
        with contextlib.redirect_stdout(out):
            _carry_out(shlex.split(command))
    else:
        filters = line
    text = out.getvalue()
    if filters:
        text = subprocess.run(filters, shell=True, input=text, capture_output=True, text=True, check=True).stdout
    tidy = "\n".join(row.rstrip() for row in text.replace(f"{HOME}/", "").rstrip().splitlines())
    return f"{tidy}\n" if tidy else ""


def _carry_out(words: Sequence[str]) -> None:
    """Run a Python script or a yeastexp command in this process, which has imported PyTorch already."""
    if words[1:3] == ["-m", "yeastexp"]:
        commands(list(words[3:]), standalone_mode=False)
    else:
        runpy.run_path(words[1])


def digest(folder: Path, experiment: str) -> str:
    """SHA-256 of the resolved experiment that the recorded blocks are outputs of."""
    resolved = load_experiment(folder / experiment).resolved()
    return hashlib.sha256(resolved.replace(f"{folder.resolve()}/", "").encode()).hexdigest()


def stamped(text: str, folder: Path, experiment: str = "sheet.toml") -> str:
    """The page with the digest of the current experiment."""
    return RECORDED_FOR.sub(lambda stamp: stamp[1] + digest(folder, experiment) + stamp[2], text)


def write_logged(run: Path, folder: Path) -> None:
    """Write the last image in a run's TensorBoard events, and a plot of its scores."""
    events = EventAccumulator(str(run)).Reload()
    (folder / "validation.png").write_bytes(events.Images("val/pictures")[-1].encoded_image_string)
    shown = {"IoU of the cells": "val/iou/cell", "mean IoU": "val/iou/mean", "accuracy": "val/accuracy"}
    series = [
        plots.Series(name, [point.step for point in points], [point.value for point in points])
        for name, points in ((name, events.Scalars(tag)) for name, tag in shown.items())
    ]
    background = EventAccumulator(str(run / "baselines" / "all_background")).Reload()
    levels = {f"all background, {name}": background.Scalars(tag)[-1].value for name, tag in shown.items()}
    plots.save(
        plots.curves(series, x_label="training step", y_label="score on 8 validation images", levels=levels),
        folder / "curves.png",
    )


def write_small(drawn: Path, shown: Path) -> None:
    """Write a figure as a small file: at most as wide as the page, with a palette (PNG) or compressed (JPEG)."""
    picture = Image.open(drawn).convert("RGB")
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)), Image.Resampling.LANCZOS)
    if shown.suffix == ".png":
        picture.quantize(256, dither=Image.Dither.NONE).save(shown, optimize=True)
    else:
        picture.save(shown, quality=QUALITY, optimize=True)


def main() -> None:
    """Update the page and its figures."""
    os.environ |= TERMINAL
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        text = rerun(DOCUMENT.read_text(encoding="utf-8"), folder, recorded=True)
        write_logged(folder / RUN, folder)
        for shown, drawn in (DRAWN | TRAINED).items():
            write_small(folder / drawn, PICTURES / shown)
        DOCUMENT.write_text(stamped(text, folder), encoding="utf-8")


if __name__ == "__main__":
    main()
