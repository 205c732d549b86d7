"""Write the report of a run, of a cross-validation, or of several as one HTML page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from yeastexp.errors import UserError
from yeastexp.evaluation import out_of_fold
from yeastexp.evaluation.sweep.folder import SweepFolder
from yeastexp.report import comparison_page, crossval_page, run_page, sweep_page
from yeastexp.report.html import Page
from yeastexp.report.predictions import Say, silent
from yeastexp.system import environment, files
from yeastexp.system.progress_bar import ProgressBar
from yeastexp.training.run_directory import RunDirectory

NAME = "report.html"
MARKER = '<meta name="generator" content="yeastexp report">'
"""Marks a file as a page of this package, which may be overwritten; it stands within the first `MARKED_BYTES`."""
MARKED_BYTES = 1000


def report(
    paths: Sequence[Path],
    *,
    output: Path | None = None,
    metric: str | None = None,
    class_name: str | None = None,
    device: str = "auto",
    progress: ProgressBar[str] = iter,
    say: Say = silent,
) -> Path:
    """Write the page of a run, a cross-validation or a sweep, or the comparison of several, and return its path.

    `metric` and `class_name` select the score of a comparison. Raises UserError if a path is none of these, or if
    `output` exists and is not a report.
    """
    target = output or (paths[0] / NAME if len(paths) == 1 else Path(NAME))
    # Before the work: predictions for the page may take minutes.
    _refuse_other_files(target)
    written = f"{environment.now()}, yeastexp {environment.installed('yeastexp') or 'from a checkout'}"
    if len(paths) > 1:
        page = comparison_page.page(paths, written, device, progress, metric=metric, class_name=class_name)
    elif metric or class_name:
        raise UserError("--metric and --class select the score of a comparison; the page of one run has all scores")
    else:
        page = _page_of_one(paths[0], written, device, progress, say)
    files.write_text(target, render(page))
    return target


def _page_of_one(path: Path, written: str, device: str, progress: ProgressBar[str], say: Say) -> Page:
    if not RunDirectory(path).is_run:
        raise UserError(f"{path}: neither a run nor a cross-validation nor a sweep; {RunDirectory(path).meant}")
    if SweepFolder(path).is_sweep:
        return sweep_page.page(path, written)
    if out_of_fold.is_crossval(path):
        return crossval_page.page(path, written, say)
    return run_page.page(path, written, device, progress, say)


def _refuse_other_files(output: Path) -> None:
    """Raises UserError if `output` exists and is not a report of this package."""
    if output.is_dir():
        raise UserError(f"{output}: is a directory; give a file name")
    if output.exists():
        with output.open("rb") as file:
            if MARKER.encode() not in file.read(MARKED_BYTES):
                raise UserError(f"{output}: exists and is not a report of yeastexp; choose another file with -o")


def render(page: Page) -> str:
    """A page as self-contained HTML, with its style, script and images."""
    loader = PackageLoader("yeastexp.report")
    templates = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script, *_ = loader.get_source(templates, "page.js")
    # The page's content security policy allows this one script, by its digest, and no other: names of images and texts
    # of users stand in the page.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    context = {"script": script, "script_digest": f"sha256-{digest}", "marker": MARKER}
    return templates.get_template("page.html").render(page=page, **context)
