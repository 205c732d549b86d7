"""Warnings beside a run's scores, a sentence each: where scores mislead, or how they could be better."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch

from yeastexp.config import pretrained
from yeastexp.config.experiment import Experiment
from yeastexp.contracts import AdditiveLoss
from yeastexp.data.folds import Thumbnail, most_similar, thumbnail
from yeastexp.errors import UserError
from yeastexp.metrics import cells
from yeastexp.metrics.summary import Summary
from yeastexp.system.formatting import format_count, format_score, format_share
from yeastexp.tasks.instances import Instances
from yeastexp.tasks.mask_cells import METHOD
from yeastexp.training.build import Assembly, is_fitted_to_length, learning_rates
from yeastexp.training.initial_weights import INITIAL_WEIGHTS, known_images
from yeastexp.training.optimization import AccumulationSchedule
from yeastexp.training.progress import Progress, Validation

RARE = 0.05
"""Below this share of foreground pixels, patches and loss should take it into account."""

HELD_OUT = {"val": "validation", "test": "test"}

NAMED = 3
"""The number of pairs of images that a sentence names."""


def of_loss(assembly: Assembly) -> Iterator[str]:
    """Warn if accumulated batches do not train as one large batch would."""
    train = assembly.experiment.train
    if train.accumulation_steps == 1:
        return
    if not assembly.additive:
        yield (
            f"[train] accumulation_steps: '{assembly.experiment.loss_name}' is no mean over pixels (it has no "
            f"'count'), so {train.accumulation_steps} batches of {train.batch_size} do not train as one of "
            f"{train.accumulation_steps * train.batch_size} would: each weighs by its patches"
        )
    elif isinstance(assembly.criterion, AdditiveLoss) and isinstance(assembly.task, Instances):
        _, labels = assembly.sampler.labelled(0)
        # The error of the hills is a mean over labelled pixels, but batches are weighed by the count of the criterion.
        if assembly.criterion.count(labels) != (labels >= 0).sum():
            yield (
                f"[train] accumulation_steps: '{assembly.experiment.loss_name}' is a mean over weighted pixels, by "
                "which the error of the hills, a mean over labelled pixels, is weighed as well, so batches do not "
                "train quite as a larger one would"
            )


def of_losses(validation: Validation) -> Iterator[str]:
    """Warn if the loss of an image with labels is no number: outputs are, so it is the loss function's doing."""
    # Without labels an image has no score either.
    count = len(validation.losses)
    scored = [of.rows.isfinite().any(dim=1) for of in validation.scores.values()]
    labelled = torch.stack(scored).any(dim=0).tolist() if scored else [True] * count
    losses = zip(validation.losses.items(), labelled, strict=True)
    if odd := [name for (name, loss), known in losses if known and not math.isfinite(loss)]:
        others = f" and of {format_count(len(odd) - 1, 'more image')}" if len(odd) > 1 else ""
        yield (
            f"the validation loss of '{odd[0]}'{others} is {validation.losses[odd[0]]}; look for a division by 0 in "
            "[loss], as of an image without one of the classes"
        )


def of_labels(assembly: Assembly) -> Iterator[str]:
    """Warn if the training labels have a single class, or the validation images no foreground, as 'check' does."""
    if assembly.criterion is None:
        return  # the task's own loss may learn from other maps
    trained = {label for mask in assembly.images.labels() for label in mask.unique().tolist() if label >= 0}
    if len(trained) < 2:
        only = f"have '{assembly.classes[min(trained)]}' and nothing else" if trained else "have no labelled pixel"
        yield f"all training images {only}, so there is nothing to learn; check that the masks were read ('check')"
    elif not any((sample.labels > 0).any() for sample in assembly.samples("val")):
        yield "no validation image has any foreground, so its scores say little; choose other images ([dataset] val)"


def of_cells(assembly: Assembly) -> Iterator[str]:
    """Warn if cells are only approximated, or if cells that are learnt whole are longer than a patch."""
    if scored := assembly.approximate:
        yield (
            f"{', '.join(scored)}: the cells of the task '{assembly.experiment.task.part.name}' are {METHOD}; the task "
            "'instances' learns to tell cells apart"
        )
    if "instances" in assembly.task.maps:
        side = assembly.sampler.plan.side
        train = assembly.samples("train")
        longest = {sample.name: cells.measure(sample.maps["instances"]).longest_px for sample in train}
        if wide := [name for name, length in longest.items() if length > side]:
            name = max(wide, key=lambda name: longest[name])
            yield (
                f"[patches] size: cells of {format_count(len(wide), 'training image')} are longer than patches of "
                f"{side} px, up to {longest[name]} px in {name}, and never learnt whole; set it to "
                f"{-(-longest[name] // 8) * 8} or more, or make images smaller with 'downscale'"
            )


def of_images(assembly: Assembly, thumbnails: Mapping[str, Thumbnail]) -> Iterator[str]:
    """Warn of held-out images that resemble what is trained on; `thumbnails` are of training and validation images."""
    known = {**thumbnails, **{sample.name: thumbnail(sample.image) for sample in assembly.samples("test")}}
    yield from of_splits(assembly, known)
    train = assembly.dataset.splits["train"]
    held_out = {name: shown for name, shown in known.items() if name not in train}
    yield from of_initial_weights(assembly.experiment, held_out)


def of_splits(assembly: Assembly, thumbnails: Mapping[str, Thumbnail]) -> Iterator[str]:
    """Warn if validation or test images resemble training images, as neighbouring frames do."""
    splits = assembly.dataset.splits
    train = [name for name in splits["train"] if name in thumbnails]
    for split, title in HELD_OUT.items():
        held_out = [name for name in splits.get(split, ()) if name in thumbnails]
        if alike := most_similar(thumbnails, held_out, train):
            yield (
                f"{len(alike)} of {len(held_out)} {title} images resemble a training image ({pairs(alike)}), as "
                "neighbouring frames and overlapping fields do: scores on new fields will be worse; split by field or "
                "day ([dataset] val, crossval --group-by or --blocks), or report it"
            )


def of_initial_weights(experiment: Experiment, thumbnails: Mapping[str, Thumbnail]) -> Iterator[str]:
    """Warn if held-out images, those of `thumbnails`, resemble images that the initial weights were trained on."""
    try:
        alike = known_images(experiment, thumbnails, list(thumbnails))
    except UserError as error:
        yield (
            f"[train] init_from: whether the initial weights were trained on held-out images is not known ({error}); "
            "if they were, scores are optimistically biased"
        )
        return
    if alike:
        yield (
            "[train] init_from: held-out images resemble images that the initial weights were trained on: "
            f"{len(alike)} of {len(thumbnails)} ({pairs(alike)}), whose scores are optimistically biased; hold out "
            "others ([dataset] val), or begin without these weights"
        )


def pairs(alike: list[tuple[str, str, float]]) -> str:
    """The most similar pairs of images, in words."""
    closest = sorted(alike, key=lambda pair: -pair[2])
    named = ", ".join(f"{name} like {other} ({correlation:.3f})" for name, other, correlation in closest[:NAMED])
    return f"{named}{', …' if len(closest) > NAMED else ''}; correlation of thumbnails"


def of_baselines(assembly: Assembly, summary: Summary, baselines: Mapping[str, Summary]) -> Iterator[str]:
    """Warn if the model is no better than a baseline, and name what may help."""
    monitor = assembly.experiment.monitor
    name = monitor if monitor in assembly.metrics else assembly.experiment.metrics[0].name
    metric, sign = assembly.metrics[name], 1 if assembly.metrics[name].higher_is_better else -1
    row = metric.headline(summary[name], assembly.classes)
    value = summary[name][row]["per_image"]
    others = {title: of[name][row]["per_image"] for title, of in baselines.items()}
    known = {title: score for title, score in others.items() if score is not None}
    if value is None or not known or value == metric.bounds[sign > 0]:
        return
    best = max(known, key=lambda title: sign * known[title])
    if sign * value > sign * known[best]:
        return
    compared = "worse than" if value != known[best] else "no better than"
    initial = best == INITIAL_WEIGHTS
    of_best = "weights that it began with, which need" if initial else f"baseline '{best}', which needs"
    yield (
        f"{name} of {row} is {format_score(value)}, {compared} the {format_score(known[best])} of the {of_best} no "
        f"training; try {', '.join(_remedies(assembly, best))}"
    )


def _remedies(assembly: Assembly, best: str) -> Iterator[str]:
    if best == INITIAL_WEIGHTS and (run := assembly.experiment.train.init_from):
        yield f"'predict {pretrained.written(run)}'"
        yield "more annotated images"
        yield "a lower [optimizer] learning_rate"
        yield f"a larger [train] init_share than {assembly.experiment.train.init_share:g}"
        return
    patches, loss = assembly.experiment.patches, assembly.experiment.loss_name
    counts = [(int((mask > 0).sum()), int((mask >= 0).sum())) for mask in assembly.images.labels()]
    share = sum(count for count, _ in counts) / max(1, sum(labelled for _, labelled in counts))
    if share < RARE and patches.foreground_fraction < 0.5:
        yield f"[patches] foreground_fraction = 0.5 ({format_share(share)} of the training pixels are foreground)"
    if share < RARE and "dice" not in loss and assembly.criterion is not None:
        yield '[loss] name = "dice_cross_entropy"'
    yield "more [train] epochs" if assembly.experiment.train.epochs else "longer training"
    yield "another [optimizer] learning_rate"
    yield "'check --data', which tells whether the model can overfit one batch"


def of_budget(assembly: Assembly, schedule: AccumulationSchedule, progress: Progress, step: int) -> Iterator[str]:
    """Warn if a budget ended the run early, and how far the learning rate had fallen."""
    if progress.stopped != "by budget":
        return
    rates = [groups[0] for groups in learning_rates(assembly.experiment, schedule.updates, schedule.updates)]
    reached = rates[min(progress.scheduled(schedule, schedule.updates_until(step)), len(rates) - 1)]
    remade, fall = progress.remade, ""
    if remade and is_fitted_to_length(assembly.experiment, schedule.updates):
        fall = f", having let the learning rate fall faster from step {remade.at} on"
    if reached > rates[-1]:
        now, end = (format_share(rate / max(rates)) for rate in (reached, rates[-1]))
        fall += f", when the learning rate was at {now} of its highest and had not finished its fall to {end}"
    yield (
        f"the budget ended the run after {step} of {schedule.steps} planned steps{fall}; give it more time, or 'run' "
        f"it with train.steps={step}, which plans for as many"
    )
