"""Our GlobalOptimManager, and keep_32bit."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pagedopt import optim
from pagedopt.optim.aliases import ALIASES

pytestmark = pytest.mark.usefixtures("arena")


@pytest.fixture
def manager() -> Iterator[Any]:
    manager = optim.GlobalOptimManager.get_instance()
    manager.initialize()
    yield manager
    manager.initialize()


def make_model() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Embedding(100, 50), torch.nn.Linear(50, 100), torch.nn.Linear(100, 50))


def train(optimizer: Any, steps: int = 3) -> list[torch.Tensor]:
    params = [param for group in optimizer.param_groups for param in group["params"]]
    generator = torch.Generator().manual_seed(7)
    for _ in range(steps):
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator)
        optimizer.step()
    return [param.detach().clone() for param in params]


def bits_of(optimizer: Any) -> list[int]:
    params = [param for group in optimizer.param_groups for param in group["params"] if param.numel() >= 4096]
    return [8 if optimizer.state[param]["exp_avg"].dtype is torch.uint8 else 32 for param in params]


def test_there_is_one(manager: Any) -> None:
    assert optim.GlobalOptimManager.get_instance() is manager
    with pytest.raises(RuntimeError, match="get_instance"):
        optim.GlobalOptimManager()


@pytest.mark.parametrize("name", ["AdamW8bit", "PagedLion8bit"])
@pytest.mark.parametrize("way", ["override_config", "key_value_dict", "register_module_override"])
def test_an_overridden_parameter_trains_as_in_a_group_of_its_own(manager: Any, name: str, way: str) -> None:
    model, twin = make_model(), make_model()
    manager.register_parameters(model.parameters())
    optimizer = getattr(optim, name)(model.parameters(), lr=1e-2)
    if way == "override_config":
        manager.override_config(model[1].weight, "optim_bits", 32)
        manager.override_config([model[1].weight], "lr", 0.5)
    elif way == "key_value_dict":
        manager.override_config([model[1].weight], key_value_dict={"optim_bits": 32, "lr": 0.5})
    else:
        manager.override_config(model[1].weight, key_value_dict={"optim_bits": 8, "lr": 0.5})
        manager.register_module_override(model[1], "weight", {"optim_bits": 32})
    groups: list[dict[str, Any]] = [{"params": [param]} for param in twin.parameters()]
    groups[1] |= {"optim_bits": 32, "lr": 0.5}
    stem = name.removesuffix("8bit")
    assert all(map(torch.equal, train(optimizer), train(getattr(optim, stem)(groups, lr=1e-2, optim_bits=8))))
    assert bits_of(optimizer) == [8, 32, 8]


def test_what_dies_leaves_nothing_behind(manager: Any) -> None:
    """A parameter at the address of a dead one takes none of its options."""
    ids = set()
    gc.freeze()  # collecting looks at what is made from here on, and not at all that other tests have left
    for _ in range(50):
        model = make_model()
        manager.override_config(model[1].weight, "lr", 0.5)
        manager.register_module_override(model[2], "weight", {"lr": 0.5})
        ids.add(id(model[1].weight))
        del model
        gc.collect()
        assert list(manager.overrides()) == []
    gc.unfreeze()
    living = [torch.nn.Parameter(torch.ones(3))]
    for _ in range(100_000):
        living.append(torch.nn.Parameter(torch.ones(3)))
        if id(living[-1]) in ids:
            break
    assert id(living[-1]) in ids, "no address was used again"
    for param in (living[0], living[-1]):
        param.grad = torch.ones(3)
        optim.AdamW([param], lr=1e-2).step()
    assert torch.equal(living[0], living[-1])


def test_it_is_stronger_than_the_manager_of_bitsandbytes(manager: Any) -> None:
    theirs = pytest.importorskip("bitsandbytes.optim").GlobalOptimManager.get_instance()
    theirs.initialize()
    model, twin = make_model(), make_model()
    theirs.override_config(model[1].weight, key_value_dict={"lr": 0.1, "optim_bits": 32})
    manager.override_config(model[1].weight, "lr", 0.5)
    groups: list[dict[str, Any]] = [{"params": [param]} for param in twin.parameters()]
    groups[1] |= {"optim_bits": 32, "lr": 0.5}
    ours = train(optim.AdamW8bit(model.parameters(), lr=1e-2))
    assert all(map(torch.equal, ours, train(optim.AdamW(groups, lr=1e-2, optim_bits=8))))
    theirs.initialize()


@pytest.mark.parametrize(
    ("choose", "bits", "names"),
    [
        (lambda model: (), [32, 8, 8], ["0.weight"]),
        (lambda model: (model[1],), [8, 32, 8], ["1.weight", "1.bias"]),
        (lambda model: (model[2].weight, torch.nn.Embedding), [32, 8, 32], ["0.weight", "2.weight"]),
    ],
)
def test_keep_32bit(manager: Any, choose: Any, bits: list[int], names: list[str]) -> None:
    model = make_model()
    assert optim.keep_32bit(model, *choose(model)) == names
    optimizer = optim.PagedAdamW8bit(model.parameters())
    train(optimizer, 1)
    assert bits_of(optimizer) == bits


def test_wrong_use_is_refused(manager: Any) -> None:
    model = make_model()
    with pytest.raises(ValueError, match="the model has no such Linear"):
        optim.keep_32bit(model, torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="either key and value, or key_value_dict"):
        manager.override_config(model[0].weight)
    with pytest.raises(TypeError, match="a parameter is a tensor, not str"):
        manager.override_config(["weight"], "lr", 1)
    manager.override_config(model[0].weight, "optim_bits", 4)
    with pytest.raises(ValueError, match=r"^GlobalOptimManager, parameter of shape \(100, 50\): optim_bits=4"):
        train(optim.AdamW8bit(model.parameters()))


@pytest.mark.parametrize("name", ALIASES)
def test_an_alias_is_the_class(name: str) -> None:
    alias, cls = getattr(optim, name), getattr(optim, f"{name}bit")
    assert (alias.__name__, alias.__module__) == (name, "pagedopt.optim")
    assert all(map(torch.equal, train(alias(make_model().parameters())), train(cls(make_model().parameters()))))


def test_no_class_names_bitsandbytes() -> None:
    classes = [getattr(optim, name) for name in optim.__all__ if isinstance(getattr(optim, name), type)]
    assert not [cls for cls in classes for base in cls.__mro__ if "bitsandbytes" in str(base)]
