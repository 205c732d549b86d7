"""All that a run does on a pretended GPU, and changes of the code that would be faults on a real one: each is found."""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from ignite.engine import Engine
from pretended import Fault, Pretended

from yeastexp.config.loading import load_experiment
from yeastexp.data.transforms import elastic
from yeastexp.evaluation.evaluate import evaluate
from yeastexp.prediction.predictor import load_predictor
from yeastexp.training import checkpoints
from yeastexp.training.build import assemble, build_trainer
from yeastexp.training.resume import resume
from yeastexp.training.run import run

pytestmark = pytest.mark.usefixtures("real_previews")
AUGMENTATIONS = ("affine", "elastic", "pasted_structures", "gaussian_noise")
EXPERIMENT = tiny.changed(
    {
        'name = "cross_entropy"': 'name = "dice_cross_entropy"\nweights = [1.0, 2.0]',
        "epochs = 2": "epochs = 1\nmax_grad_norm = 1.0\nema_decay = 0.9\nplain_steps = 1",
        "batch_size = 4": "batch_size = 3",
        "[model]": "".join(f'[[augment]]\nname = "{name}"\np = 1.0\n' for name in AUGMENTATIONS) + "[model]",
        "threads = 1": 'threads = 1\ndevice = "cuda"',
    },
    tiny.EXPERIMENT,
)
"""Six steps with all that hangs on one, the last without most augmentations."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment, with its data beside it, and a run with whose weights it begins."""
    path = tiny.write_experiment(tmp_path_factory.mktemp("pretended"), EXPERIMENT)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(path.parent)
        run(path, ["runtime.device=cpu"], console=tiny.quiet()).rename("first")
    path.write_text(EXPERIMENT.replace("epochs = 1", "epochs = 1\ninit_from = 'first'\ninit_share = 0.25"))
    return path


@pytest.fixture(scope="module")
def trained(path: Path) -> Path:
    """A run of it that the CPU made."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(path.parent)
        return run(path, ["runtime.device=cpu"], console=tiny.quiet()).resolve()


@pytest.fixture(autouse=True)
def no_tensor_of_another_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elastic._spline.cache_clear()
    monkeypatch.chdir(tmp_path)


def steps(path: Path, trained: Path, cache: str = "device") -> None:
    """A trainer's steps wait for nothing, nor does a batch of images that are on the GPU."""
    with Pretended() as gpu:
        assembly = assemble(load_experiment(path, [f"runtime.cache={cache}"]))
        trainer, first = build_trainer(assembly), assembly.sampler.batch(0)
        trainer.run([first], max_epochs=1, epoch_length=1)  # what is made once
        with gpu.no_waits():
            made = (assembly.sampler.batch(step) for step in (1, 2))
            trainer.run(made if cache == "device" else [], max_epochs=1, epoch_length=2)


def from_memory(path: Path, trained: Path) -> None:
    """Batches that the CPU cut are trained on."""
    with Pretended():
        assembly = assemble(load_experiment(path, ["runtime.cache=memory"]))
        build_trainer(assembly).run([assembly.sampler.batch(0)], max_epochs=1, epoch_length=1)


def whole(path: Path, trained: Path) -> None:
    """A run with validation and checkpoints, in whose steps nothing waits, ends near to that of the CPU."""
    with Pretended() as gpu, pytest.MonkeyPatch.context() as patched:
        begun = Engine.__init__

        def begin(self: Engine, process: Callable[[Engine, Any], Any]) -> None:
            def step(engine: Engine, batch: Any) -> Any:
                if not isinstance(batch, tuple) or engine.state.iteration == 1:  # the validator's; what is made once
                    return process(engine, batch)
                with gpu.no_waits():
                    return process(engine, batch)

            begun(self, step)

        patched.setattr(Engine, "__init__", begin)
        made = run(path, console=tiny.quiet()).resolve()
        assert resume(made, console=tiny.quiet()) is not None
    ours, theirs = (checkpoints.load(each / "checkpoints" / "last.pt")["model"] for each in (made, trained))
    for name, weights in ours.items():
        torch.testing.assert_close(weights, theirs[name], rtol=1e-2, atol=1e-3)


def scored(path: Path, trained: Path) -> None:
    """Evaluation and prediction."""
    with Pretended():
        evaluate(trained, device="cuda")
        labels = load_predictor(trained, device="cuda").classes_of(tiny.image(5)["raw"][None], "square")
    assert labels.shape == (32, 32)


@pytest.mark.parametrize("way", [steps, from_memory, whole, scored])
def test_nothing_is_on_the_wrong_device_and_no_step_waits(way: Callable[..., None], path: Path, trained: Path) -> None:
    way(path, trained)


@dataclass(frozen=True)
class Mutant:
    """A change of the code of a function, `module:name`, and what finds it."""

    place: str
    old: str
    new: str
    way: Callable[[Path, Path], None]

    def apply(self, patched: pytest.MonkeyPatch) -> None:
        """Give the function other code, whoever imported it."""
        module_name, _, names = self.place.partition(":")
        function: Any = importlib.import_module(f"yeastexp.{module_name}")
        space = dict(vars(function))
        for name in names.split("."):
            function = inspect.unwrap(getattr(function, name))
        text = textwrap.dedent(inspect.getsource(function))
        assert text.count(self.old) == 1, f"{self.old!r} stands {text.count(self.old)} times in {self.place}"
        exec(f"from __future__ import annotations\n{text.replace(self.old, self.new)}", space)
        patched.setattr(function, "__code__", inspect.unwrap(space[function.__name__]).__code__)


MUTANTS = {
    "no .to(device) in the step": Mutant(
        "training.step:make_trainer", "tensor.to(optimization.device, non_blocking=True)", "tensor", from_memory
    ),
    "an .item() in the step": Mutant(
        "training.step:make_trainer", "return value.detach()", "return value.detach() * value.item()", steps
    ),
    "a loss that is looked at in the step": Mutant(
        "training.step:make_trainer", 'if optimization.device.type == "cpu":', "if True:", steps
    ),
    "gradients that are looked at in the step": Mutant(
        "training.optimization:OptimizationStep.apply", 'if self.device.type == "cpu":', "if True:", steps
    ),
    "a norm of gradients that is read in the step": Mutant(
        "training.handlers.gradients:ClipGradients.clip", "self.max_norm)", "self.max_norm).cpu()", whole
    ),
    "a tensor of the CPU in a loss": Mutant(
        "nets.losses:Dice.forward", "self.smooth) / (", "torch.full((1,), self.smooth)) / (", steps
    ),
    "weights of classes that stay on the CPU": Mutant(
        "training.build:assemble", "criterion.to(device)", "criterion", steps
    ),
    "a generator of the wrong device": Mutant(
        "randomness:_normal",
        "uniform_fields([*keys, *(key ^ 0x5DEECE66D for key in keys)], shape, device)",
        "torch.rand(2 * len(keys), *shape, generator=torch.Generator(), device=device)",
        steps,
    ),
    "pinned memory that is used for the next numbers too early": Mutant(
        "randomness:sent",
        'torch.empty(ends[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")',
        'globals().setdefault("KEPT", torch.empty(2**20, dtype=torch.uint8, pin_memory=True))[: ends[-1]]',
        steps,
    ),
    "numbers that are not pinned": Mutant("randomness:sent", ', pin_memory=device.type == "cuda"', "", steps),
    "numbers that are waited for": Mutant("randomness:sent", ", non_blocking=True", "", steps),
    "knots of a field that stay on the CPU": Mutant(
        "data.transforms.elastic:Elastic.shifts", "return rows @ numbers", "return rows @ knots", steps
    ),
    "places of pixels that are made on the CPU": Mutant(
        "data.transforms.geometry:fields", "= sent(\n        device", '= sent(\n        torch.device("cpu")', steps
    ),
    "memory of one stream that another uses unrecorded": Mutant(
        "data.prefetch:prefetch_to_device", "tensor.record_stream(training)", "pass", whole
    ),
    "a step that does not wait for its batch": Mutant(
        "data.prefetch:prefetch_to_device", "training.wait_stream(copying)", "pass", whole
    ),
    "patches that do not wait for their images": Mutant(
        "data.prefetch:prefetch_to_device", "copying.wait_stream(training)", "pass", whole
    ),
    "initial weights that stay on the CPU": Mutant(
        "training.handlers.average:KeepInitialShare.__init__", "tensor.clone()", "tensor.cpu()", whole
    ),
    "targets of validation that stay on the CPU": Mutant(
        "training.validation:_on", "labels=sample.labels.to(device)", "labels=sample.labels", whole
    ),
    "images of validation that stay on the CPU": Mutant(
        "training.validation:whole_image_outputs", "image=sample.image.to(device)", "image=sample.image", whole
    ),
    "truth that metrics are given on the CPU": Mutant(
        "training.validation:evaluator", "sample.labels.to(device)", "sample.labels", whole
    ),
    "images of prediction that stay on the CPU": Mutant(
        "prediction.predictor:Predictor.logits", "image=sample.image.to(self.device)", "image=sample.image", scored
    ),
    "labels of the GPU that NumPy is given": Mutant(
        "prediction.predictor:Predictor.classes_of", "prediction.labels.cpu()", "prediction.labels", scored
    ),
    "a checkpoint's digest of tensors on the GPU": Mutant(
        "training.checkpoints:plain", "value.detach().cpu()", "value.detach()", whole
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_faults_are_found(name: str, path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name].apply(monkeypatch)
    with pytest.raises(Fault):
        MUTANTS[name].way(path, trained)
