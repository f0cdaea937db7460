"""Autograd learns of what a step changed, whichever way this torch wants to be told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pagedopt.optim import AdamW
from pagedopt.optim.autograd import for_many, increment_versions


def of_torch_2_4(tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise RuntimeError("increment_version expect a Tensor as input")
    tensor.add_(0)


def test_one_at_a_time_where_torch_takes_no_more() -> None:
    tensors = [torch.zeros(3), torch.zeros(2)]
    for_many(of_torch_2_4)(tensors)
    assert [tensor._version for tensor in tensors] == [1, 1]


def test_all_at_once_in_this_torch() -> None:
    tensors = [torch.zeros(3), torch.zeros(2)]
    increment_versions(tensors)
    assert [tensor._version for tensor in tensors] == [1, 1]


def test_backward_through_a_stepped_parameter_is_refused() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    loss = (weight * weight).sum()
    weight.grad = torch.ones(3)
    AdamW([weight]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
