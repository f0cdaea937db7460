"""Steps whose state is ordinary memory of the card, against the peers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from bench.samples import MissingError
from gpu.card import STATE_SHARE, managed_allowance
from gpu.predicted import of_copy
from gpu.run import Run, Timed, goal, ratio, share, side_by_side
from torch import Tensor

LR, DECAY = 1e-2, 1e-2
WARMUP = 3
STATE_BYTES = {"32": 8.0, "8": 2 + 8 / 256}
OF_COPY_32, OF_COPY_8, OF_TORCH, OF_BITSANDBYTES = 0.90, 0.80, 1.0, 2.0
CHECKED = 100_003

WIDTH, INNER, VOCABULARY = 4096, 11008, 32000
LLAMA_LAYERS = 32


def params_of(run: Run, shapes: list[tuple[int, ...]], dtype: torch.dtype) -> list[torch.nn.Parameter]:
    """Parameters with gradients, normal with 1, as no real ones are: every step moves them."""
    torch.manual_seed(1)
    made = []
    for shape in shapes:
        param = torch.nn.Parameter(torch.randn(shape, dtype=dtype, device=run.card.device))
        param.grad = torch.randn(shape, dtype=dtype, device=run.card.device)
        made.append(param)
    return made


def optimizer(module: str, kind: str, params: Sequence[Tensor], **arguments: Any) -> Any:
    try:
        return getattr(importlib.import_module(module), kind)(params, lr=LR, weight_decay=DECAY, **arguments)
    except (ImportError, AttributeError, OSError) as error:
        raise MissingError(f"{module}.{kind}: {type(error).__name__}: {error}") from error


def check_first_step(made: Any, params: Sequence[Tensor]) -> None:
    """A first step in float64, for a sample of each parameter and its last elements.

    Raises:
        MissingError: the optimizer is wrong, so that its speed means nothing.
    """
    worst = 0.0
    checked = [param for param in (*params[:4], *params[-1:]) if param.grad is not None]
    samples = [sample_of(param.detach()) for param in checked]
    grads = [param.grad for param in checked if param.grad is not None]
    before = [
        (param.flatten()[at].double(), grad.flatten()[at].double())
        for (param, at), grad in zip(samples, grads, strict=True)
    ]
    made.step()
    for (param, at), (value, grad) in zip(samples, before, strict=True):
        expected = value * (1 - LR * DECAY) - LR * grad / (grad.abs() + 1e-8)
        error = (param.flatten()[at].double() - expected).norm() / expected.norm()
        worst = max(worst, float(error))
        if not float((param.flatten()[at].double() != value).double().mean()) > 0.5:
            raise MissingError("its first step left most of the parameters as they were")
    limit = 3e-3 if params[0].dtype == torch.bfloat16 else 1e-6
    if not worst <= limit:
        raise MissingError(f"its first step is wrong: {worst:.2e} from float64, {limit:.0e} allowed")


def sample_of(param: Tensor) -> tuple[Tensor, Tensor]:
    numel = param.numel()
    strided = torch.arange(0, numel, max(1, numel // CHECKED), device=param.device)
    return param, torch.cat([strided, torch.arange(max(0, numel - 999), numel, device=param.device)])


def contender(
    name: str,
    module: str,
    kind: str,
    params: Sequence[Tensor],
    state: float,
    *,
    checked: bool = False,
    rounds: int = 1000,
    **arguments: Any,
) -> Timed:
    """A step of one optimizer over `params`; `state` is the bytes of an element's state."""

    def prepare() -> Callable[[], object]:
        made = optimizer(module, kind, params, **arguments)
        if checked:
            check_first_step(made, params)
        for _ in range(WARMUP):
            made.step()
        step: Callable[[], object] = made.step
        return step

    numel, item = sum(param.numel() for param in params), params[0].element_size()
    return Timed(name, prepare, int(numel * (3 * item + 2 * state)), rounds, repeats=4)


def peers(params: Sequence[Tensor]) -> list[Timed]:
    same = params[0].element_size() * 2  # torch keeps its state in the dtype of the parameter
    return [
        contender("pagedopt_adamw", "pagedopt.optim", "AdamW", params, STATE_BYTES["32"], checked=True),
        contender("pagedopt_adamw8bit", "pagedopt.optim", "AdamW8bit", params, STATE_BYTES["8"], checked=True),
        contender("torch_fused", "torch.optim", "AdamW", params, same, fused=True),
        contender("bitsandbytes_adamw", "bitsandbytes.optim", "AdamW", params, STATE_BYTES["32"]),
        contender("bitsandbytes_adamw8bit", "bitsandbytes.optim", "AdamW8bit", params, STATE_BYTES["8"]),
    ]


def numel_for(run: Run, full: int, bytes_each: float) -> int:
    """Elements such that all contenders' state takes no more than its share of the card."""
    most = int(STATE_SHARE * min(run.card.total_bytes, run.card.free_bytes) / bytes_each)
    return min(run.card.scaled(full, 300_000), most) // 256 * 256


def goals_of(run: Run, contenders: dict[str, Any], dtype: str) -> list[dict[str, Any]]:
    """torch's fused step moves as many bytes only where the parameters are float32; there it is a goal."""
    ours, ours_8bit, copy = "pagedopt_adamw", "pagedopt_adamw8bit", run.rate("copy")
    is_fused_alike = dtype == "float32"
    predicted = {bits: of_copy(run.card.name, dtype, bits) for bits in (32, 8)}
    shares = {32: share(contenders, ours, copy), 8: share(contenders, ours_8bit, copy)}
    return [
        goal("32-bit, of copy bandwidth", shares[32], at_least=OF_COPY_32, predicted=predicted[32]),
        goal("8-bit, of copy bandwidth", shares[8], at_least=OF_COPY_8, predicted=predicted[8]),
        goal(
            "32-bit, speed in that of torch fused" + ("" if is_fused_alike else " (14 bytes an element, ours 22)"),
            ratio(contenders, ours, "torch_fused"),
            at_least=OF_TORCH if is_fused_alike else None,
        ),
        goal(
            "8-bit, speed in that of bitsandbytes",
            ratio(contenders, ours_8bit, "bitsandbytes_adamw8bit"),
            at_least=OF_BITSANDBYTES,
        ),
    ]


def measure(run: Run, shapes: list[tuple[int, ...]], dtype: torch.dtype, seconds: float) -> dict[str, Any]:
    params = params_of(run, shapes, dtype)
    contenders = side_by_side(run, peers(params), 20, seconds)
    name = str(dtype).removeprefix("torch.")
    return {
        "numel": sum(param.numel() for param in params),
        "tensors": len(params),
        "dtype": name,
        "contenders": contenders,
        "goals": goals_of(run, contenders, name),
    }


def one_tensor(run: Run) -> dict[str, Any]:
    """A billion bfloat16 parameters in one tensor."""
    return measure(run, [(numel_for(run, 10**9, 24),)], torch.bfloat16, 15)


def one_tensor_f32(run: Run) -> dict[str, Any]:
    """The same in float32, where torch's fused step moves as many bytes."""
    return measure(run, [(numel_for(run, 10**9, 28),)], torch.float32, 15)


def llama_shapes(layers: int) -> list[tuple[int, ...]]:
    """The shapes of Llama-7B, with so many of its layers."""
    attention = [(WIDTH, WIDTH)] * 4
    layer = [*attention, (INNER, WIDTH), (INNER, WIDTH), (WIDTH, INNER), (WIDTH,), (WIDTH,)]
    return [(VOCABULARY, WIDTH), *layer * layers, (WIDTH,), (VOCABULARY, WIDTH)]


def llama(run: Run) -> dict[str, Any]:
    """The shapes of Llama-7B, as many layers as the contenders' state leaves room for."""
    if run.card.is_emulated:
        return {"layers": 0, **measure(run, [(257, 64), (64, 64), (64,), (5000,)], torch.bfloat16, 15)}
    layer, ends = (sum(torch.Size(shape).numel() for shape in llama_shapes(count)) for count in (1, 0))
    layers = min(LLAMA_LAYERS, (numel_for(run, 7 * 10**9, 24) - ends) // (layer - ends))
    if layers < 1:
        raise MissingError("the card is too small for a layer")
    return {"layers": layers, **measure(run, llama_shapes(layers), torch.bfloat16, 20)}


def small_tensors(run: Run) -> dict[str, Any]:
    """As many tensors as adapters and norms have: launches count there, and not bytes, so no bandwidth is a goal."""
    found = measure(run, [(10_240,)] * run.card.scaled(10_000, 20), torch.bfloat16, 10)
    return {**found, "goals": [one for one in found["goals"] if "copy bandwidth" not in one["name"]]}


def bitsandbytes_paged(run: Run) -> dict[str, Any]:
    """bitsandbytes' own managed memory, within the allowance; ours is closed meanwhile."""
    run.managed.close()
    allowed = managed_allowance(run.card.free_bytes)
    numel = min(numel_for(run, 10**9, 24), allowed // 3) // 256 * 256
    params = params_of(run, [(numel,)], torch.bfloat16)
    timed = [
        contender("pagedopt_adamw8bit", "pagedopt.optim", "AdamW8bit", params, STATE_BYTES["8"]),
        contender("bitsandbytes_paged_adamw8bit", "bitsandbytes.optim", "PagedAdamW8bit", params, STATE_BYTES["8"]),
    ]
    contenders = side_by_side(run, timed, 10, 10)
    reached = ratio(contenders, "pagedopt_adamw8bit", "bitsandbytes_paged_adamw8bit")
    name = "8-bit, speed in that of bitsandbytes paged, nothing moving"
    return {"numel": numel, "contenders": contenders, "goals": [goal(name, reached)]}


def torchao(run: Run) -> dict[str, Any]:
    """torchao compiles its step first, which takes its time."""
    params = params_of(run, [(numel_for(run, 10**9, 24),)], torch.bfloat16)
    timed = [
        contender("pagedopt_adamw8bit", "pagedopt.optim", "AdamW8bit", params, STATE_BYTES["8"]),
        contender("torchao_adamw8bit", "torchao.optim", "AdamW8bit", params, STATE_BYTES["8"]),
    ]
    contenders = side_by_side(run, timed, 10, 10)
    reached = ratio(contenders, "pagedopt_adamw8bit", "torchao_adamw8bit")
    return {"contenders": contenders, "goals": [goal("8-bit, speed in that of torchao", reached)]}
