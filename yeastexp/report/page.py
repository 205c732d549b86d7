"""One page that says what was run and how it went: of a run, of a cross-validation, or of several beside each other."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from yeastexp.errors import UserError
from yeastexp.evaluation import out_of_fold
from yeastexp.report import comparison_page, crossval_page, run_page
from yeastexp.report.html import Page
from yeastexp.system import environment, files
from yeastexp.training import run_directory

NAME = "report.html"
MARKER = '<meta name="generator" content="yeastexp report">'
"""By which a page is known as one of ours; it stands within the first `LOOKED_AT` bytes."""
LOOKED_AT = 1000


def report(
    paths: Sequence[Path],
    *,
    output: Path | None = None,
    metric: str | None = None,
    class_name: str | None = None,
    device: str = "auto",
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> Path:
    """Write the page of a run or a cross-validation, or of several beside each other; the path that was written.

    `metric` and `class_name` say by which score several are compared. UserError where a path is neither, or where
    something else than a report is at `output`.
    """
    target = output or (paths[0] / NAME if len(paths) == 1 else Path(NAME))
    refuse_other_files(target)
    made = f"{environment.now()}, yeastexp {metadata.version('yeastexp')}"
    if len(paths) > 1:
        page = comparison_page.page(paths, made, device, progress, metric=metric or "iou", class_name=class_name)
    elif metric or class_name:
        raise UserError("--metric and --class: choose what several are compared by; a page of one has every score")
    else:
        page = _page_of_one(paths[0], made, device, progress)
    files.write_text(target, rendered(page))
    return target


def _page_of_one(path: Path, made: str, device: str, progress: Callable[[Iterable[str]], Iterable[str]]) -> Page:
    if not (path / run_directory.EXPERIMENT).is_file():
        raise UserError(f"{path}: no run and no cross-validation; the last line that 'run' or 'crossval' prints is one")
    return crossval_page.page(path, made) if out_of_fold.is_one(path) else run_page.page(path, made, device, progress)


def refuse_other_files(output: Path) -> None:
    """UserError where something stands at `output` that is no report of ours."""
    if output.is_dir():
        raise UserError(f"{output}: is a folder; name a file")
    if output.exists():
        with output.open("rb") as file:
            if MARKER.encode() not in file.read(LOOKED_AT):
                raise UserError(f"{output}: exists and is no report of yeastexp; name another file with -o")


def rendered(page: Page) -> str:
    """A page as HTML, whole: style, script and pictures are in it."""
    loader = PackageLoader("yeastexp.report")
    templates = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script, *_ = loader.get_source(templates, "page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    given = {"script": script, "script_digest": f"sha256-{digest}", "marker": MARKER}
    return templates.get_template("page.html").render(page=page, **given)
