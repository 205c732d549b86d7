"""Compiled models: what they give, and what happens where compiling fails."""

from __future__ import annotations

import shutil
import warnings

import pytest
import torch
from torch import Tensor, nn

from yeastexp.nets.optimizers import adamw
from yeastexp.training.compilation import Compiled
from yeastexp.training.optimization import OptimizationStep, Options

IMAGES = torch.randn(2, 1, 6, 7, generator=torch.Generator().manual_seed(0))


class Picky(nn.Conv2d):
    """A layer with a fault of its own."""

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] == 1:
            raise RuntimeError("a bug")
        return super().forward(images)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that fails on everything."""

    def fails(module: torch.fx.GraphModule, inputs: list[Tensor]) -> None:
        raise ValueError("no compiler")

    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: compiled(model, backend=fails, dynamic=dynamic))


@pytest.mark.usefixtures("broken")
def test_a_model_that_cannot_be_compiled_runs_as_it_is() -> None:
    model = Picky(1, 2, 3)
    forward = Compiled(model)
    with pytest.warns(UserWarning, match=r"\[runtime\] compile: could not compile the model \(.*no compiler\)"):
        assert torch.equal(forward(IMAGES), model(IMAGES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(forward(IMAGES), model(IMAGES))


@pytest.mark.usefixtures("broken")
def test_the_model_tells_its_own_faults() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        Compiled(Picky(1, 2, 1))(IMAGES[..., :1])


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
def test_a_compiled_model_gives_what_the_model_gives_on_its_own_weights() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    update = OptimizationStep(model, adamw(model.parameters()), Options(compile=True), torch.device("cpu"))
    for _ in range(2):
        found = update.forward(IMAGES)
        torch.testing.assert_close(found, model(IMAGES))
        update.add(found.sum(), 1.0)
        update.apply(1)
    assert list(update.state_dict()["model"]) == list(model.state_dict())
