"""torch.optim's conventions, one by one, with torch.optim beside."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from pagedopt import optim

pytestmark = pytest.mark.usefixtures("arena")

OPTIONS: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.1}
CLASSES = [("AdamW", 32), ("PagedAdamW", 32), ("PagedAdamW8bit", 8)]


def pair(name: str, *sizes: tuple[int, ...], **options: Any) -> tuple[Any, Any]:
    """One of ours and torch's AdamW on equal parameters."""
    generator = torch.Generator().manual_seed(3)
    params = [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in sizes or [(71, 67), (9,)]]
    twins = [torch.nn.Parameter(param.detach().clone()) for param in params]
    return getattr(optim, name)(params, **OPTIONS, **options), torch.optim.AdamW(twins, **OPTIONS, **options)


def params_of(optimizer: Any) -> list[Any]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def set_gradients(*optimizers: Any, seed: int = 0) -> None:
    for optimizer in optimizers:
        generator = torch.Generator().manual_seed(seed)
        for param in params_of(optimizer):
            param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)


def assert_equal_params(ours: Any, torchs: Any, bits: int = 32) -> None:
    for param, twin in zip(params_of(ours), params_of(torchs), strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-5, atol=2e-6 if bits == 32 else 2e-3)


@pytest.mark.parametrize(("name", "bits"), CLASSES)
def test_closure_runs_forward_and_backward_inside_step(name: str, bits: int) -> None:
    ours, torchs = pair(name)
    losses = []
    for optimizer in (ours, torchs):

        def closure(optimizer: Any = optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            loss = torch.stack([(param**2).sum() for param in params_of(optimizer)]).sum()
            loss.backward()
            return loss

        losses.append([optimizer.step(closure).item() for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert_equal_params(ours, torchs, bits)
    assert ours.step() is None


def test_step_hooks_and_global_hooks_run() -> None:
    ours, _ = pair("PagedAdamW")
    calls: list[str] = []
    ours.register_step_pre_hook(lambda *_: calls.append("pre"))
    ours.register_step_post_hook(lambda *_: calls.append("post"))
    set_gradients(ours)
    ours.step()
    ours.step()
    assert calls == ["pre", "post"] * 2


def test_state_dict_hooks_run_and_may_replace() -> None:
    ours, _ = pair("PagedAdamW")
    set_gradients(ours)
    ours.step()
    calls: list[str] = []
    ours.register_state_dict_pre_hook(lambda _: calls.append("save pre"))
    ours.register_state_dict_post_hook(lambda _, state: {**state, "extra": 1})
    ours.register_load_state_dict_post_hook(lambda _: calls.append("load post"))

    def without_extra(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        calls.append("load pre")
        return {**state, "param_groups": [{**group, "lr": 0.5} for group in state["param_groups"]]}

    ours.register_load_state_dict_pre_hook(without_extra)
    state = ours.state_dict()
    assert state["extra"] == 1
    ours.load_state_dict(state_dict=state)
    assert calls == ["save pre", "load pre", "load post"]
    assert ours.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(("name", "bits"), CLASSES)
@pytest.mark.parametrize(
    "schedule",
    [lambda o: CosineAnnealingLR(o, 5), lambda o: OneCycleLR(o, max_lr=0.02, total_steps=8)],
    ids=["cosine", "one-cycle: betas too"],
)
def test_schedulers(name: str, bits: int, schedule: Callable[[Any], Any]) -> None:
    ours, torchs = pair(name)
    schedulers = [schedule(ours), schedule(torchs)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(6):
            set_gradients(ours, torchs, seed=step)
            for optimizer, scheduler in zip((ours, torchs), schedulers, strict=True):
                optimizer.step()
                scheduler.step()
    assert ours.param_groups[0]["lr"] == torchs.param_groups[0]["lr"]
    assert_equal_params(ours, torchs, bits)


@pytest.mark.filterwarnings("error")
def test_every_option_is_read_at_every_step() -> None:
    ours, torchs = pair("PagedAdamW")
    changes: list[dict[str, Any]] = [
        {"lr": 0.05}, {"betas": (0.5, 0.6)}, {"eps": 1e-2}, {"weight_decay": 0.5}, {"maximize": True},
        {"amsgrad": True}, {"lr": torch.tensor(0.03)}, {},
    ]  # fmt: skip
    for step, change in enumerate(changes):
        set_gradients(ours, torchs, seed=step)
        for optimizer in (ours, torchs):
            optimizer.param_groups[0].update(change)
            if "amsgrad" in change and optimizer is torchs:
                for entry in torchs.state.values():
                    entry["max_exp_avg_sq"] = torch.zeros_like(entry["exp_avg_sq"])
            optimizer.step()
        assert_equal_params(ours, torchs)


def test_a_tensor_for_a_learning_rate_may_change_in_place() -> None:
    rate = torch.tensor(0.0)
    param = torch.nn.Parameter(torch.ones(5))
    ours = optim.PagedAdamW([param], lr=rate)
    param.grad = torch.ones(5)
    ours.step()
    assert torch.equal(param, torch.ones(5))
    rate.fill_(0.25)
    ours.step()
    assert torch.allclose(param, torch.tensor(1 - 0.25 * 0.01 - 0.25))


@pytest.mark.parametrize(("name", "bits"), CLASSES)
@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("in_step", [False, True])
def test_grad_scaler(name: str, bits: int, unscale: bool, in_step: bool) -> None:
    ours, torchs = pair(name)
    ours._step_supports_amp_scaling = in_step
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    for step in range(4):
        set_gradients(ours, torchs, seed=step)
        scale = scaler.scale(torch.ones(())).item()
        for param in params_of(ours):
            param.grad = scale * param.grad
        if step == 2:
            params_of(ours)[0].grad[3, 3] = float("inf")
        else:
            torchs.step()
        if unscale:
            scaler.unscale_(ours)
        before = [param.detach().clone() for param in params_of(ours)]
        scaler.step(ours)
        scaler.update()
        assert (step == 2) == all(map(torch.equal, params_of(ours), before))
    assert_equal_params(ours, torchs, bits)
    assert all(float(entry["step"]) == 3 for entry in ours.state.values())


@pytest.mark.parametrize("name", ["AdamW", "PagedAdamW8bit"])
def test_a_step_is_skipped_where_frameworks_see_it(name: str) -> None:
    """As with the classes of bitsandbytes: Lightning then clips gradients, Accelerate counts skipped steps."""
    ours, _ = pair(name)
    calls: list[int] = []
    ours.register_step_pre_hook(lambda *_: calls.append(1))
    scaler = torch.amp.GradScaler("cpu")
    set_gradients(ours)
    scaler.scale(torch.ones(()))
    params_of(ours)[1].grad[0] = float("inf")
    scaler.step(ours)
    assert not calls
    assert not getattr(ours, "_step_supports_amp_scaling", False), "who asks for this would refuse to clip gradients"


@pytest.mark.parametrize(("name", "bits"), CLASSES)
def test_groups_added_between_steps(name: str, bits: int) -> None:
    ours, torchs = pair(name)
    for step in range(4):
        if step == 2:
            for optimizer in (ours, torchs):
                late = torch.nn.Parameter(torch.ones(4999))
                optimizer.add_param_group({"params": late, "lr": 5e-3})
        set_gradients(ours, torchs, seed=step)
        ours.step()
        torchs.step()
    assert_equal_params(ours, torchs, bits)
    assert [float(entry["step"]) for entry in ours.state.values()] == [4, 4, 2]


def test_state_comes_with_the_first_gradient() -> None:
    ours, torchs = pair("PagedAdamW", (5,), (6,), (7,))
    for step, having in enumerate([(1,), (0, 1), (), (2, 0)]):
        set_gradients(ours, torchs, seed=step)
        for optimizer in (ours, torchs):
            for index, param in enumerate(params_of(optimizer)):
                if index not in having:
                    param.grad = None
            optimizer.step()
        assert_equal_params(ours, torchs)
        assert len(ours.state) == len(torchs.state)
    assert [float(ours.state[param]["step"]) for param in params_of(ours)] == [2, 2, 1]


def test_named_parameters() -> None:
    module = torch.nn.Linear(3, 2)
    try:
        torch.optim.AdamW(module.named_parameters())
    except TypeError:
        pytest.skip("this version of torch takes no names")
    ours = optim.PagedAdamW(module.named_parameters())
    assert ours.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


def test_sparse_gradients_are_refused() -> None:
    embedding = torch.nn.Embedding(5, 3, sparse=True)
    ours = optim.PagedAdamW(embedding.parameters())
    embedding(torch.tensor([1, 2])).sum().backward()
    before = embedding.weight.detach().clone()
    with pytest.raises(RuntimeError, match=r"sparse_coo.*SparseAdam"):
        ours.step()
    assert torch.equal(embedding.weight, before)


@pytest.mark.parametrize(
    "change",
    [
        lambda param: setattr(param, "data", param.data.clone()),
        lambda param: setattr(param, "data", param.data.clone() * 2),
        lambda param: torch.utils.swap_tensors(param, torch.nn.Parameter(param.detach().clone())),
    ],
    ids=["moved", "moved and changed", "swapped"],
)
def test_parameters_that_move_are_followed(change: Callable[[Any], None]) -> None:
    ours, torchs = pair("PagedAdamW", (71, 67))
    for step in range(4):
        if step == 2:
            kept = params_of(ours)[0].data
            for optimizer in (ours, torchs):
                change(params_of(optimizer)[0])
            old = kept.clone()
        set_gradients(ours, torchs, seed=step)
        ours.step()
        torchs.step()
    assert_equal_params(ours, torchs)
    assert torch.equal(kept, old), "the old memory was written"


def test_parameters_that_change_their_type_keep_their_state() -> None:
    ours, _ = pair("PagedAdamW", (71, 67))
    param = params_of(ours)[0]
    set_gradients(ours)
    ours.step()
    kept = ours.state[param]["exp_avg"]
    param.grad = None
    param.data = param.data.bfloat16()
    set_gradients(ours)
    ours.step()
    assert ours.state[param]["exp_avg"] is kept
    assert float(ours.state[param]["step"]) == 2


def test_a_change_of_shape_is_an_error_that_changes_nothing() -> None:
    ours, _ = pair("PagedAdamW", (71, 67))
    param = params_of(ours)[0]
    set_gradients(ours)
    ours.step()
    kept = ours.state[param]["exp_avg"].clone()
    param.grad = None
    param.data = torch.zeros(5)
    set_gradients(ours)
    with pytest.raises(ValueError, match=r"exp_avg has shape \(71, 67\), the parameter \(5,\)"):
        ours.step()
    assert torch.equal(ours.state[param]["exp_avg"], kept)
    assert not param.any()


MEMORY = {
    "transposed": lambda base: base.t(),
    "channels last": lambda base: base.view(2, 67, 71, 1).contiguous(memory_format=torch.channels_last),
    "every second column": lambda base: base[:, ::2],
    "a window": lambda base: base[3:60, 5:65],
    "offset": lambda base: base.view(-1)[1:],
    "transposed window": lambda base: base[3:60, 5:65].t(),
}


@pytest.mark.parametrize(("name", "bits"), [("AdamW", 32), ("PagedAdamW8bit", 8)])
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("is_gradient_alike", [True, False])
def test_parameters_that_are_not_contiguous(name: str, bits: int, memory: str, is_gradient_alike: bool) -> None:
    base = torch.randn(134, 71, generator=torch.Generator().manual_seed(1))
    twin_base = base.clone()
    view = MEMORY[memory](base)
    param, twin = torch.nn.Parameter(view), torch.nn.Parameter(MEMORY[memory](twin_base).clone())
    assert param.data_ptr() == view.data_ptr()
    strides = param.stride()
    ours = getattr(optim, name)([param], **OPTIONS, min_8bit_size=0)
    torchs = torch.optim.AdamW([twin], **OPTIONS)
    for step in range(3):
        grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(step))
        param.grad = torch.empty_like(param).copy_(grad) if is_gradient_alike else grad
        twin.grad = grad
        ours.step()
        torchs.step()
    torch.testing.assert_close(param, twin, rtol=1e-5, atol=2e-6 if bits == 32 else 5e-3)
    assert (param.data_ptr(), param.stride()) == (view.data_ptr(), strides), "the alias is gone"
    is_touched = torch.zeros_like(twin_base, dtype=torch.bool)
    if memory != "channels last":
        MEMORY[memory](is_touched).fill_(True)
        assert torch.equal(base[~is_touched], twin_base[~is_touched]), "what lies between was written"
        assert torch.equal(MEMORY[memory](base), param)


def test_expanded_gradients() -> None:
    ours, torchs = pair("PagedAdamW", (71, 67))
    for optimizer in (ours, torchs):
        params_of(optimizer)[0].grad = torch.ones(()).expand(71, 67)
        optimizer.step()
    assert_equal_params(ours, torchs)


def test_empty_and_scalar_parameters() -> None:
    ours, torchs = pair("PagedAdamW8bit", (0,), (), (3, 0, 2), (5,))
    for step in range(3):
        set_gradients(ours, torchs, seed=step)
        ours.step()
        torchs.step()
    assert_equal_params(ours, torchs)
    assert [float(ours.state[param]["step"]) for param in params_of(ours)] == [3, 3, 3, 3]
    ours.load_state_dict(ours.state_dict())
    ours.step()
    assert [tuple(ours.state[param]["exp_avg"].shape) for param in params_of(ours)] == [(0,), (), (3, 0, 2), (5,)]


def test_gradient_of_another_type_is_refused() -> None:
    param = torch.nn.Parameter(torch.zeros(5, dtype=torch.bfloat16))
    ours = optim.AdamW([param])
    param.grad = torch.ones(5, dtype=torch.bfloat16)
    param.grad.data = torch.ones(5)
    with pytest.raises(RuntimeError, match=r"torch\.float32.*torch\.bfloat16"):
        ours.step()


def test_a_changed_parameter_is_seen_by_autograd() -> None:
    param = torch.nn.Parameter(torch.ones(5))
    ours = optim.AdamW([param])
    loss = (param * param).sum()
    param.grad = torch.ones(5)
    ours.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_meta_parameters_may_be_filled_later() -> None:
    module = torch.nn.Linear(5, 3, device="meta")
    ours = optim.PagedAdamW(module.parameters())
    module.weight.grad = torch.zeros_like(module.weight)
    with pytest.raises(ValueError, match="meta"):
        ours.step()
    with torch.no_grad():
        torch.utils.swap_tensors(module.weight, torch.nn.Parameter(torch.ones(3, 5)))
    module.weight.grad = torch.ones(3, 5)
    ours.step()
    assert not torch.equal(module.weight, torch.ones(3, 5))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float8_e5m2])
def test_frozen_parameters_of_any_type_are_left_alone(dtype: torch.dtype) -> None:
    """The quantised weights of a model under adapters, as `model.parameters()` lists them."""
    weight = torch.nn.Parameter(torch.ones(3), requires_grad=True)
    frozen = torch.nn.Parameter(torch.ones(5, dtype=dtype), requires_grad=False)
    ours = optim.PagedAdamW8bit([frozen, weight])
    for _ in range(2):
        weight.grad = torch.ones(3)
        ours.step()
    assert list(ours.state) == [weight]
    assert not torch.equal(weight, torch.ones(3))
    frozen.grad = torch.ones(5, dtype=dtype)
    with pytest.raises(TypeError, match=str(dtype)):
        ours.step()


@pytest.mark.parametrize("name", ["AdamW", "PagedAdamW8bit"])
def test_a_compiled_training_step(name: str) -> None:
    """The step is a break of the graph, with nothing in it that Dynamo would look at and warn of."""
    ours, twin = (pair(name)[0] for _ in range(2))

    def train(optimizer: Any) -> torch.Tensor:
        loss = torch.stack([(param**2).sum() for param in params_of(optimizer)]).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    compiled = torch.compile(train, backend="eager")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            torch.testing.assert_close(compiled(ours), train(twin))
    assert not [str(warning.message) for warning in caught if "Dynamo" in str(warning.message)]
    assert_equal_params(ours, twin)


def test_two_optimizers_and_one_per_parameter() -> None:
    ours, torchs = pair("PagedAdamW", (71, 67), (9,), (300,))
    each = [optim.PagedAdamW([param], **OPTIONS) for param in params_of(ours)]
    for step in range(3):
        set_gradients(ours, torchs, seed=step)
        torchs.step()
        for optimizer in each:
            optimizer.step()
    assert_equal_params(ours, torchs)


def test_subclasses() -> None:
    class Mine(optim.PagedAdamW):
        def __init__(self, params: Any) -> None:
            super().__init__(params, lr=0.5)

    param = torch.nn.Parameter(torch.ones(5))
    mine = Mine([param])
    param.grad = torch.ones(5)
    mine.step()
    assert torch.allclose(param, torch.tensor(0.995 - 0.5))
    assert repr(mine).startswith("Mine (")
