"""Made by tools/make/optim_stub.py from the tables in rules.py and presets.py."""

# fmt: off

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from pagedopt.optim.export import bitsandbytes_state_dict as bitsandbytes_state_dict
from pagedopt.optim.fused import FusedBackward as FusedBackward
from pagedopt.optim.fused import fuse_backward as fuse_backward
from pagedopt.optim.manager import GlobalOptimManager as GlobalOptimManager
from pagedopt.optim.manager import keep_32bit as keep_32bit
from pagedopt.optim.muon import Muon as Muon
from pagedopt.optim.optimizer import RuleOptimizer
from pagedopt.optim.wrapped import Paged as Paged

__all__ = [
    "LAMB",
    "LAMB8",
    "LARS",
    "LARS8",
    "SGD",
    "SGD8",
    "AdEMAMix",
    "AdEMAMix8",
    "AdEMAMix8bit",
    "AdEMAMix32bit",
    "Adagrad",
    "Adagrad8",
    "Adagrad8bit",
    "Adagrad32bit",
    "Adam",
    "Adam8",
    "Adam8bit",
    "Adam32bit",
    "AdamW",
    "AdamW8",
    "AdamW8bit",
    "AdamW32bit",
    "FusedBackward",
    "GlobalOptimManager",
    "LAMB8bit",
    "LAMB32bit",
    "LARS8bit",
    "LARS32bit",
    "Lion",
    "Lion8",
    "Lion8bit",
    "Lion32bit",
    "Muon",
    "Muon8bit",
    "Muon32bit",
    "Paged",
    "PagedAdEMAMix",
    "PagedAdEMAMix8",
    "PagedAdEMAMix8bit",
    "PagedAdEMAMix32bit",
    "PagedAdagrad",
    "PagedAdagrad8",
    "PagedAdagrad8bit",
    "PagedAdagrad32bit",
    "PagedAdam",
    "PagedAdam8",
    "PagedAdam8bit",
    "PagedAdam32bit",
    "PagedAdamW",
    "PagedAdamW8",
    "PagedAdamW8bit",
    "PagedAdamW32bit",
    "PagedLAMB",
    "PagedLAMB8",
    "PagedLAMB8bit",
    "PagedLAMB32bit",
    "PagedLARS",
    "PagedLARS8",
    "PagedLARS8bit",
    "PagedLARS32bit",
    "PagedLion",
    "PagedLion8",
    "PagedLion8bit",
    "PagedLion32bit",
    "PagedMuon",
    "PagedMuon8bit",
    "PagedMuon32bit",
    "PagedRMSprop",
    "PagedRMSprop8",
    "PagedRMSprop8bit",
    "PagedRMSprop32bit",
    "PagedSGD",
    "PagedSGD8",
    "PagedSGD8bit",
    "PagedSGD32bit",
    "PytorchLARS",
    "RMSprop",
    "RMSprop8",
    "RMSprop8bit",
    "RMSprop32bit",
    "SGD8bit",
    "SGD32bit",
    "bitsandbytes_state_dict",
    "fuse_backward",
    "keep_32bit",
]

class Adam(RuleOptimizer):
    """Adam with coupled (L2) weight decay; state in ordinary memory, 32-bit unless `optim_bits=8`.

    The rule is that of https://arxiv.org/abs/1412.6980.

    Args:
        params: parameters, or dicts of parameter groups.
        lr: learning rate.
        betas: decay rates of the two moments, each in [0, 1).
        eps: added to the denominator.
        weight_decay: weight decay, added to the gradient unless decoupled.
        amsgrad: divide by the largest second moment so far (a third slot), in 32 and in 8 bits.
        optim_bits: bits of the state: 32 or 8. Also an option of parameter groups.
        args: a mapping or an object whose `optim_bits`, `min_8bit_size`, `percentile_clipping`, `block_wise`,
            `max_unorm` and `skip_zeros` replace the arguments of that name.
        min_8bit_size: parameters with fewer elements keep 32-bit state.
        percentile_clipping: scale each parameter's gradient to at most this percentile of the norms of its last
            100 steps; 100 is off.
        block_wise: one absmax for 256 elements of 8-bit state; False: one for the whole tensor.
        is_paged: whether the state lives in pages.
        maximize: ascend instead of descending.
        decoupled_weight_decay: decouple weight decay, as AdamW (and Adam of bitsandbytes) does.
        foreach: an argument of torch.optim, which changes nothing here.
        fused: an argument of torch.optim, which changes nothing here: a step is always fused.
        capturable: an argument of torch.optim; True is refused.
        differentiable: an argument of torch.optim; True is refused.
        paging: settings of the pager by name, the strongest source of them. They stay in force for the whole
            process, other paged optimizers included.

    Raises:
        ValueError: for a value that is not allowed or contradicts the class.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float =
        1e-08, weight_decay: float = 0.0, amsgrad: bool = False, optim_bits: int = 32, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, is_paged: bool = False, *,
        maximize: bool = False, decoupled_weight_decay: bool = False, foreach: bool | None = None, fused: bool | None =
        None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class Adam8bit(RuleOptimizer):
    """Adam with coupled (L2) weight decay; 8-bit state in ordinary memory.

    Arguments as of `Adam`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float =
        1e-08, weight_decay: float = 0.0, amsgrad: bool = False, optim_bits: int = 8, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, is_paged: bool = False, *,
        maximize: bool = False, decoupled_weight_decay: bool = False, foreach: bool | None = None, fused: bool | None =
        None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class Adam32bit(RuleOptimizer):
    """Adam with coupled (L2) weight decay; 32-bit state in ordinary memory.

    Arguments as of `Adam`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float =
        1e-08, weight_decay: float = 0.0, amsgrad: bool = False, optim_bits: int = 32, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, is_paged: bool = False, *,
        maximize: bool = False, decoupled_weight_decay: bool = False, foreach: bool | None = None, fused: bool | None =
        None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PagedAdam(RuleOptimizer):
    """Adam with coupled (L2) weight decay; state in pages that the pager moves, 32-bit unless `optim_bits=8`.

    Arguments as of `Adam`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float =
        1e-08, weight_decay: float = 0.0, amsgrad: bool = False, optim_bits: int = 32, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, is_paged: bool = True, *,
        maximize: bool = False, decoupled_weight_decay: bool = False, foreach: bool | None = None, fused: bool | None =
        None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PagedAdam8bit(RuleOptimizer):
    """Adam with coupled (L2) weight decay; 8-bit state in pages that the pager moves.

    Arguments as of `Adam`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float =
        1e-08, weight_decay: float = 0.0, amsgrad: bool = False, optim_bits: int = 8, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, is_paged: bool = True, *,
        maximize: bool = False, decoupled_weight_decay: bool = False, foreach: bool | None = None, fused: bool | None =
        None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PagedAdam32bit(RuleOptimizer):
    """Adam with coupled (L2) weight decay; 32-bit state in pages that the pager moves.

    Arguments as of `Adam`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float =
        1e-08, weight_decay: float = 0.0, amsgrad: bool = False, optim_bits: int = 32, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, is_paged: bool = True, *,
        maximize: bool = False, decoupled_weight_decay: bool = False, foreach: bool | None = None, fused: bool | None =
        None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class AdamW(RuleOptimizer):
    """Adam with decoupled weight decay; state in ordinary memory, 32-bit unless `optim_bits=8`.

    The rule is that of https://arxiv.org/abs/1711.05101.

    Args:
        params: parameters, or dicts of parameter groups.
        lr: learning rate.
        betas: decay rates of the two moments, each in [0, 1).
        eps: added to the denominator.
        weight_decay: weight decay, decoupled from the gradient.
        amsgrad: divide by the largest second moment so far (a third slot), in 32 and in 8 bits.
        optim_bits: bits of the state: 32 or 8. Also an option of parameter groups.
        args: a mapping or an object whose `optim_bits`, `min_8bit_size`, `percentile_clipping`, `block_wise`,
            `max_unorm` and `skip_zeros` replace the arguments of that name.
        min_8bit_size: parameters with fewer elements keep 32-bit state.
        percentile_clipping: scale each parameter's gradient to at most this percentile of the norms of its last
            100 steps; 100 is off.
        block_wise: one absmax for 256 elements of 8-bit state; False: one for the whole tensor.
        is_paged: whether the state lives in pages.
        maximize: ascend instead of descending.
        foreach: an argument of torch.optim, which changes nothing here.
        fused: an argument of torch.optim, which changes nothing here: a step is always fused.
        capturable: an argument of torch.optim; True is refused.
        differentiable: an argument of torch.optim; True is refused.
        paging: settings of the pager by name, the strongest source of them. They stay in force for the whole
            process, other paged optimizers included.

    Raises:
        ValueError: for a value that is not allowed or contradicts the class.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float =
        1e-08, weight_decay: float = 0.01, amsgrad: bool = False, optim_bits: int = 32, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, is_paged: bool = False, *,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class AdamW8bit(RuleOptimizer):
    """Adam with decoupled weight decay; 8-bit state in ordinary memory.

    Arguments as of `AdamW`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float =
        1e-08, weight_decay: float = 0.01, amsgrad: bool = False, optim_bits: int = 8, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, is_paged: bool = False, *,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class AdamW32bit(RuleOptimizer):
    """Adam with decoupled weight decay; 32-bit state in ordinary memory.

    Arguments as of `AdamW`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float =
        1e-08, weight_decay: float = 0.01, amsgrad: bool = False, optim_bits: int = 32, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, is_paged: bool = False, *,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PagedAdamW(RuleOptimizer):
    """Adam with decoupled weight decay; state in pages that the pager moves, 32-bit unless `optim_bits=8`.

    Arguments as of `AdamW`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float =
        1e-08, weight_decay: float = 0.01, amsgrad: bool = False, optim_bits: int = 32, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, is_paged: bool = True, *,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PagedAdamW8bit(RuleOptimizer):
    """Adam with decoupled weight decay; 8-bit state in pages that the pager moves.

    Arguments as of `AdamW`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float =
        1e-08, weight_decay: float = 0.01, amsgrad: bool = False, optim_bits: int = 8, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, is_paged: bool = True, *,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PagedAdamW32bit(RuleOptimizer):
    """Adam with decoupled weight decay; 32-bit state in pages that the pager moves.

    Arguments as of `AdamW`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float =
        1e-08, weight_decay: float = 0.01, amsgrad: bool = False, optim_bits: int = 32, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, is_paged: bool = True, *,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class Lion(RuleOptimizer):
    """Lion with decoupled weight decay; state in ordinary memory, 32-bit unless `optim_bits=8`.

    The rule is that of https://arxiv.org/abs/2302.06675.

    Args:
        params: parameters, or dicts of parameter groups.
        lr: learning rate.
        betas: how much of the moment the direction keeps, and how much the moment itself keeps, each in [0, 1).
        weight_decay: weight decay, decoupled from the gradient.
        optim_bits: bits of the state: 32 or 8. Also an option of parameter groups.
        args: a mapping or an object whose `optim_bits`, `min_8bit_size`, `percentile_clipping`, `block_wise`,
            `max_unorm` and `skip_zeros` replace the arguments of that name.
        min_8bit_size: parameters with fewer elements keep 32-bit state.
        percentile_clipping: scale each parameter's gradient to at most this percentile of the norms of its last
            100 steps; 100 is off.
        block_wise: one absmax for 256 elements of 8-bit state; False: one for the whole tensor.
        is_paged: whether the state lives in pages.
        maximize: ascend instead of descending.
        foreach: an argument of torch.optim, which changes nothing here.
        fused: an argument of torch.optim, which changes nothing here: a step is always fused.
        capturable: an argument of torch.optim; True is refused.
        differentiable: an argument of torch.optim; True is refused.
        paging: settings of the pager by name, the strongest source of them. They stay in force for the whole
            process, other paged optimizers included.

    Raises:
        ValueError: for a value that is not allowed or contradicts the class.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.0001, betas: tuple[float, float] = (0.9, 0.99), weight_decay:
        float = 0.0, optim_bits: int = 32, args: object = None, min_8bit_size: int = 4096, percentile_clipping: int =
        100, block_wise: bool = True, is_paged: bool = False, *, maximize: bool = False, foreach: bool | None = None,
        fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] |
        None = None
    ) -> None: ...

class Lion8bit(RuleOptimizer):
    """Lion with decoupled weight decay; 8-bit state in ordinary memory.

    Arguments as of `Lion`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.0001, betas: tuple[float, float] = (0.9, 0.99), weight_decay:
        float = 0.0, args: object = None, min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool =
        True, is_paged: bool = False, *, optim_bits: int = 8, maximize: bool = False, foreach: bool | None = None,
        fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] |
        None = None
    ) -> None: ...

class Lion32bit(RuleOptimizer):
    """Lion with decoupled weight decay; 32-bit state in ordinary memory.

    Arguments as of `Lion`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.0001, betas: tuple[float, float] = (0.9, 0.99), weight_decay:
        float = 0.0, args: object = None, min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool =
        True, is_paged: bool = False, *, optim_bits: int = 32, maximize: bool = False, foreach: bool | None = None,
        fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] |
        None = None
    ) -> None: ...

class PagedLion(RuleOptimizer):
    """Lion with decoupled weight decay; state in pages that the pager moves, 32-bit unless `optim_bits=8`.

    Arguments as of `Lion`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.0001, betas: tuple[float, float] = (0.9, 0.99), weight_decay:
        float = 0.0, optim_bits: int = 32, args: object = None, min_8bit_size: int = 4096, percentile_clipping: int =
        100, block_wise: bool = True, *, is_paged: bool = True, maximize: bool = False, foreach: bool | None = None,
        fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] |
        None = None
    ) -> None: ...

class PagedLion8bit(RuleOptimizer):
    """Lion with decoupled weight decay; 8-bit state in pages that the pager moves.

    Arguments as of `Lion`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.0001, betas: tuple[float, float] = (0.9, 0.99), weight_decay:
        float = 0.0, args: object = None, min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool =
        True, *, optim_bits: int = 8, is_paged: bool = True, maximize: bool = False, foreach: bool | None = None, fused:
        bool | None = None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] | None =
        None
    ) -> None: ...

class PagedLion32bit(RuleOptimizer):
    """Lion with decoupled weight decay; 32-bit state in pages that the pager moves.

    Arguments as of `Lion`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.0001, betas: tuple[float, float] = (0.9, 0.99), weight_decay:
        float = 0.0, args: object = None, min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool =
        True, *, optim_bits: int = 32, is_paged: bool = True, maximize: bool = False, foreach: bool | None = None,
        fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] |
        None = None
    ) -> None: ...

class SGD(RuleOptimizer):
    """SGD, with momentum or without; state in ordinary memory, 32-bit unless `optim_bits=8`.

    The rule is that of torch.optim.SGD.

    Args:
        params: parameters, or dicts of parameter groups.
        lr: learning rate.
        momentum: how much of the last step's buffer is kept; 0: there is no buffer.
        dampening: the gradient enters the buffer times 1 - dampening; the first one, whole.
        weight_decay: weight decay, added to the gradient.
        nesterov: Nesterov's momentum; it needs momentum above 0 and no dampening.
        optim_bits: bits of the state: 32 or 8. Also an option of parameter groups.
        args: a mapping or an object whose `optim_bits`, `min_8bit_size`, `percentile_clipping`, `block_wise`,
            `max_unorm` and `skip_zeros` replace the arguments of that name.
        min_8bit_size: parameters with fewer elements keep 32-bit state.
        percentile_clipping: scale each parameter's gradient to at most this percentile of the norms of its last
            100 steps; 100 is off.
        block_wise: one absmax for 256 elements of 8-bit state; False: one for the whole tensor.
        is_paged: whether the state lives in pages.
        maximize: ascend instead of descending.
        foreach: an argument of torch.optim, which changes nothing here.
        fused: an argument of torch.optim, which changes nothing here: a step is always fused.
        capturable: an argument of torch.optim; True is refused.
        differentiable: an argument of torch.optim; True is refused.
        paging: settings of the pager by name, the strongest source of them. They stay in force for the whole
            process, other paged optimizers included.

    Raises:
        ValueError: for a value that is not allowed or contradicts the class.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, momentum: float = 0.0, dampening: float = 0.0, weight_decay:
        float = 0.0, nesterov: bool = False, optim_bits: int = 32, args: object = None, min_8bit_size: int = 4096,
        percentile_clipping: int = 100, block_wise: bool = True, *, is_paged: bool = False, maximize: bool = False,
        foreach: bool | None = None, fused: bool | None = None, capturable: bool = False, differentiable: bool = False,
        paging: Mapping[str, Any] | None = None
    ) -> None: ...

class SGD8bit(RuleOptimizer):
    """SGD, with momentum or without; 8-bit state in ordinary memory.

    Arguments as of `SGD`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, momentum: float = 0.0, dampening: float = 0.0, weight_decay:
        float = 0.0, nesterov: bool = False, args: object = None, min_8bit_size: int = 4096, percentile_clipping: int =
        100, block_wise: bool = True, *, optim_bits: int = 8, is_paged: bool = False, maximize: bool = False, foreach:
        bool | None = None, fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging:
        Mapping[str, Any] | None = None
    ) -> None: ...

class SGD32bit(RuleOptimizer):
    """SGD, with momentum or without; 32-bit state in ordinary memory.

    Arguments as of `SGD`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, momentum: float = 0.0, dampening: float = 0.0, weight_decay:
        float = 0.0, nesterov: bool = False, args: object = None, min_8bit_size: int = 4096, percentile_clipping: int =
        100, block_wise: bool = True, *, optim_bits: int = 32, is_paged: bool = False, maximize: bool = False, foreach:
        bool | None = None, fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging:
        Mapping[str, Any] | None = None
    ) -> None: ...

class PagedSGD(RuleOptimizer):
    """SGD, with momentum or without; state in pages that the pager moves, 32-bit unless `optim_bits=8`.

    Arguments as of `SGD`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, momentum: float = 0.0, dampening: float = 0.0, weight_decay:
        float = 0.0, nesterov: bool = False, optim_bits: int = 32, args: object = None, min_8bit_size: int = 4096,
        percentile_clipping: int = 100, block_wise: bool = True, *, is_paged: bool = True, maximize: bool = False,
        foreach: bool | None = None, fused: bool | None = None, capturable: bool = False, differentiable: bool = False,
        paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PagedSGD8bit(RuleOptimizer):
    """SGD, with momentum or without; 8-bit state in pages that the pager moves.

    Arguments as of `SGD`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, momentum: float = 0.0, dampening: float = 0.0, weight_decay:
        float = 0.0, nesterov: bool = False, args: object = None, min_8bit_size: int = 4096, percentile_clipping: int =
        100, block_wise: bool = True, *, optim_bits: int = 8, is_paged: bool = True, maximize: bool = False, foreach:
        bool | None = None, fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging:
        Mapping[str, Any] | None = None
    ) -> None: ...

class PagedSGD32bit(RuleOptimizer):
    """SGD, with momentum or without; 32-bit state in pages that the pager moves.

    Arguments as of `SGD`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, momentum: float = 0.0, dampening: float = 0.0, weight_decay:
        float = 0.0, nesterov: bool = False, args: object = None, min_8bit_size: int = 4096, percentile_clipping: int =
        100, block_wise: bool = True, *, optim_bits: int = 32, is_paged: bool = True, maximize: bool = False, foreach:
        bool | None = None, fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging:
        Mapping[str, Any] | None = None
    ) -> None: ...

class RMSprop(RuleOptimizer):
    """RMSprop, with momentum or centered or both; state in ordinary memory, 32-bit unless `optim_bits=8`.

    The rule is that of torch.optim.RMSprop.

    Args:
        params: parameters, or dicts of parameter groups.
        lr: learning rate.
        alpha: decay rate of the averages, in [0, 1).
        eps: added to the denominator.
        weight_decay: weight decay, added to the gradient.
        momentum: how much of the last step's buffer is kept; 0: there is no buffer.
        centered: divide by the standard deviation of the gradient (a slot for its mean); in 32 bits alone.
        optim_bits: bits of the state: 32 or 8. Also an option of parameter groups.
        args: a mapping or an object whose `optim_bits`, `min_8bit_size`, `percentile_clipping`, `block_wise`,
            `max_unorm` and `skip_zeros` replace the arguments of that name.
        min_8bit_size: parameters with fewer elements keep 32-bit state.
        percentile_clipping: scale each parameter's gradient to at most this percentile of the norms of its last
            100 steps; 100 is off.
        block_wise: one absmax for 256 elements of 8-bit state; False: one for the whole tensor.
        is_paged: whether the state lives in pages.
        maximize: ascend instead of descending.
        foreach: an argument of torch.optim, which changes nothing here.
        fused: an argument of torch.optim, which changes nothing here: a step is always fused.
        capturable: an argument of torch.optim; True is refused.
        differentiable: an argument of torch.optim; True is refused.
        paging: settings of the pager by name, the strongest source of them. They stay in force for the whole
            process, other paged optimizers included.

    Raises:
        ValueError: for a value that is not allowed or contradicts the class.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.01, alpha: float = 0.99, eps: float = 1e-08, weight_decay: float =
        0.0, momentum: float = 0.0, centered: bool = False, optim_bits: int = 32, args: object = None, min_8bit_size:
        int = 4096, percentile_clipping: int = 100, block_wise: bool = True, *, is_paged: bool = False, maximize: bool =
        False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False, differentiable: bool =
        False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class RMSprop8bit(RuleOptimizer):
    """RMSprop, with momentum or centered or both; 8-bit state in ordinary memory.

    Arguments as of `RMSprop`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.01, alpha: float = 0.99, eps: float = 1e-08, weight_decay: float =
        0.0, momentum: float = 0.0, centered: bool = False, args: object = None, min_8bit_size: int = 4096,
        percentile_clipping: int = 100, block_wise: bool = True, *, optim_bits: int = 8, is_paged: bool = False,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class RMSprop32bit(RuleOptimizer):
    """RMSprop, with momentum or centered or both; 32-bit state in ordinary memory.

    Arguments as of `RMSprop`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.01, alpha: float = 0.99, eps: float = 1e-08, weight_decay: float =
        0.0, momentum: float = 0.0, centered: bool = False, args: object = None, min_8bit_size: int = 4096,
        percentile_clipping: int = 100, block_wise: bool = True, *, optim_bits: int = 32, is_paged: bool = False,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PagedRMSprop(RuleOptimizer):
    """RMSprop, with momentum or centered or both; state in pages that the pager moves, 32-bit unless `optim_bits=8`.

    Arguments as of `RMSprop`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.01, alpha: float = 0.99, eps: float = 1e-08, weight_decay: float =
        0.0, momentum: float = 0.0, centered: bool = False, optim_bits: int = 32, args: object = None, min_8bit_size:
        int = 4096, percentile_clipping: int = 100, block_wise: bool = True, *, is_paged: bool = True, maximize: bool =
        False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False, differentiable: bool =
        False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PagedRMSprop8bit(RuleOptimizer):
    """RMSprop, with momentum or centered or both; 8-bit state in pages that the pager moves.

    Arguments as of `RMSprop`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.01, alpha: float = 0.99, eps: float = 1e-08, weight_decay: float =
        0.0, momentum: float = 0.0, centered: bool = False, args: object = None, min_8bit_size: int = 4096,
        percentile_clipping: int = 100, block_wise: bool = True, *, optim_bits: int = 8, is_paged: bool = True,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PagedRMSprop32bit(RuleOptimizer):
    """RMSprop, with momentum or centered or both; 32-bit state in pages that the pager moves.

    Arguments as of `RMSprop`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.01, alpha: float = 0.99, eps: float = 1e-08, weight_decay: float =
        0.0, momentum: float = 0.0, centered: bool = False, args: object = None, min_8bit_size: int = 4096,
        percentile_clipping: int = 100, block_wise: bool = True, *, optim_bits: int = 32, is_paged: bool = True,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class Adagrad(RuleOptimizer):
    """Adagrad; state in ordinary memory, 32-bit unless `optim_bits=8`.

    The rule is that of https://jmlr.org/papers/v12/duchi11a.html, as torch.optim.Adagrad has it.

    Args:
        params: parameters, or dicts of parameter groups.
        lr: learning rate.
        lr_decay: step t has the learning rate lr / (1 + (t - 1) lr_decay).
        weight_decay: weight decay, added to the gradient.
        initial_accumulator_value: what the sum of squares starts at.
        eps: added to the denominator.
        optim_bits: bits of the state: 32 or 8. Also an option of parameter groups.
        args: a mapping or an object whose `optim_bits`, `min_8bit_size`, `percentile_clipping`, `block_wise`,
            `max_unorm` and `skip_zeros` replace the arguments of that name.
        min_8bit_size: parameters with fewer elements keep 32-bit state.
        percentile_clipping: scale each parameter's gradient to at most this percentile of the norms of its last
            100 steps; 100 is off.
        block_wise: one absmax for 256 elements of 8-bit state; False: one for the whole tensor.
        is_paged: whether the state lives in pages.
        maximize: ascend instead of descending.
        foreach: an argument of torch.optim, which changes nothing here.
        fused: an argument of torch.optim, which changes nothing here: a step is always fused.
        capturable: an argument of torch.optim; True is refused.
        differentiable: an argument of torch.optim; True is refused.
        paging: settings of the pager by name, the strongest source of them. They stay in force for the whole
            process, other paged optimizers included.

    Raises:
        ValueError: for a value that is not allowed or contradicts the class.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.01, lr_decay: float = 0.0, weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0, eps: float = 1e-10, optim_bits: int = 32, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, *, is_paged: bool = False,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class Adagrad8bit(RuleOptimizer):
    """Adagrad; 8-bit state in ordinary memory.

    Arguments as of `Adagrad`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.01, lr_decay: float = 0.0, weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0, eps: float = 1e-10, optim_bits: int = 8, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, *, is_paged: bool = False,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class Adagrad32bit(RuleOptimizer):
    """Adagrad; 32-bit state in ordinary memory.

    Arguments as of `Adagrad`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.01, lr_decay: float = 0.0, weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0, eps: float = 1e-10, optim_bits: int = 32, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, *, is_paged: bool = False,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PagedAdagrad(RuleOptimizer):
    """Adagrad; state in pages that the pager moves, 32-bit unless `optim_bits=8`.

    Arguments as of `Adagrad`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.01, lr_decay: float = 0.0, weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0, eps: float = 1e-10, optim_bits: int = 32, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, *, is_paged: bool = True,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PagedAdagrad8bit(RuleOptimizer):
    """Adagrad; 8-bit state in pages that the pager moves.

    Arguments as of `Adagrad`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.01, lr_decay: float = 0.0, weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0, eps: float = 1e-10, optim_bits: int = 8, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, *, is_paged: bool = True,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PagedAdagrad32bit(RuleOptimizer):
    """Adagrad; 32-bit state in pages that the pager moves.

    Arguments as of `Adagrad`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.01, lr_decay: float = 0.0, weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0, eps: float = 1e-10, optim_bits: int = 32, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, *, is_paged: bool = True,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class AdEMAMix(RuleOptimizer):
    """AdEMAMix with decoupled weight decay; state in ordinary memory, 32-bit unless `optim_bits=8`.

    The rule is that of https://arxiv.org/abs/2409.03137.

    Args:
        params: parameters, or dicts of parameter groups.
        lr: learning rate.
        betas: decay rates of the fast, the second and the slow moment, each in [0, 1).
        alpha: weight of the slow moment.
        t_alpha: steps over which alpha grows from 0; None or 0: it has its value at once.
        t_beta3: steps over which the slow moment's decay rate grows from the first's; None or 0: it has its
            value at once.
        eps: added to the denominator.
        weight_decay: weight decay, decoupled from the gradient.
        optim_bits: bits of the state: 32 or 8. Also an option of parameter groups.
        min_8bit_size: parameters with fewer elements keep 32-bit state.
        is_paged: whether the state lives in pages.
        args: a mapping or an object whose `optim_bits`, `min_8bit_size`, `percentile_clipping`, `block_wise`,
            `max_unorm` and `skip_zeros` replace the arguments of that name.
        percentile_clipping: scale each parameter's gradient to at most this percentile of the norms of its last
            100 steps; 100 is off.
        block_wise: one absmax for 256 elements of 8-bit state; False: one for the whole tensor.
        maximize: ascend instead of descending.
        foreach: an argument of torch.optim, which changes nothing here.
        fused: an argument of torch.optim, which changes nothing here: a step is always fused.
        capturable: an argument of torch.optim; True is refused.
        differentiable: an argument of torch.optim; True is refused.
        paging: settings of the pager by name, the strongest source of them. They stay in force for the whole
            process, other paged optimizers included.

    Raises:
        ValueError: for a value that is not allowed or contradicts the class.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0, t_alpha: int | None = None, t_beta3: int | None = None, eps: float = 1e-08, weight_decay:
        float = 0.01, optim_bits: int = 32, min_8bit_size: int = 4096, is_paged: bool = False, *, args: object = None,
        percentile_clipping: int = 100, block_wise: bool = True, maximize: bool = False, foreach: bool | None = None,
        fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] |
        None = None
    ) -> None: ...

class AdEMAMix8bit(RuleOptimizer):
    """AdEMAMix with decoupled weight decay; 8-bit state in ordinary memory.

    Arguments as of `AdEMAMix`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0, t_alpha: int | None = None, t_beta3: int | None = None, eps: float = 1e-08, weight_decay:
        float = 0.01, min_8bit_size: int = 4096, is_paged: bool = False, *, optim_bits: int = 8, args: object = None,
        percentile_clipping: int = 100, block_wise: bool = True, maximize: bool = False, foreach: bool | None = None,
        fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] |
        None = None
    ) -> None: ...

class AdEMAMix32bit(RuleOptimizer):
    """AdEMAMix with decoupled weight decay; 32-bit state in ordinary memory.

    Arguments as of `AdEMAMix`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0, t_alpha: int | None = None, t_beta3: int | None = None, eps: float = 1e-08, weight_decay:
        float = 0.01, min_8bit_size: int = 4096, is_paged: bool = False, *, optim_bits: int = 32, args: object = None,
        percentile_clipping: int = 100, block_wise: bool = True, maximize: bool = False, foreach: bool | None = None,
        fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] |
        None = None
    ) -> None: ...

class PagedAdEMAMix(RuleOptimizer):
    """AdEMAMix with decoupled weight decay; state in pages that the pager moves, 32-bit unless `optim_bits=8`.

    Arguments as of `AdEMAMix`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0, t_alpha: int | None = None, t_beta3: int | None = None, eps: float = 1e-08, weight_decay:
        float = 0.01, optim_bits: int = 32, min_8bit_size: int = 4096, *, args: object = None, percentile_clipping: int
        = 100, block_wise: bool = True, is_paged: bool = True, maximize: bool = False, foreach: bool | None = None,
        fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] |
        None = None
    ) -> None: ...

class PagedAdEMAMix8bit(RuleOptimizer):
    """AdEMAMix with decoupled weight decay; 8-bit state in pages that the pager moves.

    Arguments as of `AdEMAMix`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0, t_alpha: int | None = None, t_beta3: int | None = None, eps: float = 1e-08, weight_decay:
        float = 0.01, min_8bit_size: int = 4096, *, optim_bits: int = 8, args: object = None, percentile_clipping: int =
        100, block_wise: bool = True, is_paged: bool = True, maximize: bool = False, foreach: bool | None = None, fused:
        bool | None = None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] | None =
        None
    ) -> None: ...

class PagedAdEMAMix32bit(RuleOptimizer):
    """AdEMAMix with decoupled weight decay; 32-bit state in pages that the pager moves.

    Arguments as of `AdEMAMix`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0, t_alpha: int | None = None, t_beta3: int | None = None, eps: float = 1e-08, weight_decay:
        float = 0.01, min_8bit_size: int = 4096, *, optim_bits: int = 32, args: object = None, percentile_clipping: int
        = 100, block_wise: bool = True, is_paged: bool = True, maximize: bool = False, foreach: bool | None = None,
        fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging: Mapping[str, Any] |
        None = None
    ) -> None: ...

class LAMB(RuleOptimizer):
    """LAMB, which bounds the norm of updates; state in ordinary memory, 32-bit unless `optim_bits=8`.

    The rule is that of LAMB in bitsandbytes; that of https://arxiv.org/abs/1904.00962 sets the norm.

    Args:
        params: parameters, or dicts of parameter groups.
        lr: learning rate.
        bias_correction: correct the moments for having started at zero.
        betas: decay rates of the two moments, each in [0, 1).
        eps: added to the denominator.
        weight_decay: weight decay, added to the gradient unless decoupled.
        amsgrad: divide by the largest second moment so far (a third slot), in 32 and in 8 bits.
        adam_w_mode: decouple weight decay; the option of groups is `decoupled_weight_decay`.
        optim_bits: bits of the state: 32 or 8. Also an option of parameter groups.
        args: a mapping or an object whose `optim_bits`, `min_8bit_size`, `percentile_clipping`, `block_wise`,
            `max_unorm` and `skip_zeros` replace the arguments of that name.
        min_8bit_size: parameters with fewer elements keep 32-bit state.
        max_unorm: hold the norm of each parameter's update, without the learning rate, to this times the norm of
            the parameter; 0 is off.
        percentile_clipping: scale each parameter's gradient to at most this percentile of the norms of its last
            100 steps; 100 is off.
        block_wise: one absmax for 256 elements of 8-bit state; False: one for the whole tensor.
        is_paged: whether the state lives in pages.
        maximize: ascend instead of descending.
        foreach: an argument of torch.optim, which changes nothing here.
        fused: an argument of torch.optim, which changes nothing here: a step is always fused.
        capturable: an argument of torch.optim; True is refused.
        differentiable: an argument of torch.optim; True is refused.
        paging: settings of the pager by name, the strongest source of them. They stay in force for the whole
            process, other paged optimizers included.

    Raises:
        ValueError: for a value that is not allowed or contradicts the class.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, bias_correction: bool = True, betas: tuple[float, float] =
        (0.9, 0.999), eps: float = 1e-08, weight_decay: float = 0.0, amsgrad: bool = False, adam_w_mode: bool = True,
        optim_bits: int = 32, args: object = None, min_8bit_size: int = 4096, max_unorm: float = 1.0,
        percentile_clipping: int = 100, block_wise: bool = True, *, is_paged: bool = False, maximize: bool = False,
        foreach: bool | None = None, fused: bool | None = None, capturable: bool = False, differentiable: bool = False,
        paging: Mapping[str, Any] | None = None
    ) -> None: ...

class LAMB8bit(RuleOptimizer):
    """LAMB, which bounds the norm of updates; 8-bit state in ordinary memory.

    Arguments as of `LAMB`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, bias_correction: bool = True, betas: tuple[float, float] =
        (0.9, 0.999), eps: float = 1e-08, weight_decay: float = 0.0, amsgrad: bool = False, adam_w_mode: bool = True,
        args: object = None, min_8bit_size: int = 4096, max_unorm: float = 1.0, percentile_clipping: int = 100,
        block_wise: bool = True, *, optim_bits: int = 8, is_paged: bool = False, maximize: bool = False, foreach: bool |
        None = None, fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging:
        Mapping[str, Any] | None = None
    ) -> None: ...

class LAMB32bit(RuleOptimizer):
    """LAMB, which bounds the norm of updates; 32-bit state in ordinary memory.

    Arguments as of `LAMB`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, bias_correction: bool = True, betas: tuple[float, float] =
        (0.9, 0.999), eps: float = 1e-08, weight_decay: float = 0.0, amsgrad: bool = False, adam_w_mode: bool = True,
        args: object = None, min_8bit_size: int = 4096, max_unorm: float = 1.0, percentile_clipping: int = 100,
        block_wise: bool = True, *, optim_bits: int = 32, is_paged: bool = False, maximize: bool = False, foreach: bool
        | None = None, fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging:
        Mapping[str, Any] | None = None
    ) -> None: ...

class PagedLAMB(RuleOptimizer):
    """LAMB, which bounds the norm of updates; state in pages that the pager moves, 32-bit unless `optim_bits=8`.

    Arguments as of `LAMB`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, bias_correction: bool = True, betas: tuple[float, float] =
        (0.9, 0.999), eps: float = 1e-08, weight_decay: float = 0.0, amsgrad: bool = False, adam_w_mode: bool = True,
        optim_bits: int = 32, args: object = None, min_8bit_size: int = 4096, max_unorm: float = 1.0,
        percentile_clipping: int = 100, block_wise: bool = True, *, is_paged: bool = True, maximize: bool = False,
        foreach: bool | None = None, fused: bool | None = None, capturable: bool = False, differentiable: bool = False,
        paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PagedLAMB8bit(RuleOptimizer):
    """LAMB, which bounds the norm of updates; 8-bit state in pages that the pager moves.

    Arguments as of `LAMB`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, bias_correction: bool = True, betas: tuple[float, float] =
        (0.9, 0.999), eps: float = 1e-08, weight_decay: float = 0.0, amsgrad: bool = False, adam_w_mode: bool = True,
        args: object = None, min_8bit_size: int = 4096, max_unorm: float = 1.0, percentile_clipping: int = 100,
        block_wise: bool = True, *, optim_bits: int = 8, is_paged: bool = True, maximize: bool = False, foreach: bool |
        None = None, fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging:
        Mapping[str, Any] | None = None
    ) -> None: ...

class PagedLAMB32bit(RuleOptimizer):
    """LAMB, which bounds the norm of updates; 32-bit state in pages that the pager moves.

    Arguments as of `LAMB`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, bias_correction: bool = True, betas: tuple[float, float] =
        (0.9, 0.999), eps: float = 1e-08, weight_decay: float = 0.0, amsgrad: bool = False, adam_w_mode: bool = True,
        args: object = None, min_8bit_size: int = 4096, max_unorm: float = 1.0, percentile_clipping: int = 100,
        block_wise: bool = True, *, optim_bits: int = 32, is_paged: bool = True, maximize: bool = False, foreach: bool |
        None = None, fused: bool | None = None, capturable: bool = False, differentiable: bool = False, paging:
        Mapping[str, Any] | None = None
    ) -> None: ...

class LARS(RuleOptimizer):
    """LARS, which bounds the norm of updates; state in ordinary memory, 32-bit unless `optim_bits=8`.

    The rule is that of LARS in bitsandbytes; that of https://arxiv.org/abs/1708.03888 sets the norm.

    Args:
        params: parameters, or dicts of parameter groups.
        lr: learning rate.
        momentum: how much of the last step's buffer is kept; 0: there is no buffer.
        dampening: the gradient enters the buffer times 1 - dampening; the first one, whole.
        weight_decay: weight decay, added to the gradient.
        nesterov: Nesterov's momentum; it needs momentum above 0 and no dampening.
        optim_bits: bits of the state: 32 or 8. Also an option of parameter groups.
        args: a mapping or an object whose `optim_bits`, `min_8bit_size`, `percentile_clipping`, `block_wise`,
            `max_unorm` and `skip_zeros` replace the arguments of that name.
        min_8bit_size: parameters with fewer elements keep 32-bit state.
        max_unorm: hold the norm of each parameter's update, without the learning rate, to this times the norm of
            the parameter; 0 is off.
        percentile_clipping: scale each parameter's gradient to at most this percentile of the norms of its last
            100 steps; 100 is off.
        block_wise: one absmax for 256 elements of 8-bit state; False: one for the whole tensor.
        is_paged: whether the state lives in pages.
        maximize: ascend instead of descending.
        foreach: an argument of torch.optim, which changes nothing here.
        fused: an argument of torch.optim, which changes nothing here: a step is always fused.
        capturable: an argument of torch.optim; True is refused.
        differentiable: an argument of torch.optim; True is refused.
        paging: settings of the pager by name, the strongest source of them. They stay in force for the whole
            process, other paged optimizers included.

    Raises:
        ValueError: for a value that is not allowed or contradicts the class.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, momentum: float = 0.0, dampening: float = 0.0, weight_decay:
        float = 0.0, nesterov: bool = False, optim_bits: int = 32, args: object = None, min_8bit_size: int = 4096,
        max_unorm: float = 0.02, percentile_clipping: int = 100, block_wise: bool = True, *, is_paged: bool = False,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class LARS8bit(RuleOptimizer):
    """LARS, which bounds the norm of updates; 8-bit state in ordinary memory.

    Arguments as of `LARS`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, momentum: float = 0.0, dampening: float = 0.0, weight_decay:
        float = 0.0, nesterov: bool = False, args: object = None, min_8bit_size: int = 4096, max_unorm: float = 0.02,
        percentile_clipping: int = 100, block_wise: bool = True, *, optim_bits: int = 8, is_paged: bool = False,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class LARS32bit(RuleOptimizer):
    """LARS, which bounds the norm of updates; 32-bit state in ordinary memory.

    Arguments as of `LARS`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, momentum: float = 0.0, dampening: float = 0.0, weight_decay:
        float = 0.0, nesterov: bool = False, args: object = None, min_8bit_size: int = 4096, max_unorm: float = 0.02,
        percentile_clipping: int = 100, block_wise: bool = True, *, optim_bits: int = 32, is_paged: bool = False,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PagedLARS(RuleOptimizer):
    """LARS, which bounds the norm of updates; state in pages that the pager moves, 32-bit unless `optim_bits=8`.

    Arguments as of `LARS`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, momentum: float = 0.0, dampening: float = 0.0, weight_decay:
        float = 0.0, nesterov: bool = False, optim_bits: int = 32, args: object = None, min_8bit_size: int = 4096,
        max_unorm: float = 0.02, percentile_clipping: int = 100, block_wise: bool = True, *, is_paged: bool = True,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PagedLARS8bit(RuleOptimizer):
    """LARS, which bounds the norm of updates; 8-bit state in pages that the pager moves.

    Arguments as of `LARS`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, momentum: float = 0.0, dampening: float = 0.0, weight_decay:
        float = 0.0, nesterov: bool = False, args: object = None, min_8bit_size: int = 4096, max_unorm: float = 0.02,
        percentile_clipping: int = 100, block_wise: bool = True, *, optim_bits: int = 8, is_paged: bool = True,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PagedLARS32bit(RuleOptimizer):
    """LARS, which bounds the norm of updates; 32-bit state in pages that the pager moves.

    Arguments as of `LARS`.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.001, momentum: float = 0.0, dampening: float = 0.0, weight_decay:
        float = 0.0, nesterov: bool = False, args: object = None, min_8bit_size: int = 4096, max_unorm: float = 0.02,
        percentile_clipping: int = 100, block_wise: bool = True, *, optim_bits: int = 32, is_paged: bool = True,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class PytorchLARS(RuleOptimizer):
    """LARS, which bounds the norm of updates; state in ordinary memory, 32-bit unless `optim_bits=8`.

    The rule is that of LARS in bitsandbytes; that of https://arxiv.org/abs/1708.03888 sets the norm.

    Args:
        params: parameters, or dicts of parameter groups.
        lr: learning rate.
        momentum: how much of the last step's buffer is kept; 0: there is no buffer.
        dampening: the gradient enters the buffer times 1 - dampening; the first one, whole.
        weight_decay: weight decay, added to the gradient.
        nesterov: Nesterov's momentum; it needs momentum above 0 and no dampening.
        max_unorm: hold the norm of each parameter's update, without the learning rate, to this times the norm of
            the parameter; 0 is off.
        optim_bits: bits of the state: 32 or 8. Also an option of parameter groups.
        args: a mapping or an object whose `optim_bits`, `min_8bit_size`, `percentile_clipping`, `block_wise`,
            `max_unorm` and `skip_zeros` replace the arguments of that name.
        min_8bit_size: parameters with fewer elements keep 32-bit state.
        percentile_clipping: scale each parameter's gradient to at most this percentile of the norms of its last
            100 steps; 100 is off.
        block_wise: one absmax for 256 elements of 8-bit state; False: one for the whole tensor.
        is_paged: whether the state lives in pages.
        maximize: ascend instead of descending.
        foreach: an argument of torch.optim, which changes nothing here.
        fused: an argument of torch.optim, which changes nothing here: a step is always fused.
        capturable: an argument of torch.optim; True is refused.
        differentiable: an argument of torch.optim; True is refused.
        paging: settings of the pager by name, the strongest source of them. They stay in force for the whole
            process, other paged optimizers included.

    Raises:
        ValueError: for a value that is not allowed or contradicts the class.
    """
    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.01, momentum: float = 0.0, dampening: float = 0.0, weight_decay:
        float = 0.0, nesterov: bool = False, max_unorm: float = 0.02, *, optim_bits: int = 32, args: object = None,
        min_8bit_size: int = 4096, percentile_clipping: int = 100, block_wise: bool = True, is_paged: bool = False,
        maximize: bool = False, foreach: bool | None = None, fused: bool | None = None, capturable: bool = False,
        differentiable: bool = False, paging: Mapping[str, Any] | None = None
    ) -> None: ...

class Adam8(Adam8bit):
    """Adam8bit under a name that does not end in `8bit`."""

class PagedAdam8(PagedAdam8bit):
    """PagedAdam8bit under a name that does not end in `8bit`."""

class AdamW8(AdamW8bit):
    """AdamW8bit under a name that does not end in `8bit`."""

class PagedAdamW8(PagedAdamW8bit):
    """PagedAdamW8bit under a name that does not end in `8bit`."""

class Lion8(Lion8bit):
    """Lion8bit under a name that does not end in `8bit`."""

class PagedLion8(PagedLion8bit):
    """PagedLion8bit under a name that does not end in `8bit`."""

class SGD8(SGD8bit):
    """SGD8bit under a name that does not end in `8bit`."""

class PagedSGD8(PagedSGD8bit):
    """PagedSGD8bit under a name that does not end in `8bit`."""

class RMSprop8(RMSprop8bit):
    """RMSprop8bit under a name that does not end in `8bit`."""

class PagedRMSprop8(PagedRMSprop8bit):
    """PagedRMSprop8bit under a name that does not end in `8bit`."""

class Adagrad8(Adagrad8bit):
    """Adagrad8bit under a name that does not end in `8bit`."""

class PagedAdagrad8(PagedAdagrad8bit):
    """PagedAdagrad8bit under a name that does not end in `8bit`."""

class AdEMAMix8(AdEMAMix8bit):
    """AdEMAMix8bit under a name that does not end in `8bit`."""

class PagedAdEMAMix8(PagedAdEMAMix8bit):
    """PagedAdEMAMix8bit under a name that does not end in `8bit`."""

class LAMB8(LAMB8bit):
    """LAMB8bit under a name that does not end in `8bit`."""

class PagedLAMB8(PagedLAMB8bit):
    """PagedLAMB8bit under a name that does not end in `8bit`."""

class LARS8(LARS8bit):
    """LARS8bit under a name that does not end in `8bit`."""

class PagedLARS8(PagedLARS8bit):
    """PagedLARS8bit under a name that does not end in `8bit`."""

class Muon8bit(Muon):
    """Muon for matrices and AdamW for all else; 8-bit state in ordinary memory."""

class Muon32bit(Muon):
    """Muon for matrices and AdamW for all else; 32-bit state in ordinary memory."""

class PagedMuon(Muon):
    """Muon for matrices and AdamW for all else; state in pages that the pager moves, 32-bit unless `optim_bits=8`."""

class PagedMuon8bit(Muon):
    """Muon for matrices and AdamW for all else; 8-bit state in pages that the pager moves."""

class PagedMuon32bit(Muon):
    """Muon for matrices and AdamW for all else; 32-bit state in pages that the pager moves."""
