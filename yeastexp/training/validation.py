"""Scoring a model and the baselines on whole images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from yeastexp.contracts import Prediction, Task
from yeastexp.data.folds import Thumbnail, thumbnail
from yeastexp.data.pieces import Pieces
from yeastexp.data.transforms import pipeline
from yeastexp.data.views import averaged
from yeastexp.drawing import cells, pictures
from yeastexp.errors import UserError
from yeastexp.metrics import baselines
from yeastexp.metrics.instances import cell_errors
from yeastexp.metrics.matching import annotated_cells, overlap
from yeastexp.metrics.pixels import PerImageMetric, Scores
from yeastexp.metrics.summary import Summary, summarise, tags
from yeastexp.randomness import generator
from yeastexp.registry import described
from yeastexp.sample import IGNORE, Sample
from yeastexp.system import full_precision
from yeastexp.system.processes import ALONE, Processes
from yeastexp.tasks import telling_apart
from yeastexp.training.build import Assembly
from yeastexp.training.finite import check_outputs
from yeastexp.training.initial_weights import Start
from yeastexp.training.outputs import NAMED, checked_outputs
from yeastexp.training.progress import Validation
from yeastexp.training.training_images import Transforms


@torch.no_grad()
def whole_image_outputs(
    model: nn.Module, transforms: Transforms, task: Task, sample: Sample, device: torch.device, named: str = NAMED
) -> Tensor:
    """Return a model's outputs (O, H, W) on the original pixels of an image, averaged over the task's views."""

    def outputs(image: Pieces) -> Pieces:
        batch = image.whole[None]
        values = model(batch)
        return Pieces.of(checked_outputs(values, batch, task.outputs, named)[0])

    moved = replace(sample, image=sample.image.to(device), labels=sample.labels.to(device), maps={})
    transformed = pipeline.whole(transforms, moved)
    with full_precision.in_full(device):
        mean = averaged(Pieces.of(transformed.image), outputs, task, task.views).whole
    return pipeline.restore(transforms, mean, sample.size)


def evaluator(
    predict: Callable[[Sample], Prediction], metrics: Mapping[str, PerImageMetric], device: torch.device
) -> Engine:
    """Return an engine over samples that scores predictions with every metric; `state.prediction` is the last one."""
    asked = {name for metric in metrics.values() for name in metric.predicted}

    def step(engine: Engine, sample: Sample) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        prediction = predict(sample)
        engine.state.prediction = prediction  # type: ignore[attr-defined]  # for handlers
        maps = {name: labels.to(device) for name, labels in sample.maps.items()}
        maps |= {f"predicted_{name}": values.to(device) for name, values in prediction.asked(asked).items()}
        return prediction.labels.to(device), sample.labels.to(device), maps

    engine = Engine(step)
    for name, metric in metrics.items():
        metric.attach(engine, name)
    return engine


def score(
    predict: Callable[[Sample], Prediction],
    samples: Iterable[Sample],
    metrics: Mapping[str, PerImageMetric],
    device: torch.device,
) -> dict[str, Scores]:
    """Return the scores of predictions on whole images, by metric."""
    engine = evaluator(predict, metrics, device)
    return dict(engine.run(samples).metrics)


def fault_of_prediction(prediction: Any, outputs: Tensor, task: Task, classes: int) -> str | None:
    """Return what is wrong with the prediction that a task decoded from outputs (O, H, W); None if it is sound."""
    decoded = getattr(prediction, "labels", prediction)
    given = f"'decode' gives {described(decoded)} for outputs {tuple(outputs.shape)}"
    if not isinstance(prediction, Prediction) or getattr(decoded, "shape", None) != outputs.shape[-2:]:
        return f"{given}; return a Prediction of labels (H, W)"
    if decoded.is_floating_point() or decoded.is_complex():
        return f"{given}; return a class index for each pixel, as int64"
    on_host = decoded.device.type == "cpu"  # looking at values on a GPU would wait for it
    if on_host and decoded.numel() and not 0 <= int(decoded.min()) <= int(decoded.max()) < classes:
        return f"'decode' gives classes up to {int(decoded.max())}; return indices from 0 to {classes - 1}"
    if lacking := set(task.values) - set(prediction.maps):
        return f"'decode' gives no '{min(lacking)}', which is among its values"
    return None


def build_validator(
    assembly: Assembly, model: Callable[[], nn.Module] | nn.Module | None = None, among: Processes = ALONE
) -> Engine:
    """Return an engine over whole samples that scores a model: the assembly's, another, or a function's result.

    After a run of it, `state.metrics` has the scores by tag (`iou/cell`, `iou/mean`, `accuracy`) and the mean `loss`,
    and `state.validation` the scores and losses of each image. During a run, `state.batch` is a sample and
    `state.prediction` its `Prediction`. Each of several processes runs over its share of the samples; afterwards all
    of them have the scores of all images.
    """
    losses: dict[str, Tensor] = {}
    task, device, named = assembly.task, assembly.device, assembly.experiment.model.named
    current: dict[str, nn.Module] = {}

    @torch.no_grad()
    def predict(sample: Sample) -> Prediction:
        # Which process scores an image depends on their number. A model that draws numbers even in evaluation has to
        # draw the same ones all the same, so it is seeded by the image, and once more at the end.
        if assembly.experiment.runtime.shards > 1:
            torch.manual_seed(_seed_of(assembly, sample.name))
        outputs = whole_image_outputs(current["model"], assembly.transforms, task, sample, device, named)
        check_outputs(outputs, sample, named)
        loss = assembly.loss(outputs[None], task.targets(_on(sample, device))[None])
        # A mean over no pixel: losses give 0, which would lower the mean over images.
        losses[sample.name] = loss if bool((sample.labels != IGNORE).any()) else loss * torch.nan
        prediction = task.decode(outputs)
        if fault := fault_of_prediction(prediction, outputs, task, len(assembly.classes)):
            part = assembly.experiment.task.part
            raise UserError(f"{part.place}: [task] name: '{part.name}': {fault}")
        return prediction

    engine = evaluator(predict, assembly.metrics, device)
    state: Any = engine.state

    def begin() -> None:
        losses.clear()
        # A function is asked at each validation: `RunContext.measured` looks for NaN weights then, and the averaged
        # model is made by a handler, after this engine.
        chosen = assembly.model if model is None else model
        current["model"] = chosen if isinstance(chosen, nn.Module) else chosen()
        state.was_training = current["model"].training
        current["model"].eval()

    def end() -> None:
        current.pop("model").train(state.was_training)
        if assembly.experiment.runtime.shards > 1:
            torch.manual_seed(_seed_of(assembly, ""))
        # `Scores` per image are not what handlers expect in `state.metrics`: they are replaced by numbers by tag.
        scores = {name: state.metrics.pop(name) for name in assembly.metrics}
        validation = _of_all(scores, {name: float(value) for name, value in losses.items()}, assembly.metrics, among)
        summary = summarise(validation.scores, assembly.classes)
        state.validation, state.summary = validation, summary
        state.metrics |= {tag.removeprefix("val/"): value for tag, value in tags(summary).items()}
        state.metrics["loss"] = validation.loss

    engine.add_event_handler(Events.STARTED, begin)
    engine.add_event_handler(Events.EPOCH_COMPLETED, end)
    return engine


def _seed_of(assembly: Assembly, image: str) -> int:
    return int(generator(assembly.experiment.train.seed, f"validation {image}").integers(2**63))


def _of_all(
    scores: dict[str, Scores], losses: dict[str, float], metrics: Mapping[str, PerImageMetric], among: Processes
) -> Validation:
    """Return the scores and losses of all processes, given those of this one in the order of its share."""
    if among.count == 1:
        return Validation(scores, losses)
    return Validation(scores_of_all(scores, list(losses), metrics, among), among.merged(losses))


def scores_of_all(
    scores: dict[str, Scores], images: Sequence[str], metrics: Mapping[str, PerImageMetric], among: Processes
) -> dict[str, Scores]:
    """Return the scores of the images of all processes, given those of this process's share, `images`."""
    if among.count == 1:
        return scores
    # Counts are gathered, not scores: they are integers, so sums over images are exact in any order. By their names,
    # images that several processes score (if there are fewer images than processes) are counted once.
    rows = {name: {key: scores[key].counts[index] for key in scores} for index, name in enumerate(images)}
    everywhere = list(among.merged(rows).values())
    return {key: metrics[key].scored(torch.stack([row[key] for row in everywhere])) for key in scores}


def _on(sample: Sample, device: torch.device) -> Sample:
    maps = {name: labels.to(device) for name, labels in sample.maps.items()}
    return replace(sample, labels=sample.labels.to(device), maps=maps)


def validate(assembly: Assembly, model: nn.Module, split: str = "val", among: Processes = ALONE) -> Validation:
    """Return a model's scores and losses on the whole images of a split, which several processes share."""
    state: Any = build_validator(assembly, model, among).run(assembly.samples(split, among))
    validation: Validation = state.validation
    return validation


def initial_validation(assembly: Assembly, start: Start, among: Processes) -> Validation | None:
    """Return the validation of the weights that training starts from; None if some of them are at random."""
    if not start.complete:
        return None
    with torch.random.fork_rng(devices=[assembly.device] if assembly.device.type == "cuda" else []):
        return validate(assembly, assembly.model, "val", among)


def scored_baselines(assembly: Assembly, thumbnails: dict[str, Thumbnail] | None = None) -> dict[str, Summary]:
    """Return the scores on the validation images of the baselines, which are fitted on the training images.

    A thumbnail of each image is put into `thumbnails` on the way, so that they need not be read again.
    """
    thumbnails = {} if thumbnails is None else thumbnails
    training = _seen(assembly, "train", thumbnails)
    fitted = baselines.fit(training, assembly.classes, telling_apart.constant_of(assembly.task))
    return {name: _score_baseline(assembly, baseline, thumbnails) for name, baseline in fitted.items()}


def _seen(assembly: Assembly, split: str, thumbnails: dict[str, Thumbnail]) -> Iterator[Sample]:
    for sample in assembly.samples(split):
        if sample.name not in thumbnails:
            thumbnails[sample.name] = thumbnail(sample.image)
        yield sample


def _score_baseline(assembly: Assembly, baseline: baselines.Baseline, thumbnails: dict[str, Thumbnail]) -> Summary:
    samples = _seen(assembly, "val", thumbnails)
    return summarise(baseline_scores(baseline, samples, assembly.metrics, assembly.task), assembly.classes)


def baseline_scores(
    baseline: baselines.Baseline, samples: Iterable[Sample], metrics: Mapping[str, PerImageMetric], task: Task
) -> dict[str, Scores]:
    """Return a baseline's scores under the metrics that need no more maps than the task can derive from classes."""
    asked = {name for metric in metrics.values() for name in metric.predicted}
    told = task.of_classes(torch.zeros(1, 1, dtype=torch.int64)).asked(asked).keys()
    known = {name: metric for name, metric in metrics.items() if metric.predicted <= told}
    return score(lambda sample: task.of_classes(baseline(sample.image)), samples, known, torch.device("cpu"))


def panel(sample: Sample, prediction: Prediction) -> pictures.Picture:
    """Return image, ground truth, prediction and their differences side by side, as (H, W, 3) uint8.

    If sample and prediction have instances, cells are outlined, and missed, split, false and merged ones are marked.
    """
    image = sample.image.numpy()
    if prediction.instances is None or "instances" not in sample.maps:
        return pictures.panel(image, sample.labels.numpy(), prediction.labels.cpu().numpy())
    true, predicted = (
        annotated_cells(sample.maps["instances"], sample.labels).numpy(),
        prediction.instances.cpu().numpy(),
    )
    errors = cell_errors(overlap(true, predicted))
    of_true: dict[str, Collection[int]] = {"missed": errors.missed, "split": errors.split}
    of_predicted: dict[str, Collection[int]] = {"false": errors.false, "merged": errors.merged}
    return cells.panel(image, true, predicted, of_true, of_predicted)
