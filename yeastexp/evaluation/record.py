"""An evaluation as a record: written to files, read back, and shown as tables and sentences."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.markup import escape
from rich.table import Table

from yeastexp.evaluation.measure import Measured, PerImage, counts_of
from yeastexp.metrics.intervals import Agreement, agreement
from yeastexp.metrics.summary import Score, ScoreTable, Summary, as_csv, final_table, formatter, lacking, shown
from yeastexp.system import files
from yeastexp.system.formatting import format_count, format_signed
from yeastexp.tasks.mask_cells import METHOD
from yeastexp.training.run_directory import RunDirectory, Which

EVALUATION, PER_IMAGE = "evaluation.json", "per_image.csv"


@dataclass(frozen=True)
class Evaluation:
    """All results of an evaluation as plain values: `evaluation.json`.

    `images` are digests by name; `trained_on` and `selected_on` name those of them that the weights were fitted to or
    the checkpoint was chosen by, and are None if that cannot be known.
    """

    checkpoint: Which
    step: int
    checkpoint_digest: str
    data: str
    path: str | None
    data_digest: str | None
    own_data: bool
    split: str
    pixel_um: float | None
    classes: list[str]
    boundary_tolerance_px: float
    images: dict[str, str]
    trained_on: list[str] | None
    selected_on: list[str] | None
    summary: Summary
    worst: dict[str, dict[str, dict[str, Any] | None]]
    baselines: dict[str, Summary]
    confusion: list[list[int]]
    cells: dict[str, dict[str, int]]
    per_image: PerImage
    notes: list[str]
    environment: dict[str, Any]
    ignore_border_px: int | None = None
    """The border option of this evaluation's metrics of cells; None if they had that of the experiment."""
    maps: dict[str, dict[str, str]] = field(default_factory=dict)
    """By image: the digests of its maps, such as `instances`, that metrics asked for."""
    approximate: list[str] = field(default_factory=list)
    """The metrics that score cells which the task only approximates."""

    @property
    def agreement(self) -> Agreement | None:
        """How the numbers of found and of true cells agree, image by image; None if cells were not counted."""
        counts = counts_of(self.per_image)
        return agreement(*counts) if counts else None


EVALUATIONS, SUMMARY = TypeAdapter(Evaluation), TypeAdapter(dict[str, dict[str, Score]])


def write(folder: Path, evaluation: Evaluation, measured: Measured) -> None:
    """Write an evaluation's files into a folder, atomically: a reader sees either all old or all new files."""
    with files.replacing(folder) as temporary:
        files.write_text(temporary / PER_IMAGE, as_csv(measured.rows()))
        files.write_text(temporary / EVALUATION, json.dumps(asdict(evaluation), indent=1, allow_nan=False))


def read(folder: Path) -> Evaluation | None:
    """The evaluation in a folder; None if there is none, or if it is damaged or of another version."""
    try:
        found = EVALUATIONS.validate_json((folder / EVALUATION).read_bytes(), strict=True)
        for summary in (found.summary, *found.baselines.values()):
            SUMMARY.validate_python(summary, strict=True)
    except (OSError, ValueError):
        return None
    # Types alone do not make it whole: tables index all scores by the images, and baselines by the rows of the summary.
    scores = (scores for by_class in found.per_image.values() for scores in by_class.values())
    whole = all(len(of_images) == len(found.images) for of_images in scores)
    return found if whole and not any(lacking(each, found.summary) for each in found.baselines.values()) else None


def read_all(run: RunDirectory) -> dict[Path, Evaluation]:
    """The readable evaluations of a run by folder, sorted by the folders' names."""
    folders = sorted(path.parent for path in run.evaluations.glob(f"*/{EVALUATION}"))
    return {folder: evaluation for folder in folders if (evaluation := read(folder))}


def tables(evaluation: Evaluation) -> list[Table]:
    """The scores beside the baselines, and the worst images."""
    approximate = evaluation.approximate
    scores = final_table(title(evaluation), evaluation.summary, None, evaluation.baselines, approximate)
    worst = ScoreTable("worst images", ("metric", "class", "image"), ("score",))
    for metric, by_class in evaluation.worst.items():
        for name, lowest in by_class.items():
            if lowest:
                score = formatter(metric, name)(lowest["score"])
                worst.add_row(shown(metric, approximate), escape(name), escape(lowest["image"]), score)
        worst.add_section()
    return [scores, worst]


def title(evaluation: Evaluation) -> str:
    """The title of an evaluation: its images, its checkpoint, and whether that was trained or selected on them."""
    count = len(evaluation.images)
    images = f"{format_count(count, 'image')} of {escape(evaluation.data)} ({evaluation.split})"
    known = [
        f"{verb} on {'these images' if len(names) == count else f'{len(names)} of them'}"
        for verb, names in (("trained", evaluation.trained_on), ("selected", evaluation.selected_on))
        if names
    ]
    border = evaluation.ignore_border_px
    left_out = [f"cells within {format_count(border, 'pixel')} of the border left out"] if border else []
    method = [f"cells {METHOD}"] if evaluation.approximate else []
    checkpoint = f"{evaluation.checkpoint} checkpoint (step {evaluation.step})"
    return ", ".join([f"{images}; {checkpoint}", *known, *left_out, *method])


def sentences(evaluation: Evaluation) -> list[str]:
    """Sentences on the counts of cells, which the tables leave out, and on how they agree image by image."""
    counted = evaluation.agreement
    told_apart = bool(counted) and not evaluation.approximate
    everywhere = ", those at the border as well" if evaluation.ignore_border_px else ""
    sentences = [
        _counts_sentence(name, counts, told_apart=told_apart) + everywhere for name, counts in evaluation.cells.items()
    ]
    return [*sentences, agreement_sentence(counted, "count" in evaluation.approximate)] if counted else sentences


def _counts_sentence(name: str, counts: dict[str, int], *, told_apart: bool) -> str:
    if "true" not in counts:
        return f"{name}: {counts['predicted']} told apart in the prediction, unknown in the ground truth"
    instances = f" ({counts['instances']} instances)" if "instances" in counts else ""
    kind = "told apart" if told_apart else f"connected region{'s' * (counts['true'] != 1)}"
    return f"{name}: {counts['true']} {kind} in the ground truth{instances}, {counts['predicted']} in the prediction"


def agreement_sentence(counted: Agreement, approximate: bool = False) -> str:
    """The mean difference of found and true cells, with its interval and the limits of agreement."""
    mean, images = counted.difference, format_count(counted.difference.images, "image")
    text = f"{'approximate ' * approximate}cells found minus true, per image: mean {format_signed(mean.mean)}"
    if mean.images > 1:
        text += f", 95 % interval {format_signed(mean.low)} to {format_signed(mean.high)}"
        text += f", limits of agreement {format_signed(counted.low)} to {format_signed(counted.high)}"
    return f"{text} ({images})"
