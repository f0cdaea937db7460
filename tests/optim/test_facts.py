"""What a row was made from may change under the optimizer, also at one address and of one size: it is seen or refused.

With betas of 0 and no decay a step moves every element by lr against the sign of its gradient, and `exp_avg` is the
gradient: wrong bytes show at once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from pagedopt import _core, optim
from pagedopt.errors import CheckpointError, PagedoptError

LR = 0.125
COUNT = 1500
"""Parameters: more than what was once looked at closely."""

FEW = 50
"""The same where each is read by its attributes, which is slow."""


@pytest.fixture(autouse=True, params=_core.tensor_readers())
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every way in which tensors are read."""
    first = _core.tensor_readers()[0]
    monkeypatch.setattr(sys.modules[__name__], "COUNT", COUNT if request.param == "dlpack" else FEW)
    _core.set_tensor_reader(request.param)
    yield request.param
    _core.set_tensor_reader(first)


def trained(count: int, dtype: torch.dtype = torch.float32) -> tuple[Any, list[Parameter]]:
    """An optimizer that stepped twice, with the gradients of another step in place."""
    params = [Parameter(torch.full((4, 4), 1.0, dtype=dtype)) for _ in range(count)]
    optimizer = optim.AdamW(params, lr=LR, betas=(0.0, 0.0), eps=0.0, weight_decay=0.0)
    for _ in range(3):
        optimizer.step()
        for param in params:
            param.data.fill_(1.0)
            param.grad = torch.full_like(param, 0.5)
    return optimizer, params


# ---- changes that keep address and size


def view_as_other_type(param: Parameter) -> None:
    param.data = param.data.view(torch.float16)
    param.data.fill_(1.0)
    param.grad = torch.full_like(param, 0.5)


def transposed(param: Parameter) -> None:
    param.data = param.data.t()
    param.grad = torch.full((4, 4), 0.5)


def transposed_gradient(param: Parameter) -> None:
    param.grad = torch.full((4, 4), 0.5).t()
    param.grad[0, 1] = -0.5


def expanded_gradient(param: Parameter) -> None:
    param.grad = torch.full((1, 1), 0.5).expand(4, 4)


def negated_scalar(param: Parameter) -> None:
    param.data = torch.ones(())
    param.grad = torch.tensor([0.5 + 0.5j]).conj().imag.reshape(())


def misaligned_gradient(param: Parameter) -> None:
    memory = bytearray(1 + 64)
    memory[1:] = torch.full((16,), 0.5).numpy().tobytes()
    param.grad = torch.frombuffer(memory, dtype=torch.float32, offset=1).view(4, 4)


def misaligned_parameter(param: Parameter) -> None:
    memory = bytearray(1 + 64)
    memory[1:] = torch.ones(16).numpy().tobytes()
    param.data = torch.frombuffer(memory, dtype=torch.float32, offset=1).view(4, 4)


def gapped(param: Parameter) -> None:
    param.data = torch.ones(4, 8)[:, ::2]


def subclass_gradient(param: Parameter) -> None:
    param.grad = Parameter(torch.full((4, 4), 0.5))


def moved(param: Parameter) -> None:
    param.data = torch.ones(4, 4)


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize(
    ("dtype", "change"),
    [
        (torch.bfloat16, view_as_other_type),
        *(
            (torch.float32, change)
            for change in (
                transposed,
                transposed_gradient,
                expanded_gradient,
                misaligned_gradient,
                misaligned_parameter,
                gapped,
                subclass_gradient,
                moved,
            )
        ),
    ],
)
def test_a_changed_tensor_is_read_as_what_it_is_now(
    dtype: torch.dtype, change: Callable[[Parameter], None], is_last: bool
) -> None:
    optimizer, params = trained(COUNT if is_last else 1, dtype)
    place = len(params) - 1
    change(params[place])
    grad = params[place].grad
    assert grad is not None
    grad = grad.clone()
    optimizer.step()
    moved_to = params[place].detach().float()
    assert torch.equal(moved_to, 1 - LR * grad.float().sign()), moved_to
    assert torch.equal(optimizer.state[params[place]]["exp_avg"], grad.float())


def test_a_lazily_negated_gradient() -> None:
    param = Parameter(torch.ones(()))
    optimizer = optim.AdamW([param], lr=LR, betas=(0.0, 0.0), eps=0.0, weight_decay=0.0)
    for _ in range(2):
        param.data.fill_(1.0)
        negated_scalar(param)
        optimizer.step()
        assert float(param.detach()) == 1 + LR, "the gradient is -0.5"


# ---- changes of state


def other_memory(entry: dict[str, Any]) -> None:
    entry["exp_avg"].data = torch.full((4, 4), 9.0)


def other_type(entry: dict[str, Any]) -> None:
    entry["exp_avg_sq"].data = torch.full((4, 4), 9.0, dtype=torch.float16)


def shared(entry: dict[str, Any]) -> None:
    entry["exp_avg"].share_memory_()


def other_order(entry: dict[str, Any]) -> None:
    entry["exp_avg"].data = torch.full((4, 4), 9.0).t()


def other_step(entry: dict[str, Any]) -> None:
    entry["step"].data = torch.tensor(3.0, dtype=torch.float64)


def misaligned(entry: dict[str, Any]) -> None:
    entry["exp_avg"].data = torch.zeros(17)[1:].view(4, 4)


@pytest.mark.filterwarnings("ignore:the state of 1 param")
@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("change", [other_memory, other_type, shared, other_order, other_step, misaligned])
def test_changed_state_is_the_state_that_is_stepped(change: Callable[[dict[str, Any]], None], is_last: bool) -> None:
    optimizer, params = trained(COUNT if is_last else 1)
    place = len(params) - 1
    change(optimizer.state[params[place]])
    begin = float(optimizer.state[params[place]]["step"])
    for count in (begin + 1, begin + 2):
        params[place].data.fill_(1.0)
        optimizer.step()
        entry = optimizer.state[params[place]]
        assert torch.equal(params[place].detach(), torch.full((4, 4), 1 - LR))
        assert torch.equal(entry["exp_avg"], torch.full((4, 4), 0.5)), "the tensor that the user sees"
        assert (float(entry["step"]), entry["step"].dtype) == (count, torch.float32)


# ---- what cannot be used


def other_shape(param: Parameter) -> None:
    param.data = param.data.view(2, 8)
    param.grad = torch.full((2, 8), 0.5)


def fewer_rows(param: Parameter) -> None:
    """The same address, type and strides."""
    param.data = param.data[:2]
    param.grad = torch.full((2, 4), 0.5)


def stale_gradient_type(param: Parameter) -> None:
    param.data = param.data.to(torch.bfloat16)


def stale_gradient_shape(param: Parameter) -> None:
    param.data = param.data.view(2, 8).clone()


def short_gradient(param: Parameter) -> None:
    assert param.grad is not None
    param.grad.data = torch.full((2, 4), 0.5)


def freed(param: Parameter) -> None:
    param.untyped_storage().resize_(0)


def sparse(param: Parameter) -> None:
    param.grad = torch.eye(4).to_sparse()


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("with_names", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_shape, "exp_avg has shape"),
        (fewer_rows, "exp_avg has shape"),
        (stale_gradient_type, "its gradient is torch.float32"),
        (stale_gradient_shape, "exp_avg has shape|gradient is"),
        (short_gradient, r"its gradient is torch.float32 of shape \(2, 4\)"),
        (freed, "memory"),
        (sparse, "layout torch.sparse_coo"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_before_anything_changes(
    change: Callable[[Parameter], None], message: str, with_names: bool, is_last: bool
) -> None:
    params = [Parameter(torch.ones(4, 4)) for _ in range(COUNT if is_last else 1)]
    place = len(params) - 1
    given: Any = [(f"layer.{index}.weight", param) for index, param in enumerate(params)] if with_names else params
    try:
        optimizer = optim.AdamW(given, lr=LR, weight_decay=0.0)
    except (TypeError, ValueError):
        pytest.skip("this torch takes no named parameters")
    for _ in range(2):
        for param in params:
            param.grad = torch.full_like(param, 0.5)
        optimizer.step()
    change(params[place])
    before = [param.detach().clone() for param in params[:place]]
    name = f"'layer.{place}.weight'" if with_names else f"parameter {place} of group 0"
    with pytest.raises((RuntimeError, TypeError, ValueError), match=message) as caught:
        optimizer.step()
    assert name in str(caught.value)
    assert all(map(torch.equal, before, params)), "another parameter was stepped"
    assert all(float(optimizer.state[param]["step"]) == 2 for param in params)


@pytest.mark.parametrize("slot", ["exp_avg", "exp_avg_sq"])
def test_state_with_fewer_rows_is_refused(slot: str) -> None:
    optimizer, params = trained(2)
    entry = optimizer.state[params[1]]
    entry[slot].data = entry[slot].data[:2]
    with pytest.raises(CheckpointError, match=f"parameter 1 of group 0: {slot} has shape"):
        optimizer.step()
    assert all(torch.equal(param.detach(), torch.ones(4, 4)) for param in params)


@pytest.mark.parametrize("key", ["step", "exp_avg", "exp_avg_sq"])
def test_state_that_was_taken_out_is_missed(key: str) -> None:
    optimizer, params = trained(2)
    del optimizer.state[params[1]][key]
    with pytest.raises(CheckpointError, match=f"parameter 1 of group 0: {key} is"):
        optimizer.step()
    assert all(torch.equal(param.detach(), torch.ones(4, 4)) for param in params)


def test_a_gradient_of_another_type_is_refused() -> None:
    param = Parameter(torch.ones(8, dtype=torch.bfloat16))
    if not hasattr(param, "grad_dtype"):
        pytest.skip("this torch wants gradients of the parameter's type")
    param.grad_dtype = torch.float16
    param.grad = torch.full((8,), 0.5, dtype=torch.float16)
    optimizer = optim.AdamW([param], lr=0.1)
    with pytest.raises(RuntimeError, match=r"parameter 0 of group 0: its gradient is torch.float16.*torch.bfloat16"):
        optimizer.step()


@pytest.mark.filterwarnings("ignore:the state of 1 param")
@pytest.mark.parametrize("block_wise", [True, False])
def test_an_absmax_with_gaps(block_wise: bool) -> None:
    """Read by address, its second number would be that of no block."""
    param = Parameter(torch.zeros(1024))
    optimizer = optim.AdamW8bit([param], lr=LR, betas=(0.9, 0.9), min_8bit_size=0, block_wise=block_wise)
    twin = optim.AdamW8bit([Parameter(torch.zeros(1024))], lr=LR, betas=(0.9, 0.9), min_8bit_size=0)
    twin.param_groups[0]["block_wise"] = block_wise
    grad = torch.linspace(-1, 1, 1024)
    for step in range(3):
        for one in (param, *twin.param_groups[0]["params"]):
            one.grad = grad.clone()
        optimizer.step()
        twin.step()
        entry = optimizer.state[param]
        if step == 0:
            for name in ("exp_avg_absmax", "exp_avg_sq_absmax"):
                wide = torch.full((2 * entry[name].numel(),), 1e6)
                wide[::2] = entry[name]
                entry[name] = wide[::2]
    assert torch.equal(param.detach(), twin.param_groups[0]["params"][0].detach())


# ---- the same memory without a tensor of torch: addresses are checked where they are made


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(4, 4, dtype=torch.float16), "float32 is needed"),
        (torch.zeros(2, 4), "16 elements are needed"),
        (torch.zeros(4, 4).t(), "not in the order"),
        (torch.zeros(17)[1:].view(4, 4), "aligned to 16 bytes"),
        (torch.zeros(4, 4, device="meta"), "memory|no tensor|on the device"),
        (None, "no tensor exp_avg"),
    ],
)
def test_a_row_refuses_state_that_does_not_fit(value: torch.Tensor | None, message: str) -> None:
    """The optimizer adopts such state before; the row looks all the same."""
    entry: dict[str, Any] = {"step": torch.zeros(()), "exp_avg": torch.zeros(4, 4), "exp_avg_sq": torch.zeros(4, 4)}
    layout: Any = {"slots": ["exp_avg", "exp_avg_sq"], "strides": (4, 1), "history": "", "group": 0, "codec": "f32"}
    _core.Rows().append(Parameter(torch.ones(4, 4)), entry, **layout)
    with pytest.raises(ValueError, match=message):
        _core.Rows().append(Parameter(torch.ones(4, 4)), {**entry, "exp_avg": value}, **layout)


def test_the_codec_refuses_what_it_cannot_read() -> None:
    values, codes, absmax = torch.zeros(300), torch.zeros(300, dtype=torch.uint8), torch.zeros(2)
    _core.encode(values, codes, absmax, True, 256)
    bad: list[tuple[Any, Any, Any]] = [
        (values.double(), codes, absmax),
        (values, codes.int(), absmax),
        (torch.zeros(600)[::2], codes, absmax),
        (values, codes[:299], absmax),
        (values, codes, absmax[:1]),
        (values, codes, torch.zeros(4)[::2]),
        (values.to("meta"), codes, absmax),
        (values.to_sparse(), codes, absmax),
        (None, codes, absmax),
    ]
    for given in bad:
        with pytest.raises(ValueError, match=r"needed|need|memory"):
            _core.encode(*given, True, 256)


# ---- whole or not at all


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt; a job in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("name", ["AdamW", "PagedAdamW", "AdamW8bit"])
def test_an_interrupt_behind_the_step_leaves_it_whole(paging: Callable[..., Any], name: str) -> None:
    """Of parameters with gaps too, whose new values are copied back behind the native step."""
    paging(budget="128KiB")
    wide = [torch.randn(64, 200) for _ in range(3)]
    params = [Parameter(memory[:, ::2]) for memory in wide]
    twins = [Parameter(param.detach().clone()) for param in params]
    optimizer, twin = (getattr(optim, name)(group, lr=LR, min_8bit_size=0) for group in (params, twins))
    for _ in range(2):
        for param, other in zip(params, twins, strict=True):
            param.grad = torch.randn(64, 100)
            other.grad = param.grad.clone()
        optimizer.step()
        twin.step()
    part = optimizer._stepper.sweep._parts[0]
    real = part._sweep

    class Interrupted:
        def step(self, *args: Any) -> None:
            real.step(*args)
            signal.raise_signal(signal.SIGINT)

    part._sweep = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    twin.step()
    part._sweep = real
    for param, other in zip(params, twins, strict=True):
        assert torch.equal(param.detach(), other.detach())
        assert float(optimizer.state[param]["step"]) == 3


# ---- codes are no values


def grown(optimizer: Any, param: Parameter, more: torch.Tensor) -> tuple[Parameter, dict[str, Any]]:
    """A parameter with more rows in the place of `param`, as training of point clouds grows them."""
    state = optimizer.state.pop(param)
    larger = Parameter(torch.cat((param.detach(), more)))
    optimizer.param_groups[0]["params"][0] = larger
    return larger, state


def concatenated(entry: dict[str, Any], more: torch.Tensor) -> None:
    for key in ("exp_avg", "exp_avg_sq"):
        entry[key] = torch.cat((entry[key], more))


def concatenated_codes(entry: dict[str, Any], more: torch.Tensor) -> None:
    for key in ("exp_avg", "exp_avg_sq"):
        entry[key] = torch.cat((entry[key], more.to(torch.uint8)))


@pytest.mark.parametrize("name", ["Adam8bit", "PagedAdam8bit"])
@pytest.mark.parametrize("edit", [concatenated, concatenated_codes])
def test_codes_that_were_concatenated_are_refused_and_values_are_the_way(
    paging: Callable[..., Any], name: str, edit: Callable[..., None]
) -> None:
    paging(budget="128KiB")
    param, more = Parameter(torch.zeros(6000, 3)), torch.zeros(900, 3)
    optimizer = getattr(optim, name)([param], lr=0.01)
    param.grad = torch.randn_like(param)
    optimizer.step()
    values = optimizer.state_values(param)
    larger, entry = grown(optimizer, param, more)
    edit(entry, more)
    optimizer.state[larger] = entry
    larger.grad, before = torch.randn_like(larger), larger.detach().clone()
    with pytest.raises(CheckpointError, match=r"parameter 0 of group 0: exp_avg.*set_state_values"):
        optimizer.step()
    assert torch.equal(larger.detach(), before)
    larger_values = {key: torch.cat((values[key], more)) for key in ("exp_avg", "exp_avg_sq")}
    optimizer.set_state_values(larger, {"step": values["step"], **larger_values})
    optimizer.step()
    assert float((larger.detach() - before).abs().max()) < 0.02
    assert float(optimizer.state[larger]["step"]) == 2


def cast(entry: dict[str, Any]) -> None:
    entry["exp_avg"] = entry["exp_avg"].float()


def all_cast(entry: dict[str, Any]) -> None:
    for name in ("exp_avg", "exp_avg_sq"):
        entry[name] = entry[name].float()


def averaged(entry: dict[str, Any]) -> None:
    entry["exp_avg"] = (entry["exp_avg"].float() + entry["exp_avg"].flip(0).float()) / 2


def without_absmax(entry: dict[str, Any]) -> None:
    del entry["exp_avg_absmax"]


def sliced_absmax(entry: dict[str, Any]) -> None:
    entry["exp_avg_absmax"] = entry["exp_avg_absmax"][:-1]


def broken_absmax(entry: dict[str, Any]) -> None:
    entry["exp_avg_absmax"] = entry["exp_avg_absmax"].clone().fill_(float("nan"))


@pytest.mark.parametrize("way", ["in place", "load"])
@pytest.mark.parametrize("edit", [cast, all_cast, averaged, without_absmax, sliced_absmax, broken_absmax])
@pytest.mark.parametrize("target", ["AdamW8bit", "AdamW", "PagedAdamW"])
def test_codes_in_disguise_are_refused(
    paging: Callable[..., Any], target: str, edit: Callable[[dict[str, Any]], None], way: str
) -> None:
    paging(budget="128KiB")
    source = optim.AdamW8bit([Parameter(torch.ones(5000))], lr=0.01)
    source.param_groups[0]["params"][0].grad = torch.linspace(-1, 1, 5000)
    source.step()
    state = source.state_dict()
    state["state"][0] = dict(state["state"][0])
    edit(state["state"][0])
    param = Parameter(torch.ones(5000))
    param.grad = torch.ones(5000)
    optimizer = getattr(optim, target)([param], lr=0.01)
    if edit is broken_absmax and (target, way) == ("AdamW8bit", "in place"):
        pytest.skip("tensors that can serve as they are, are not read")
    if way == "in place":
        optimizer.state[param] = state["state"][0]
    use = {"in place": optimizer.step, "load": lambda: optimizer.load_state_dict(state)}[way]
    with pytest.raises(CheckpointError, match="parameter 0 of group 0: exp_avg"):
        use()
    assert torch.equal(param.detach(), torch.ones(5000))


def test_values_of_a_stranger_and_before_a_step() -> None:
    param = Parameter(torch.ones(3))
    optimizer = optim.AdamW([param])
    assert optimizer.state_values(param) == {}
    for other in (Parameter(torch.ones(3)), torch.ones(3)):
        with pytest.raises(KeyError, match="is not of this AdamW"):
            optimizer.state_values(other)
    with pytest.raises(PagedoptError, match="exp_avg has shape"):
        optimizer.set_state_values(param, {"step": 1, "exp_avg": torch.ones(4), "exp_avg_sq": torch.ones(3)})
    assert optimizer.state_values(param) == {}


def test_set_values_leave_what_else_there_is() -> None:
    param = Parameter(torch.ones(300))
    optimizer = optim.AdamW([param], lr=0.1, percentile_clipping=50)
    param.grad = torch.ones(300)
    optimizer.step()
    optimizer.state[param]["z"] = mine = torch.ones(300)
    norms = optimizer.state[param]["gnorm_history"].clone()
    values = optimizer.state_values(param)
    optimizer.set_state_values(param, {**values, "exp_avg": torch.zeros(300)})
    entry = optimizer.state[param]
    assert entry["z"] is mine
    assert torch.equal(entry["gnorm_history"], norms)
    assert not entry["exp_avg"].any()
    assert torch.equal(entry["exp_avg_sq"], values["exp_avg_sq"])
    assert float(entry["step"]) == 1
