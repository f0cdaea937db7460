"""Muon for matrices and AdamW for all else, in one optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from pagedopt.errors import CheckpointError
from pagedopt.optim.matrices import ADJUSTMENTS, COEFFICIENTS, Matrices
from pagedopt.optim.options import named
from pagedopt.optim.presets import CLASSES
from pagedopt.optim.rules import VARIANTS, Variant
from pagedopt.optim.sharding import check_whole
from pagedopt.optim.wrapped import Paged

__all__ = ["MUONS", "Muon"]

_STORAGE: Final = ("optim_bits", "min_8bit_size", "is_paged")
_ADAMW: Final = {"adamw_lr": "lr", "adamw_betas": "betas", "adamw_eps": "eps", "adamw_weight_decay": "weight_decay"}
_MATRIX: Final = ("lr", "weight_decay", "momentum", "nesterov", "ns_coefficients", "eps", "ns_steps", "adjust_lr_fn")


class Muon(torch.optim.Optimizer):
    """Muon for parameters that are matrices, AdamW for all others.

    A group is split by the shape of its parameters; `use_muon` in a group chooses for all of it. Set `use_muon=False`
    for embeddings and the head, which are matrices too. The update of a matrix is that of torch.optim.Muon.

    Args:
        params: parameters, or dicts of parameter groups.
        lr: learning rate.
        weight_decay: decay, decoupled from the gradient.
        momentum: how much of the momentum is kept, in [0, 1).
        nesterov: whether the gradient is added to the momentum once more.
        ns_coefficients: of the polynomial that makes a matrix orthogonal.
        eps: the least norm that a matrix is divided by.
        ns_steps: how often the polynomial is applied.
        adjust_lr_fn: how the rate depends on the shape: `original` (None means it) or `match_rms_adamw`.
        adamw_lr: rate of the other parameters; None for `lr`.
        adamw_betas: the betas of AdamW.
        adamw_eps: the eps of AdamW.
        adamw_weight_decay: their decay; None for `weight_decay`.
        optim_bits: 32, or 8 for state of 8 bits.
        min_8bit_size: state of fewer elements stays 32-bit.
        is_paged: whether state lives in pages that the pager moves.
        paging: settings of the pager by name, for a paged class.

    Raises:
        ValueError: for a value that is not allowed or contradicts the class.
    """

    variant: ClassVar[Variant] = VARIANTS[0]

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = COEFFICIENTS,
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        adamw_lr: float | None = None,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-8,
        adamw_weight_decay: float | None = None,
        optim_bits: int | None = None,
        min_8bit_size: int = 4096,
        is_paged: bool | None = None,
        paging: Mapping[str, Any] | None = None,
    ) -> None:
        given = dict(locals())
        defaults = {name: given[name] for name in (*_MATRIX, *_ADAMW, *_STORAGE)}
        for name, fallback in (("optim_bits", 32), ("is_paged", False)):
            defaults[name] = self._fixed(name, given[name], fallback)
        if paging is not None and not defaults["is_paged"]:
            raise ValueError(
                f"{type(self).__name__}: paging={paging!r} contradicts is_paged=False, which pages nothing"
            )
        _check(defaults, type(self).__name__)
        self._parts: dict[bool, Any] = {}
        self._order: list[tuple[bool, int]] = []  # of the groups: which part, and the index there
        self._paging = paging
        super().__init__(params, defaults)

    def _fixed(self, name: str, value: Any, fallback: Any) -> Any:
        """An option that the class may fix."""
        fixed = self.variant.fixed.get(name)
        if fixed is not None and value is not None and value != fixed:
            raise ValueError(f"{type(self).__name__} means {name}={fixed}, but {name}={value!r} was given")
        return fixed if fixed is not None else fallback if value is None else value

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups: each as it was given, or the matrices of it and then the others."""
        return [self._parts[part].param_groups[index] for part, index in self._order]

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        """Only torch's constructor sets them, to none."""
        assert not groups

    @property  # type: ignore[override]
    def state(self) -> dict[Tensor, Any]:
        """The state of every parameter, collected: entries are the ones in use."""
        return {param: entry for part in self._parts.values() for param, entry in part.state.items()}

    @state.setter
    def state(self, state: Mapping[Tensor, Any]) -> None:
        owners = {param: self._parts[part] for part, index in self._order for param in self._params_of(part, index)}
        for param, entry in state.items():
            owners[param].state[param] = entry

    def _params_of(self, part: bool, index: int) -> list[Tensor]:
        params: list[Tensor] = self._parts[part].param_groups[index]["params"]
        return params

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, also between steps.

        Args:
            param_group: the group's `params`, `use_muon` and options that differ from the constructor's.

        Raises:
            ValueError: for an option that is not allowed, or a parameter that is no matrix where `use_muon` is set.
        """
        where = f"{type(self).__name__}, parameter group {len(self._order)}"
        if not isinstance(param_group, dict):
            raise TypeError(f"{where}: it is a {type(param_group).__name__}, not a dict")
        if "params" not in param_group:
            raise ValueError(f"{where}: its `params` are missing, a parameter or an iterable of them")
        params = param_group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        options = {**self.defaults, **{k: v for k, v in param_group.items() if k not in ("params", "use_muon")}}
        _check(options, where)
        chosen = param_group.get("use_muon")
        taken = {id(param) for group in self.param_groups for param in group["params"]}
        parts: dict[bool, list[Any]] = {True: [], False: []}
        for number, item in enumerate(params):
            param, name = _tensor_of(item), named(param_group, number, len(self._order))
            if id(param) in taken:
                raise ValueError(f"{where}: {name} is in another group already")
            if chosen and param.ndim != 2:
                raise ValueError(f"{where}: {name} has shape {tuple(param.shape)}; use_muon=True is for matrices alone")
            is_matrix = param.ndim == 2 if chosen is None else bool(chosen)
            if is_matrix:
                check_whole(param, name)
            if options["optim_bits"] == 8 and is_matrix and param.device.type != "cpu":
                raise ValueError(f"{where}: {name} is on {param.device}; momentum of 8 bits is for the CPU so far")
            parts[is_matrix].append(item)
        for part, own in parts.items():
            if own:
                self._add(part, own, options)

    def _add(self, part: bool, params: list[Any], options: Mapping[str, Any]) -> None:
        group = _matrix_group(params, options) if part else _adamw_group(params, options)
        if part in self._parts:
            self._parts[part].add_param_group(group)
        elif part:
            matrices = Matrices([group], {})
            self._parts[part] = Paged(matrices, paging=self._paging) if self.defaults["is_paged"] else matrices
        else:
            storage = {name: self.defaults[name] for name in _STORAGE}
            adamw: Any = CLASSES["AdamW"]
            self._parts[part] = adamw([group], **storage, paging=self._paging)
        self._order.append((part, len(self._parts[part].param_groups) - 1))

    @_disable_dynamo
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: evaluates the model again, backward included, and returns the loss.

        Returns:
            The loss, with a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts.values():
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state and the groups, as torch.optim has them: the state's tensors themselves, no copies."""
        for part in self._parts.values():
            if not isinstance(part, Matrices):
                part.refuse_unreadable()
        packed: dict[str, Any] = super().state_dict()
        return packed

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of any of these classes, or of torch.optim.Muon.

        State is converted to how this optimizer stores it.

        Args:
            state_dict: what `state_dict()` returned.

        Raises:
            CheckpointError: its groups are not those of this optimizer; nothing was changed.
        """
        saved = state_dict["param_groups"]
        sizes = [[len(group["params"]) for group in groups] for groups in (saved, self.param_groups)]
        if sizes[0] != sizes[1]:
            raise CheckpointError(
                f"the groups of the state dict have {sizes[0]} parameters, those of this optimizer {sizes[1]}"
            )
        own = self.param_groups
        for part, optimizer in self._parts.items():
            indices = [index for index, (other, _) in enumerate(self._order) if other is part]
            groups = [{**own[i], **saved[i], **{k: own[i][k] for k in _STORAGE if k in own[i]}} for i in indices]
            keys = {key for group in groups for key in group["params"]}
            state = {key: entry for key, entry in state_dict["state"].items() if key in keys}
            optimizer.load_state_dict({"state": state, "param_groups": groups})

    def __getstate__(self) -> dict[str, Any]:
        names = ("defaults", "_parts", "_order", "_paging")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "defaults": copy.copy(state["defaults"])})


def _tensor_of(item: Any) -> Tensor:
    """A parameter that was given alone, or with its name."""
    param = item[1] if isinstance(item, tuple) else item
    if not isinstance(param, Tensor):
        raise TypeError(f"a parameter is a tensor, not a {type(param).__qualname__}")
    return param


def _matrix_group(params: list[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    return {"params": params, "use_muon": True, **{k: v for k, v in options.items() if k not in _ADAMW}}


def _adamw_group(params: list[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: options[key] for key, name in _ADAMW.items()}
    own = {name: options[name] if value is None else value for name, value in own.items()}
    rest = {k: v for k, v in options.items() if k not in (*_ADAMW, *_MATRIX)}
    return {"params": params, "use_muon": False, **rest, **own}


def _check(options: Mapping[str, Any], where: str) -> None:
    adjust, bits = options["adjust_lr_fn"], options["optim_bits"]
    checks = {
        "adjust_lr_fn": (adjust is None or adjust in ADJUSTMENTS, f"None or one of {', '.join(ADJUSTMENTS)}"),
        "optim_bits": (bits in (8, 32), "8 or 32"),
        "lr": (float(options["lr"]) >= 0, "0 or more"),
        "weight_decay": (options["weight_decay"] >= 0, "0 or more"),
        "momentum": (0 <= options["momentum"] < 1, "in [0, 1)"),
        "eps": (options["eps"] > 0, "above 0"),
        "ns_steps": (0 < options["ns_steps"] < 100, "from 1 to 99"),
        "ns_coefficients": (len(options["ns_coefficients"]) == 3, "three numbers"),
    }
    for name, (is_allowed, allowed) in checks.items():
        if not is_allowed:
            raise ValueError(f"{where}: {name}={options[name]!r} is not allowed; it is {allowed}")


def _make(variant: Variant) -> type[Muon]:
    doc = f"Muon for matrices and AdamW for all else; {variant.note}.\n\nArguments as of `Muon`."
    body = {"__module__": "pagedopt.optim", "__doc__": doc, "variant": variant}
    return type(variant.class_name("Muon"), (Muon,), body)


MUONS: Final = {"Muon": Muon, **{variant.class_name("Muon"): _make(variant) for variant in VARIANTS[1:]}}
"""Muon in every precision and placement."""
