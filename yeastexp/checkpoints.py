"""What survives a crash."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from yeastexp import files
from yeastexp.errors import UserError


@dataclass
class Best:
    """The best validation so far: its monitored value, where higher or lower is better, and how many came since."""

    higher_is_better: bool
    value: float | None = None
    step: int = 0
    validations_since: int = 0

    def improves(self, value: float, step: int) -> bool:
        """Whether a value beats the best, which it then is; NaN never does."""
        self.validations_since += 1
        if value != value:
            return False
        if self.value is not None and (value <= self.value if self.higher_is_better else value >= self.value):
            return False
        self.value, self.step, self.validations_since = value, step, 0
        return True


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint: the old file stays until the new one is whole on disk."""
    with files.appearing(path) as temporary:
        torch.save(state, temporary)


def generators(device: torch.device) -> dict[str, torch.Tensor | None]:
    """The state of the generators that a model draws from (dropout); all other randomness is keyed by the step."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None}


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint onto a device; nothing but tensors and plain values is accepted."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; the run ended before its first one")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files that it goes on to refuse
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: damaged, or no checkpoint of yeastexp ({reason})") from None
    return state


def start_from(model: torch.nn.Module, run: Path, device: torch.device) -> str:
    """Copy what fits of another run's best weights into a model; a line says which tensors did."""
    found = load(run / "checkpoints" / "best.pt", device)["model"]
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in found.items() if name in own and own[name].shape == tensor.shape}
    if not fitting:
        raise UserError(f"{run}: none of its tensors fits this model; [train] initial needs a run of a like one")
    model.load_state_dict(fitting, strict=False)
    left = sorted(own.keys() - fitting.keys())
    return f"initial weights from {run}: {len(fitting)} of {len(own)} tensors" + (
        f"; not fitted: {', '.join(left)}" if left else ""
    )
