"""Pages and TensorBoard in a real browser, which has no way to any network: what a person sees."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser
import pytest
from browser import Browser
from rich.console import Console
from test_evaluate import LONGER, trained
from tiny import EXPERIMENT
from tiny import write_experiment as written

from yeastexp import report
from yeastexp.evaluation.crossval import crossval
from yeastexp.metrics import baselines
from yeastexp.report import gallery
from yeastexp.system.formatting import format_score

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not browser.CHROMIUM or not browser.DRIVER, reason="no Chromium with its driver is installed"),
]

PATIENCE = 60.0
"""Seconds until something that has to appear counts as missing."""

SEEN = """[...document.querySelectorAll("body *")].filter(one => one.checkVisibility())"""
ELSEWHERE = "performance.getEntriesByType('resource').filter(one => !one.name.startsWith('data:')).map(one => one.name)"
DRAWINGS = "[...document.querySelectorAll('.plot[role=img]')].map(one => one.getBoundingClientRect().height)"
WRITTEN = "document.body.innerText.replace(/\\s+/g, '')"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, real_previews: None) -> Iterator[Path]:
    """A run of a few epochs; not to be written to but for its report."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(baselines, "fit_threshold", lambda samples: baselines.Threshold(0.0, True, 0.0))
        yield trained(tmp_path_factory.mktemp("run"), LONGER, train=4, val=5)


@pytest.fixture(scope="module")
def pages(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(baselines, "fit_threshold", lambda samples: baselines.Threshold(0.0, True, 0.0))
        short = trained(folder / "short", LONGER, "train.epochs=2", train=4, val=5)
        patched.chdir(folder)
        folded = crossval(written(folder, EXPERIMENT), folds=2, console=quiet())
    every = {"run": [run], "crossval": [folder / folded], "comparison": [run, short]}
    return {name: report.report(paths, output=folder / f"{name}.html") for name, paths in every.items()}


def quiet() -> Console:
    return Console(file=io.StringIO())


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser.browsing() as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("name", ["run", "crossval", "comparison"])
def test_a_page_opens_from_disk_and_fits(
    name: str, width: int, scheme: str, pages: dict[str, Path], window: Browser
) -> None:
    window.open(pages[name].as_uri(), width, scheme=scheme)
    assert window.errors() == []
    assert window.told(OVERFLOW) == 0
    pictures = window.told("[...document.images].map(one => [one.naturalWidth, one.getBoundingClientRect().width])")
    assert len(pictures) == {"run": 6, "crossval": 3, "comparison": 0}[name]
    assert all(natural > 0 and 200 < shown_as <= width for natural, shown_as in pictures)
    assert (
        window.told("performance.getEntriesByType('resource').filter(one => !one.name.startsWith('data:')).length") == 0
    )
    drawings = window.told(DRAWINGS)
    assert len(drawings) >= 4 and min(drawings) > 50


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out_from_the_ground(scheme: str, pages: dict[str, Path], window: Browser) -> None:
    window.open(pages["run"].as_uri(), 1400, scheme=scheme)
    ground = luminance(window.told("getComputedStyle(document.body).backgroundColor"))
    assert ground > 0.9 if scheme == "light" else ground < 0.02
    texts = set(window.told(f"{SEEN}.filter(one => !one.closest('svg')).map(one => getComputedStyle(one).color)"))
    texts |= set(window.told("[...document.querySelectorAll('.plot text')].map(one => getComputedStyle(one).fill)"))
    assert min(contrast(ground, luminance(colour)) for colour in texts) >= 4.5
    series = (
        "[...document.querySelectorAll('.plot [style*=\"stroke: var(--series\"]')].map(one => getComputedStyle(one))"
    )
    lines = set(window.told(f"{series}.map(one => one.stroke)"))
    assert len(lines) >= 3 and min(contrast(ground, luminance(colour)) for colour in lines) >= 3
    dashes = window.told(f"{series}.map(one => one.strokeDasharray)")
    assert len(set(dashes)) >= len(lines)


def luminance(colour: str) -> float:
    """Relative luminance after WCAG of `rgb(…)`."""
    shares = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_a_table_is_copied_for_a_spreadsheet(run: Path, pages: dict[str, Path], window: Browser) -> None:
    window.open(pages["run"].as_uri(), 1400)
    window.told("navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve(); }")
    window.told("document.querySelector('#scores').closest('section').querySelector('button').click()")
    headings, *rows = [line.split("\t") for line in window.told("window.copied").split("\n")]
    assert headings[:3] == ["metric", "class", "per image"]
    found = json.loads((run / "result.json").read_text())["val"]["best"]["iou"]["cell"]
    assert [row[2] for row in rows if row[:2] == ["iou", "cell"]] == [format_score(found["per_image"])]


def test_overlays_can_be_taken_away(pages: dict[str, Path], window: Browser) -> None:
    window.open(pages["run"].as_uri(), 1400)
    visible = "[...document.querySelectorAll('.picture .{}')].filter(one => one.checkVisibility()).length"
    look = next(one for one in ("false", "missed") if window.told(visible.format(one)))
    window.told(f"[...document.querySelectorAll('.show-{look}')].forEach(one => one.click())")
    assert window.told(visible.format(look)) == 0
    assert window.told(visible.format("ground-truth")) == 0
    window.told("document.querySelector('.show-ground-truth').click()")
    assert window.told(visible.format("ground-truth")) == 3, "each gallery has its own"
    shown = window.told(visible.format("prediction"))
    window.told("document.querySelector('.show-prediction').click()")
    assert window.told(visible.format("prediction")) < shown


def test_each_category_has_a_look_of_its_own(pages: dict[str, Path], window: Browser) -> None:
    """Areas differ in their colour and outlines in theirs, also where pictures are small."""
    window.open(pages["run"].as_uri(), 390)
    looks = {}
    for name in gallery.CATEGORIES:
        (ident,) = window.told(
            f"(() => {{ const one = document.querySelector('.picture svg').appendChild(document.createElementNS("
            f"'http://www.w3.org/2000/svg', 'path')); one.setAttribute('class', 'overlay {name}'); "
            "const look = getComputedStyle(one); return [[look.fill, look.stroke, look.strokeDasharray]]; })()"
        )
        looks[name] = tuple(ident)
    areas, outlines = (
        [looks[name][index] for name in names]
        for index, names in ((0, ("missed", "false", "confused")), (1, ("prediction", "ground-truth", "unlabelled")))
    )
    assert len({*areas, "none"}) == 4 and len({*outlines, "none"}) == 4
    assert {dashes for _, _, dashes in looks.values()} == {"none"}


def test_a_reader_without_pointer_or_eyes_finds_names(pages: dict[str, Path], window: Browser) -> None:
    named = {"image", "table", "region", "button", "checkbox", "link", "navigation"}
    for page in pages.values():
        window.open(page.as_uri(), 1400)
        found = [(role, name) for role, name in window.accessible() if role in named]
        assert {role for role, _ in found} >= {"image", "table", "button", "link", "navigation"}
        assert all(name for _, name in found)
        levels = window.told("[...document.querySelectorAll('h1, h2, h3')].map(one => one.localName)")
        assert levels[0] == "h1" and set(levels[1:]) == {"h2"}


@pytest.fixture(scope="module")
def tensorboard(run: Path) -> Iterator[str]:
    """The address of a TensorBoard on the run."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run), "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout
            addresses = (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in process.stdout)
            yield next(found[0] for found in addresses if found)
        finally:
            process.terminate()
            process.wait(10)


def until(asked: Callable[[], Any]) -> Any:
    """The first answer that is not empty."""
    ends = time.monotonic() + PATIENCE
    while not (found := asked()) and time.monotonic() < ends:
        time.sleep(0.1)
    return found


def fetched(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
        return json.load(answer)


def test_tensorboard_shows_the_scalars_of_a_run(run: Path, tensorboard: str, window: Browser) -> None:
    tags = until(lambda: fetched(f"{tensorboard}data/plugin/scalars/tags"))
    assert {"train/loss", "train/learning_rate", "val/loss", "val/iou/cell", "val_final/iou/cell"} <= set(tags["."])
    window.open(f"{tensorboard}?tagFilter=val_final#timeseries", 1400)
    score = json.loads((run / "result.json").read_text())["val"]["best"]["iou"]["cell"]["per_image"]
    card = f"val_final/iou/cell.*?{score:.4f}".rstrip("0")
    assert until(lambda: re.search(card, window.told(WRITTEN))), "no card has the final score"
    assert window.told("document.querySelectorAll('line-chart').length") >= 3


def pictured(node: str = "document") -> str:
    """How many pictures there are, also in what TensorBoard hides from selectors."""
    return f"""(function count(node) {{
        const every = [...node.querySelectorAll("*")];
        const within = every.filter(one => one.shadowRoot).map(one => count(one.shadowRoot));
        const own = every.filter(one => one.localName === "img" && one.naturalWidth > 100).length;
        return within.reduce((sum, one) => sum + one, own);
    }})({node})"""


def test_tensorboard_shows_the_pictures_of_a_run(tensorboard: str, window: Browser) -> None:
    tags = until(lambda: fetched(f"{tensorboard}data/plugin/images/tags"))
    assert set(tags["."]) == {"train/preview", "val/pictures"}
    window.open("about:blank", 1400)
    window.open(f"{tensorboard}#images", 1400)
    assert until(lambda: window.told(pictured()) == 2), "the pictures did not appear"
