"""The weights that training starts from: which tensors of another run fit, and which images they were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from yeastexp.config import pretrained
from yeastexp.config.experiment import Experiment
from yeastexp.data.datasets.drawn import Drawn
from yeastexp.data.folds import Thumbnail, most_similar, thumbnail
from yeastexp.data.pieces import refuse_other_order
from yeastexp.errors import UserError
from yeastexp.system.formatting import format_count, format_share
from yeastexp.training import build
from yeastexp.training.build import Assembly
from yeastexp.training.checkpoints import load, refuse_non_finite
from yeastexp.training.run_directory import RunDirectory

INITIAL_WEIGHTS = "initial weights"
"""What their scores are called beside those of the baselines."""

MOST_NAMED = 4
"""Of tensors that initial weights leave at random, so many are named."""


@dataclass(frozen=True)
class Start:
    """Initial weights: lines about them, the names of tensors that fitted, and whether all did: it predicts already."""

    told: tuple[str, ...] = ()
    fitted: frozenset[str] = frozenset()
    complete: bool = False


def initialize(assembly: Assembly) -> Start:
    """Give a model the weights that its experiment names, if any. Raises UserError if those of a run do not fit."""
    return _initialize(assembly.model, assembly.experiment, getattr(assembly.dataset, "channel_names", ()))


def refuse_unfitting(experiment: Experiment) -> None:
    """Raises UserError if the initial weights do not fit, without reading an image."""
    _initialize(build.build_model(experiment), experiment)


def _initialize(model: nn.Module, experiment: Experiment, channel_names: Sequence[str] = ()) -> Start:
    run, share, task = experiment.train.init_from, experiment.train.init_share, experiment.task.part.name
    start = start_from(model, RunDirectory(run).checkpoint("best"), task, channel_names) if run else Start()
    if share and start.fitted:
        line = f"saved and scored: the mean of trained and initial weights, the latter at {format_share(share)}"
        start = replace(start, told=(*start.told, line))
    return start


def start_from(model: nn.Module, checkpoint: Path, task: str | None = None, channel_names: Sequence[str] = ()) -> Start:
    """Copy those tensors of another run's checkpoint that fit into a model.

    Names and shapes have to agree. If the run's task was another one than `task`, the last layer is left at random, as
    its outputs meant something else. Raises UserError if no kernel fits, or if `channel_names`, those of the images to
    train on, are the run's in another order. The package's weights, with which starters begin, are left out instead,
    and that if less than half of the kernels fit: whoever changed the model meant it.
    """
    try:
        run, state, current = checkpoint.parents[1], load(checkpoint), model.state_dict()
    except UserError as error:
        raise UserError(f"[train] init_from: {error}; name another run, or 'random' to begin without") from None
    task_before, run_name = state.get("experiment", {}).get("task", {}).get("name"), pretrained.written(run)
    refuse_other_order("[dataset]", channel_names, state.get("channel_names", ()), f"'{run_name}' ([train] init_from)")
    last = _last_layer(model) if task and task_before not in (None, task) else set()
    fitting = {
        name: tensor
        for name, tensor in state["model"].items()
        if name in current and current[name].shape == tensor.shape and name not in last
    }
    # Biases and the counters of batch norms fit models that share nothing else.
    kernels = {name for name, tensor in current.items() if tensor.ndim > 1} or current.keys()
    fit = len(kernels & fitting.keys())
    if run_name != str(run) and 2 * fit < len(kernels):
        told = f"the pretrained ones ('{run_name}') fit {fit} of {format_count(len(kernels), 'kernel')} of this model"
        return Start((f"initial weights at random: {told}",))
    if not fit:
        raise UserError(
            f"[train] init_from: no kernel of '{run_name}' fits this model; name a run of a similar model, or 'random' "
            "to begin without"
        )
    refuse_non_finite(model, fitting, checkpoint)
    model.load_state_dict(fitting, strict=False)
    left = sorted(current.keys() - fitting.keys())
    told = f"; at random: {', '.join(left[:MOST_NAMED])}" if left else ""
    more = f" and {len(left) - MOST_NAMED} more" if len(left) > MOST_NAMED else ""
    line = f"initial weights from '{run_name}': {len(fitting)} of {len(current)} tensors{told}{more}"
    return Start((line,), frozenset(fitting), complete=not left)


def _last_layer(model: nn.Module) -> set[str]:
    """Return the names of the tensors of the layer that comes last in the model's definition."""
    names = list(dict(model.named_parameters()))
    layer = names[-1].rpartition(".")[0] if names else None
    return {name for name in model.state_dict() if name.rpartition(".")[0] == layer}


def known_images(
    experiment: Experiment, thumbnails: Mapping[str, Thumbnail], held_out: Sequence[str]
) -> list[tuple[str, str, float]]:
    """Return held-out images that resemble one that the initial weights were trained on, with it and the correlation.

    The runs which those weights began with count as well. `thumbnails` are those of the held-out images. Raises
    UserError if the training images of a run cannot be read any more.
    """
    closest: dict[str, tuple[str, str, float]] = {}
    run = experiment.train.init_from
    while run is not None:
        before = RunDirectory(run).load(execute=False)
        dataset, train = before.dataset.build(), build.build_dataset(before).splits["train"]
        if isinstance(dataset, Drawn):
            # Drawing thousands of pictures takes an hour, and no microscope has recorded one of them.
            present = experiment.dataset.build()
            alike = isinstance(present, Drawn) and present.draws_like(dataset)
            pairs = [(name, f"{name} of {run}", 1.0) for name in held_out if alike and name in train]
        else:
            trained_on = {f"{name} of {run}": thumbnail(dataset.read(name).image) for name in train}
            pairs = most_similar({**thumbnails, **trained_on}, held_out, list(trained_on))
        for pair in pairs:
            closest[pair[0]] = max(pair, closest.get(pair[0], pair), key=lambda pair: pair[2])
        run = before.train.init_from
    return list(closest.values())
