"""What a run's checkpoint gets on whole images, beside answers without learning."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from yeastexp.config.experiment import Experiment
from yeastexp.data.datasets.hdf5 import Hdf5
from yeastexp.errors import UserError
from yeastexp.evaluation import record
from yeastexp.evaluation.record import Evaluation, Images, Measured
from yeastexp.metrics import baselines
from yeastexp.prediction.predictor import Predictor, Which, load_predictor
from yeastexp.system import environment, files
from yeastexp.training import build, checkpoints, run_directory

Split = Literal["val", "test", "train", "all"]

SAME_PIXEL = 0.01
"""Share by which the sizes of pixels may differ unnoticed."""

ENVIRONMENT = ("versions", "platform", "device", "threads")
"""What can change the last bits of a score."""


@dataclass(frozen=True)
class Source:
    """A data set, what it is called, its file where it has one, and whether the run was trained on it."""

    dataset: Any
    name: str
    path: Path | None
    digest: str | None
    own: bool

    @property
    def place(self) -> str:
        """How messages call it."""
        return str(self.path or self.name)

    def names(self, split: Split) -> tuple[str, ...]:
        """The images of a split, or of all; UserError where there are none."""
        splits: Mapping[str, list[str]] = self.dataset.splits
        found = [name for one in splits for name in splits[one] if split in (one, "all")]
        if not found:
            there = ", ".join(one for one in splits if splits[one])
            raise UserError(f"{self.place}: has no '{split}' images; choose of {there}, or 'all'")
        return tuple(found)

    def images(self, split: Split, predictor: Predictor) -> Images:
        """The images of a split with the values that a run was trained on; UserError where its channels are others."""
        names, channels = self.names(split), predictor.experiment.task.channels
        for name in names:
            if (has := self.dataset.shape(name)[0]) != channels:
                raise UserError(f"{self.place}: image '{name}' has {has} channels; the run was trained on {channels}")
        return Images(self.dataset, self.place, names, predictor)


def evaluate(
    run: Path,
    data: Path | None = None,
    *,
    split: Split | None = None,
    checkpoint: Which = "best",
    tolerance_px: float | None = None,
    device: str = "auto",
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> tuple[Path, Evaluation]:
    """Score a checkpoint on whole images; the folder in `RUN/evaluations` that was written, and what it holds.

    Without a file the images are those of the run's own data set, and without a split those that validate; of a file
    that the run was not trained on they are all.
    """
    predictor = load_predictor(run, checkpoint, device)
    loaded = build.configure_torch(predictor.experiment)
    source = named(run, loaded, data) if data else own(run, loaded)
    split = split or ("val" if source.own else "all")
    images = source.images(split, predictor)
    tolerance_px = record.tolerance_of(loaded) if tolerance_px is None else tolerance_px
    metrics = record.metrics_of(loaded, source.dataset.maps, tolerance_px)
    gone = None if source.own else missing(run, loaded)
    home = source if source.own else None if gone else own(run, loaded)
    measured = record.measure(images, metrics, progress)
    trained_on, selected_on = _had_a_say(measured, source, home, predictor, checkpoint)
    answers = _answers(home, predictor)
    path = run / checkpoints.FOLDER / f"{checkpoint}.pt"
    found = Evaluation(
        checkpoint=checkpoint,
        step=predictor.step,
        checkpoint_digest=files.digest(path),
        data=source.name,
        path=str(source.path.resolve()) if source.path else None,
        data_digest=source.digest,
        own_data=source.own,
        split=split,
        pixel_um=_pixel_um(source, images.names),
        classes=list(predictor.classes),
        boundary_tolerance_px=tolerance_px,
        images=measured.images,
        trained_on=trained_on,
        selected_on=selected_on,
        summary=record.summary(measured),
        worst=record.worst(measured),
        baselines=record.baseline_summaries(answers, images, metrics),
        confusion=measured.confusion.tolist(),
        cells=record.cells(measured),
        per_image=record.per_image(measured),
        notes=_notes(gone, home, source, images.names),
        environment=_environment(predictor),
    )
    folder = _folder(run, found)
    record.write(folder, found, measured)
    return folder, found


def own(run: Path, loaded: Experiment) -> Source:
    """The data set that a run was trained on; UserError where it is gone."""
    if reason := missing(run, loaded):
        raise UserError(f"{run}: the images it was trained on are gone ({reason}); bring them back, or use --data")
    paths = _inputs(loaded)
    path = paths[0] if len(paths) == 1 and paths[0].is_file() else None
    name = path.stem if path else loaded.dataset.name
    return Source(build.build_dataset(loaded), name, path, files.digest(path) if path else None, own=True)


def missing(run: Path, loaded: Experiment) -> str | None:
    """Why the data that a run was trained on cannot be had, where that is so."""
    digests = run_directory.read_environment(run)["digests"]["data"]
    for path in _inputs(loaded):
        if not path.exists():
            return f"no file '{path}'"
        if path.is_file() and files.digest(path) != digests.get(path.name):
            return f"'{path}' holds something else now"
    return None


def _inputs(loaded: Experiment) -> list[Path]:
    return [value for value in loaded.dataset.options.values() if isinstance(value, Path)]


def named(run: Path, loaded: Experiment, path: Path) -> Source:
    """The data set in an HDF5 file; one that the run was trained on is known by its digest, wherever it lies."""
    dataset = Hdf5(path)
    digest = files.digest(path)
    digests = run_directory.read_environment(run)["digests"]["data"]
    for key, value in loaded.dataset.options.items():
        if isinstance(value, Path) and digests.get(value.name) == digest:
            moved = replace(loaded.dataset, options={**loaded.dataset.options, key: path})
            return Source(moved.build(), path.stem, path, digest, own=True)
    return Source(dataset, path.stem, path, digest, own=False)


def _had_a_say(
    measured: Measured, source: Source, home: Source | None, predictor: Predictor, checkpoint: Which
) -> tuple[list[str] | None, list[str] | None]:
    """Which images the weights were fitted to, and which chose the checkpoint or the end of the training."""
    if home is None:
        return None, None
    chose = checkpoint == "best" or predictor.experiment.validation.patience is not None
    return _among(measured, source, home, "train", predictor), (
        _among(measured, source, home, "val", predictor) if chose else []
    )


def _among(measured: Measured, source: Source, home: Source, split: Split, predictor: Predictor) -> list[str]:
    """The images that are in a split of the training data: by name, or in other files by what they show."""
    members: Collection[str] = home.names(split)
    if source is home:
        return [name for name in measured.images if name in members]
    images, stored = home.images(split, predictor), home.dataset.normalization
    digests = {record.digest(images.stored(name), stored) for name in images.names}
    return [name for name, digest in measured.images.items() if digest in digests]


def _answers(home: Source | None, predictor: Predictor) -> dict[str, baselines.Answer]:
    """Answers without learning, fitted on the training images where those are there."""
    if home is None:
        return {f"all {predictor.classes[0]}": baselines.Majority(0)}
    return baselines.fit(home.images("train", predictor), predictor.classes)


def _pixel_um(source: Source, names: tuple[str, ...]) -> float | None:
    size: float | None = source.dataset.read(names[0]).pixel_um
    return size


def _notes(gone: str | None, home: Source | None, source: Source, names: tuple[str, ...]) -> list[str]:
    """What a reader of the scores has to know."""
    if home is None:
        return [
            f"the training images are gone ({gone}): no fitted threshold beside the scores, and no telling whether "
            "the run was trained on any of these"
        ]
    here, there = _pixel_um(source, names), _pixel_um(home, home.names("train"))
    if not here or not there or abs(there / here - 1) <= SAME_PIXEL:
        return []
    return [
        f"{source.place}: has pixels of {here:g} µm, the training images of {there:g} µm; things look "
        f"{there / here:.3g} times as large as the run learned them"
    ]


def _environment(predictor: Predictor) -> dict[str, Any]:
    found = environment.describe(predictor.device, "", (), ())
    return {key: found[key] for key in ENVIRONMENT}


def _folder(run: Path, found: Evaluation) -> Path:
    """Where an evaluation belongs: over one of the same data, and beside one of other data of the same name."""
    ending = f"{found.split}-{found.checkpoint}"
    plain = run / record.FOLDER / f"{found.data}-{ending}"
    there = record.read(plain)
    if there is None or there.path == found.path or (there.data_digest == found.data_digest is not None):
        return plain
    return plain.with_name(f"{found.data}-{(found.data_digest or '')[:8]}-{ending}")
