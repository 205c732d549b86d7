"""The tables of an experiment file that name no part: their keys, ranges and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from yeastexp.registry import MustExist, Schema

_Written = Annotated[
    str,
    StringConstraints(
        pattern=r"^(0{0,5}[1-9][0-9]{0,5}(\.[0-9]{1,6})?|0{1,6}\.0{0,5}[1-9][0-9]{0,5})"  # more than 0
        r" ?(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?)?$"
    ),
]
Duration = Annotated[
    _Written,
    BeforeValidator(
        lambda value: f"{value:g}s" if type(value) in (int, float) else value,
        json_schema_input_type=_Written | Annotated[float, Field(gt=0, lt=1e6)],
    ),
]
"""Seconds, unless a unit follows: '90', '90s', '5 min', '1.5h', or a number."""

Threads = Annotated[int, Field(ge=1, le=1024)] | Literal["auto"]


@dataclass(frozen=True)
class Patches:
    """`[patches]`: how training patches are cut from the training images."""

    size: Annotated[
        int | None, Field(ge=1, le=2**15, description="side in pixels; by default 128, or less for small images")
    ] = None
    per_image: Annotated[
        int | None,
        Field(ge=1, le=10**6, description="random patches per image and epoch; by default as many as cover its area"),
    ] = None
    stride: Annotated[int | None, Field(ge=1, description="pixels between sliding patches, instead of random")] = None
    foreground_fraction: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="fraction of random patches that are centred on a pixel of another class than the first",
        ),
    ] = 0.0


@dataclass(frozen=True)
class Train:
    """`[train]`: length, batches and precision of the training; exactly one of `epochs`, `steps` and `budget`."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    budget: Annotated[
        Duration | None, Field(description="wall-clock time of the whole command, as in '5m' or '90 s'")
    ] = None
    batch_size: Annotated[int, Field(ge=1, description="patches a step")] = 8
    accumulation_steps: Annotated[int, Field(ge=1, description="batches whose gradients add up to one update")] = 1
    max_grad_norm: Annotated[
        float | None, Field(gt=0, description="gradients are clipped to this L2 norm of all of them together")
    ] = None
    ema_decay: Annotated[
        float | None,
        Field(gt=0, lt=1, description="decay of the moving average of the weights, which is saved and scored"),
    ] = None
    precision: Annotated[
        Literal["float32", "bfloat16", "float16", "auto"],
        Field(
            description="number format of the model in training; 'auto': bfloat16 where it is faster now; float16 "
            "needs a GPU; whole images are always predicted in float32"
        ),
    ] = "float32"
    init_from: Annotated[
        Path | None,
        MustExist("run", holding="checkpoints/best.pt"),
        Field(
            description="a run whose best weights training starts from; 'yeast': the pretrained ones of the package; "
            "'random': none, where a file extends one with some"
        ),
    ] = None
    init_share: Annotated[
        float,
        Field(ge=0, lt=1, description="share of the initial weights in those that are saved and scored"),
    ] = 0.0
    plain_steps: Annotated[
        int,
        Field(ge=0, description="last steps, at most a fifth, without [[augment]] except reflect and rotate90"),
    ] = 0
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0

    def augmented(self, steps: int) -> int:
        """Return how many steps of a run of so many have all augmentations."""
        return steps - min(self.plain_steps, steps // 5)


@dataclass(frozen=True)
class Validation:
    """`[validation]`: which images score the model, how often, and what the scores decide."""

    monitor: Annotated[str | None, Field(description="the metric that picks the best checkpoint, or 'loss'")] = None
    every: Annotated[
        int | None,
        Field(ge=1, description="epochs between validations; by default, they cost about a twentieth of the training"),
    ] = None
    patience: Annotated[
        int | None,
        Field(ge=1, description="validations without improvement that end the run, wherever the scheduler then is"),
    ] = None
    folds: Annotated[
        Path | None,
        MustExist("file of folds"),
        Field(description="a file of folds by 'crossval', instead of the data's splits"),
    ] = None
    fold: Annotated[int | None, Field(ge=1, description="the number of the fold that validates")] = None


@dataclass(frozen=True)
class Runtime:
    """`[runtime]`: the device, threads and processes of a run, and where it caches images."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[
        Threads,
        Field(description="compute threads; 'auto': as many of those granted (OMP_NUM_THREADS, …) as are fastest now"),
    ] = "auto"
    workers: Annotated[int, Field(ge=0, le=64, description="processes that cut patches; 0: the training process")] = 0
    cache: Annotated[
        Literal["auto", "device", "memory", "none"],
        Field(description="where the training images are kept; 'none' reads them again for every batch"),
    ] = "auto"
    shards: Annotated[
        int,
        Field(
            ge=1,
            description="parts of a batch that go through the model one by one; so many processes or fewer share them",
        ),
    ] = 1
    channels_last: Annotated[
        bool, Field(description="channels of a pixel adjacent in memory; a step takes a tenth less time on a CPU")
    ] = True
    compile: Annotated[
        bool, Field(description="by torch.compile: half a minute at the start, then a few percent faster on a CPU")
    ] = False
    deterministic: bool = True
    checkpoint_minutes: Annotated[
        float, Field(gt=0, description="most time between checkpoints, which follow every epoch that takes seconds")
    ] = 10.0


SETTINGS: Mapping[str, type] = {"patches": Patches, "train": Train, "validation": Validation, "runtime": Runtime}
SCHEMAS: Mapping[str, Schema] = {table: Schema(settings) for table, settings in SETTINGS.items()}


def seconds(duration: str) -> float:
    """Return the seconds of a `budget` such as '90', '5m' or '1.5 hours'."""
    number = duration.rstrip("abcdefghijklmnopqrstuvwxyz ")
    return float(number) * {"s": 1, "m": 60, "h": 3600}[duration[len(number) :].strip()[:1] or "s"]
