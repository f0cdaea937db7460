"""Torch code over paged state of an emulated GPU. What torch does is done at once, so this GPU's moves are too."""

from __future__ import annotations

import pytest
import torch
from emulated_gpu.conftest import Emulate
from optim.wrapped_cases import assert_same, make_params, train

from pagedopt import optim, runtime


@pytest.mark.parametrize("whole", [False, True], ids=["in parts", "whole"])
def test_wrapped_steps_give_the_same_bits(emulate: Emulate, whole: bool) -> None:
    emulate(eager=True, budget="320KiB")
    theirs, ours = make_params(), make_params()
    train(torch.optim.RAdam(theirs), theirs, range(5))
    train(optim.Paged(torch.optim.RAdam(ours), whole=whole), ours, range(5))
    assert_same(ours, theirs)
    (paged,) = runtime.paged_devices().values()
    assert paged.arena.counters()["evicted_bytes"] > 0
    assert paged.arena.is_valid(), paged.arena.fault()
