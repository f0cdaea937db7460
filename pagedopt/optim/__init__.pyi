"""Made by tools/make/optim_stub.py from the tables in rules.py and presets.py."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from pagedopt.optim.export import bitsandbytes_state_dict as bitsandbytes_state_dict
from pagedopt.optim.manager import GlobalOptimManager as GlobalOptimManager
from pagedopt.optim.manager import keep_32bit as keep_32bit
from pagedopt.optim.optimizer import RuleOptimizer

__all__ = [
    "Adam",
    "Adam8",
    "Adam8bit",
    "Adam32bit",
    "AdamW",
    "AdamW8",
    "AdamW8bit",
    "AdamW32bit",
    "GlobalOptimManager",
    "Lion",
    "Lion8",
    "Lion8bit",
    "Lion32bit",
    "PagedAdam",
    "PagedAdam8",
    "PagedAdam8bit",
    "PagedAdam32bit",
    "PagedAdamW",
    "PagedAdamW8",
    "PagedAdamW8bit",
    "PagedAdamW32bit",
    "PagedLion",
    "PagedLion8",
    "PagedLion8bit",
    "PagedLion32bit",
    "bitsandbytes_state_dict",
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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        optim_bits: int = 32,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        is_paged: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
    ) -> None: ...

class Adam8bit(RuleOptimizer):
    """Adam with coupled (L2) weight decay; 8-bit state in ordinary memory.

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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        optim_bits: int = 8,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        is_paged: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
    ) -> None: ...

class Adam32bit(RuleOptimizer):
    """Adam with coupled (L2) weight decay; 32-bit state in ordinary memory.

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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        optim_bits: int = 32,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        is_paged: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
    ) -> None: ...

class PagedAdam(RuleOptimizer):
    """Adam with coupled (L2) weight decay; state in pages that the pager moves, 32-bit unless `optim_bits=8`.

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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        optim_bits: int = 32,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        is_paged: bool = True,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
    ) -> None: ...

class PagedAdam8bit(RuleOptimizer):
    """Adam with coupled (L2) weight decay; 8-bit state in pages that the pager moves.

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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        optim_bits: int = 8,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        is_paged: bool = True,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
    ) -> None: ...

class PagedAdam32bit(RuleOptimizer):
    """Adam with coupled (L2) weight decay; 32-bit state in pages that the pager moves.

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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        optim_bits: int = 32,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        is_paged: bool = True,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        optim_bits: int = 32,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        is_paged: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
    ) -> None: ...

class AdamW8bit(RuleOptimizer):
    """Adam with decoupled weight decay; 8-bit state in ordinary memory.

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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        optim_bits: int = 8,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        is_paged: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
    ) -> None: ...

class AdamW32bit(RuleOptimizer):
    """Adam with decoupled weight decay; 32-bit state in ordinary memory.

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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        optim_bits: int = 32,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        is_paged: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
    ) -> None: ...

class PagedAdamW(RuleOptimizer):
    """Adam with decoupled weight decay; state in pages that the pager moves, 32-bit unless `optim_bits=8`.

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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        optim_bits: int = 32,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        is_paged: bool = True,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
    ) -> None: ...

class PagedAdamW8bit(RuleOptimizer):
    """Adam with decoupled weight decay; 8-bit state in pages that the pager moves.

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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        optim_bits: int = 8,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        is_paged: bool = True,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
    ) -> None: ...

class PagedAdamW32bit(RuleOptimizer):
    """Adam with decoupled weight decay; 32-bit state in pages that the pager moves.

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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        optim_bits: int = 32,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        is_paged: bool = True,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.0001,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        optim_bits: int = 32,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        is_paged: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
    ) -> None: ...

class Lion8bit(RuleOptimizer):
    """Lion with decoupled weight decay; 8-bit state in ordinary memory.

    The rule is that of https://arxiv.org/abs/2302.06675.

    Args:
        params: parameters, or dicts of parameter groups.
        lr: learning rate.
        betas: how much of the moment the direction keeps, and how much the moment itself keeps, each in [0, 1).
        weight_decay: weight decay, decoupled from the gradient.
        args: a mapping or an object whose `optim_bits`, `min_8bit_size`, `percentile_clipping`, `block_wise`,
            `max_unorm` and `skip_zeros` replace the arguments of that name.
        min_8bit_size: parameters with fewer elements keep 32-bit state.
        percentile_clipping: scale each parameter's gradient to at most this percentile of the norms of its last
            100 steps; 100 is off.
        block_wise: one absmax for 256 elements of 8-bit state; False: one for the whole tensor.
        is_paged: whether the state lives in pages.
        optim_bits: bits of the state: 32 or 8. Also an option of parameter groups.
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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.0001,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        is_paged: bool = False,
        *,
        optim_bits: int = 8,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
    ) -> None: ...

class Lion32bit(RuleOptimizer):
    """Lion with decoupled weight decay; 32-bit state in ordinary memory.

    The rule is that of https://arxiv.org/abs/2302.06675.

    Args:
        params: parameters, or dicts of parameter groups.
        lr: learning rate.
        betas: how much of the moment the direction keeps, and how much the moment itself keeps, each in [0, 1).
        weight_decay: weight decay, decoupled from the gradient.
        args: a mapping or an object whose `optim_bits`, `min_8bit_size`, `percentile_clipping`, `block_wise`,
            `max_unorm` and `skip_zeros` replace the arguments of that name.
        min_8bit_size: parameters with fewer elements keep 32-bit state.
        percentile_clipping: scale each parameter's gradient to at most this percentile of the norms of its last
            100 steps; 100 is off.
        block_wise: one absmax for 256 elements of 8-bit state; False: one for the whole tensor.
        is_paged: whether the state lives in pages.
        optim_bits: bits of the state: 32 or 8. Also an option of parameter groups.
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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.0001,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        is_paged: bool = False,
        *,
        optim_bits: int = 32,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
    ) -> None: ...

class PagedLion(RuleOptimizer):
    """Lion with decoupled weight decay; state in pages that the pager moves, 32-bit unless `optim_bits=8`.

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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.0001,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        optim_bits: int = 32,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        *,
        is_paged: bool = True,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
    ) -> None: ...

class PagedLion8bit(RuleOptimizer):
    """Lion with decoupled weight decay; 8-bit state in pages that the pager moves.

    The rule is that of https://arxiv.org/abs/2302.06675.

    Args:
        params: parameters, or dicts of parameter groups.
        lr: learning rate.
        betas: how much of the moment the direction keeps, and how much the moment itself keeps, each in [0, 1).
        weight_decay: weight decay, decoupled from the gradient.
        args: a mapping or an object whose `optim_bits`, `min_8bit_size`, `percentile_clipping`, `block_wise`,
            `max_unorm` and `skip_zeros` replace the arguments of that name.
        min_8bit_size: parameters with fewer elements keep 32-bit state.
        percentile_clipping: scale each parameter's gradient to at most this percentile of the norms of its last
            100 steps; 100 is off.
        block_wise: one absmax for 256 elements of 8-bit state; False: one for the whole tensor.
        optim_bits: bits of the state: 32 or 8. Also an option of parameter groups.
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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.0001,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        *,
        optim_bits: int = 8,
        is_paged: bool = True,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
    ) -> None: ...

class PagedLion32bit(RuleOptimizer):
    """Lion with decoupled weight decay; 32-bit state in pages that the pager moves.

    The rule is that of https://arxiv.org/abs/2302.06675.

    Args:
        params: parameters, or dicts of parameter groups.
        lr: learning rate.
        betas: how much of the moment the direction keeps, and how much the moment itself keeps, each in [0, 1).
        weight_decay: weight decay, decoupled from the gradient.
        args: a mapping or an object whose `optim_bits`, `min_8bit_size`, `percentile_clipping`, `block_wise`,
            `max_unorm` and `skip_zeros` replace the arguments of that name.
        min_8bit_size: parameters with fewer elements keep 32-bit state.
        percentile_clipping: scale each parameter's gradient to at most this percentile of the norms of its last
            100 steps; 100 is off.
        block_wise: one absmax for 256 elements of 8-bit state; False: one for the whole tensor.
        optim_bits: bits of the state: 32 or 8. Also an option of parameter groups.
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
        self,
        params: ParamsT,
        lr: float | Tensor = 0.0001,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        args: object = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        *,
        optim_bits: int = 32,
        is_paged: bool = True,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        paging: Mapping[str, Any] | None = None,
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
