"""The evaluation of a run's checkpoint on whole images, beside baselines."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from yeastexp.errors import UserError
from yeastexp.evaluation import record
from yeastexp.evaluation.measure import Measured, approximate_in, measure, measure_baselines, metrics_of, tolerance_of
from yeastexp.evaluation.record import Evaluation
from yeastexp.evaluation.source import (
    Images,
    Source,
    Split,
    file_source,
    image_digest,
    integers_of,
    missing,
    training_source,
)
from yeastexp.metrics import baselines
from yeastexp.metrics.baselines import Baseline
from yeastexp.metrics.instances import InstanceMetric
from yeastexp.metrics.summary import completed
from yeastexp.prediction.predictor import Predictor, load_predictor
from yeastexp.system import environment, files, processes
from yeastexp.system.processes import refuse_unequal
from yeastexp.system.progress_bar import ProgressBar
from yeastexp.tasks import telling_apart
from yeastexp.training.device import configure_torch
from yeastexp.training.run_directory import RunDirectory, Which

SAME_PIXEL = 0.01
"""The relative difference of pixel sizes up to which no note is made."""

ENVIRONMENT = ("versions", "platform", "device", "threads")
"""The keys of the environment that can change the last bits of a score."""


def evaluate(
    run: Path,
    data: Path | None = None,
    *,
    split: Split | None = None,
    checkpoint: Which = "best",
    tolerance_px: float | None = None,
    ignore_border: int | None = None,
    device: str = "auto",
    progress: ProgressBar[str] = iter,
) -> tuple[Path, Evaluation]:
    """Score a checkpoint on whole images. Returns the folder in `RUN/evaluations` that was written, and its content.

    Without `data`, the images are those of the data set that the run was trained on. Without `split`, they are the
    validation images, or all images of a file that the run was not trained on. `ignore_border` replaces the option of
    that name of the experiment's metrics of cells. Raises UserError if there are none of these, or if the images cannot
    be read or scored.
    """
    predictor = load_predictor(run, checkpoint, device)
    RunDirectory(run).refuse_links()
    experiment = configure_torch(predictor.experiment)
    edits = predictor.edits
    source = file_source(run, experiment, edits, data) if data else training_source(run, experiment, edits)
    split = split or ("val" if source.own else "all")
    images = source.images(split, predictor)
    among, checkpoint_digest = processes.current(), files.digest(RunDirectory(run).checkpoint(checkpoint))
    # Processes on several machines may see other versions, weights or data under the same names: their shares of the
    # images would be mixed into scores that no single machine could repeat.
    of_source = {"the checkpoint": checkpoint_digest, "the data": str(source.digest)}
    refuse_unequal({**{name: str(of) for name, of in environment.versions().items()}, **of_source}, among)
    tolerance_px = tolerance_of(experiment) if tolerance_px is None else tolerance_px
    metrics = metrics_of(experiment, tolerance_px, source.dataset.maps, ignore_border)
    if tolerance_px != tolerance_of(experiment) and "boundary_f1" not in metrics:
        raise UserError("--boundary-tolerance: 'boundary_f1' is no metric of this evaluation; omit it")
    if ignore_border is not None and not any(isinstance(metric, InstanceMetric) for metric in metrics.values()):
        raise UserError(
            "--ignore-border: no metric of this evaluation counts cells, so none can be left out; omit it (cells "
            "are counted by metrics as average_precision, of data with the map 'instances')"
        )
    # Even for a foreign file the training data are needed, if they are there: baselines are fitted on them, and they
    # tell whether any of these images was trained on under another name.
    gone = None if source.own else missing(run, experiment, edits)
    training = source if source.own else None if gone else training_source(run, experiment, edits)
    measured = measure(images, metrics, progress)
    unlike = training is not None and _normalized_unlike(images, training)
    known = None if unlike else training
    # With early stopping the validation images choose the last step, and so the `last` checkpoint as well.
    chosen = checkpoint == "best" and RunDirectory(run).is_selected
    chosen = chosen or experiment.validation.patience is not None
    trained_on, selected_on = _used_in_training(measured, images, known, predictor, chosen)
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
        maps=measured.maps,
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
        notes=[*predictor.notes, *_notes(gone, training, source, images.names, unlike)],
        environment=_environment(predictor),
    )
    folder = _folder(run, evaluation)
    if among.writes:
        record.write(folder, evaluation, measured)
    return folder, evaluation


def _used_in_training(
    measured: Measured, images: Images, training: Source | None, predictor: Predictor, chosen: bool
) -> tuple[list[str] | None, list[str] | None]:
    """The images that the weights were fitted to, and those that it or the end of the training was `chosen` by, if so.

    Both are None if the training data are gone, or cannot be recognised.
    """
    if training is None:
        return None, None
    return _members(measured, images, training, "train", predictor), (
        _members(measured, images, training, "val", predictor) if chosen else []
    )


def _members(measured: Measured, images: Images, training: Source, split: Split, predictor: Predictor) -> list[str]:
    """The names of the measured images that are in a split of the training data.

    Images of other files are recognised by their digests, whatever they are called there.
    """
    members: Collection[str] = training.names(split)
    if images.dataset is training.dataset:
        return [name for name in measured.images if name in members]
    held, here, there = training.images(split, predictor), images.dataset.normalization, training.dataset.normalization
    digests = {image_digest(held.stored(name), there, here) for name in held.names}
    of_images = measured.images
    if there and not here:
        of_images = {name: image_digest(images.stored(name), here, there) for name in measured.images}
    return [name for name, digest in of_images.items() if digest in digests]


def _normalized_unlike(images: Images, training: Source) -> bool:
    """Whether both files are normalised, by different statistics, and raw values that were no integers are lost."""
    here, there = images.dataset.normalization, training.dataset.normalization
    if not here or not there or all(here[key] == there[key] for key in ("mean", "std")):
        return False
    return any(integers_of(images.stored(name).image, here) is None for name in images.names)


def _baselines(training: Source | None, predictor: Predictor) -> dict[str, Baseline]:
    """The baselines fitted on the training images; without these, the first class everywhere."""
    if training is None:
        return {f"all {predictor.classes[0]}": baselines.Majority(0)}
    constant = telling_apart.constant_of(predictor.task)
    return baselines.fit(training.images("train", predictor), predictor.classes, constant)


def _pixel_um(source: Source, names: tuple[str, ...]) -> float | None:
    size: float | None = source.dataset.read(names[0]).pixel_um
    return size


def _notes(
    gone: str | None, training: Source | None, source: Source, names: tuple[str, ...], unlike: bool
) -> list[str]:
    """Caveats for a reader of the scores; `unlike` as `_normalized_unlike` tells."""
    if training is None:
        return [
            f"the training images are gone ({gone}): no fitted threshold beside the scores, and no telling whether "
            "the run was trained on any of these"
        ]
    notes = []
    if unlike:
        notes.append(
            f"{source.place}: is normalised otherwise than the training images, and not from integers: no telling "
            "whether the run was trained on any of these; --data with the file that it was made from tells"
        )
    here, there = _pixel_um(source, names), _pixel_um(training, training.names("train"))
    if not here or not there or abs(there / here - 1) <= SAME_PIXEL:
        return notes
    return [
        *notes,
        f"{source.place}: has pixels of {here:g} µm, the training images of {there:g} µm; objects appear "
        f"{there / here:.3g} times as large as in training",
    ]


def _environment(predictor: Predictor) -> dict[str, Any]:
    described = environment.describe(predictor.device, {})
    return {key: described[key] for key in ENVIRONMENT}


def _folder(run: Path, evaluation: Evaluation) -> Path:
    """The folder of an evaluation: it replaces one of the same data, and stands beside one of a namesake."""
    border = evaluation.ignore_border_px
    ending = f"{evaluation.split}-{evaluation.checkpoint}" + (f"-border_{border}" if border is not None else "")
    plain = RunDirectory(run).evaluations / f"{evaluation.data}-{ending}"
    earlier = record.read(plain)
    if earlier is None or earlier.path == evaluation.path:
        return plain
    if earlier.data_digest == evaluation.data_digest is not None:
        return plain
    return plain.with_name(f"{evaluation.data}-{(evaluation.data_digest or '')[:8]}-{ending}")
