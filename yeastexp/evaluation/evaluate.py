"""The scores of a run's checkpoint on whole images, beside baselines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from yeastexp.evaluation import record
from yeastexp.evaluation.measure import Measured, approximate_in, measure, measure_baselines, metrics_of, tolerance_of
from yeastexp.evaluation.record import Evaluation
from yeastexp.evaluation.source import Source, Split, file_source, image_digest, missing, training_source
from yeastexp.metrics import baselines
from yeastexp.metrics.baselines import Baseline
from yeastexp.metrics.summary import completed
from yeastexp.prediction.predictor import Predictor, load_predictor
from yeastexp.system import environment, files, processes
from yeastexp.system.processes import refuse_unequal
from yeastexp.tasks import telling_apart
from yeastexp.training.device import configure_torch
from yeastexp.training.run_directory import RunDirectory, Which

SAME_PIXEL = 0.01
"""Share by which the sizes of pixels may differ without a note."""

ENVIRONMENT = ("versions", "platform", "device", "threads")
"""What can change the last bits of a score."""


def evaluate(
    run: Path,
    data: Path | None = None,
    *,
    split: Split | None = None,
    checkpoint: Which = "best",
    tolerance_px: float | None = None,
    ignore_border: int | None = None,
    device: str = "auto",
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> tuple[Path, Evaluation]:
    """Score a checkpoint on whole images; the folder in `RUN/evaluations` that was written, and its content.

    The images are those of the run's own data set unless a file is given, and the validation images unless a split is;
    of a file that the run was not trained on, all. With `ignore_border`, metrics of cells leave those out that come
    within so many pixels of the border; else they do as the experiment says.
    """
    predictor = load_predictor(run, checkpoint, device)
    RunDirectory(run).refuse_links()
    experiment = configure_torch(predictor.experiment)
    source = file_source(run, experiment, data) if data else training_source(run, experiment, predictor.edits)
    split = split or ("val" if source.own else "all")
    images = source.images(split, predictor)
    among, checkpoint_digest = processes.current(), files.digest(RunDirectory(run).checkpoint(checkpoint))
    of_source = {"the checkpoint": checkpoint_digest, "the data": str(source.digest)}
    refuse_unequal({**{name: str(of) for name, of in environment.versions().items()}, **of_source}, among)
    tolerance_px = tolerance_of(experiment) if tolerance_px is None else tolerance_px
    metrics = metrics_of(experiment, tolerance_px, source.dataset.maps, ignore_border)
    gone = None if source.own else missing(run, experiment, predictor.edits)
    training = source if source.own else None if gone else training_source(run, experiment, predictor.edits)
    measured = measure(images, metrics, progress)
    trained_on, selected_on = _used_in_training(measured, source, training, predictor, checkpoint)
    evaluation = Evaluation(
        checkpoint=checkpoint,
        step=predictor.step,
        checkpoint_digest=checkpoint_digest,
        data=source.name,
        path=str(source.path.resolve()) if source.path else None,
        data_digest=source.digest,
        own_data=source.own,
        split=split,
        pixel_um=_pixel_um(source, images.names),
        classes=list(predictor.classes),
        boundary_tolerance_px=tolerance_px,
        ignore_border_px=ignore_border,
        approximate=list(approximate_in(experiment)),
        images=measured.images,
        trained_on=trained_on,
        selected_on=selected_on,
        summary=measured.summary,
        worst=measured.worst,
        baselines={
            name: completed(summary, measured.summary)
            for name, summary in measure_baselines(_baselines(training, predictor), images, metrics).items()
        },
        confusion=measured.confusion.tolist(),
        cells=measured.cells,
        per_image=measured.per_image,
        notes=[*predictor.notes, *_notes(gone, training, source, images.names)],
        environment=_environment(predictor),
    )
    folder = _folder(run, evaluation)
    if among.writes:
        record.write(folder, evaluation, measured)
    return folder, evaluation


def _used_in_training(
    measured: Measured, source: Source, training: Source | None, predictor: Predictor, checkpoint: Which
) -> tuple[list[str] | None, list[str] | None]:
    """Which images the weights were fitted to, and which chose the checkpoint or the end of the training."""
    if training is None:
        return None, None
    chosen = checkpoint == "best" or predictor.experiment.validation.patience is not None
    return _members(measured, source, training, "train", predictor), (
        _members(measured, source, training, "val", predictor) if chosen else []
    )


def _members(measured: Measured, source: Source, training: Source, split: Split, predictor: Predictor) -> list[str]:
    """The images that are in a split of the training data: by name, or in other files by their content."""
    members: Collection[str] = training.names(split)
    if source is training:
        return [name for name in measured.images if name in members]
    images, stored = training.images(split, predictor), training.dataset.normalization
    digests = {image_digest(images.stored(name), stored) for name in images.names}
    return [name for name, digest in measured.images.items() if digest in digests]


def _baselines(training: Source | None, predictor: Predictor) -> dict[str, Baseline]:
    """The baselines, fitted on the training images if those are there."""
    if training is None:
        return {f"all {predictor.classes[0]}": baselines.Majority(0)}
    constant = telling_apart.constant_of(predictor.task)
    return baselines.fit(training.images("train", predictor), predictor.classes, constant)


def _pixel_um(source: Source, names: tuple[str, ...]) -> float | None:
    size: float | None = source.dataset.read(names[0]).pixel_um
    return size


def _notes(gone: str | None, training: Source | None, source: Source, names: tuple[str, ...]) -> list[str]:
    """Caveats for a reader of the scores."""
    if training is None:
        return [
            f"the training images are gone ({gone}): no fitted threshold beside the scores, and no telling whether "
            "the run was trained on any of these"
        ]
    here, there = _pixel_um(source, names), _pixel_um(training, training.names("train"))
    if not here or not there or abs(there / here - 1) <= SAME_PIXEL:
        return []
    return [
        f"{source.place}: has pixels of {here:g} µm, the training images of {there:g} µm; objects appear "
        f"{there / here:.3g} times as large as in training"
    ]


def _environment(predictor: Predictor) -> dict[str, Any]:
    described = environment.describe(predictor.device, {})
    return {key: described[key] for key in ENVIRONMENT}


def _folder(run: Path, evaluation: Evaluation) -> Path:
    """Where an evaluation belongs: over one of the same data, and beside one of other data of the same name."""
    border = evaluation.ignore_border_px
    ending = f"{evaluation.split}-{evaluation.checkpoint}" + (f"-border_{border}" if border is not None else "")
    plain = RunDirectory(run).evaluations / f"{evaluation.data}-{ending}"
    earlier = record.read(plain)
    if earlier is None or earlier.path == evaluation.path:
        return plain
    if earlier.data_digest == evaluation.data_digest is not None:
        return plain
    return plain.with_name(f"{evaluation.data}-{(evaluation.data_digest or '')[:8]}-{ending}")
