"""Operators without values: what they return has the shapes, types and strides that PyTorch gives it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from yeastexp.errors import UserError
from yeastexp.nets.operators import BATCH_NORM, call_operator
from yeastexp.nets.receptive_field import receptive_field


class Compared(TorchDispatchMode):
    """Calls each operator in both ways."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[Any] = []

    def __torch_dispatch__(self, overload: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        wanted, found = overload(*args, **(kwargs or {})), call_operator(overload, args, kwargs)
        if overload is BATCH_NORM:
            assert [layout(each) for each in found] == [layout(each) for each in wanted]
            self.seen.append(args[5])
        return found


def layout(tensor: Tensor) -> tuple[object, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device.type


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_a_batch_norm_has_the_shapes_that_pytorch_gives_it(
    memory: torch.memory_format, dtype: torch.dtype, statistics: bool
) -> None:
    for device in ("meta", "cpu"):
        layer = nn.BatchNorm2d(3, track_running_stats=statistics, device=device).eval()
        images = torch.zeros(2, 3, 5, 4, device=device, dtype=dtype).to(memory_format=memory)
        with torch.no_grad(), Compared() as mode:
            layer(images)
        assert mode.seen == [not statistics]


def test_numbers_of_channels_that_do_not_fit_are_a_fault_still() -> None:
    with pytest.raises(UserError, match="running_mean should contain 3 elements not 2"):
        receptive_field(nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(2)), 1)
