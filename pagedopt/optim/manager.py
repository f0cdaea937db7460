"""Options of single parameters: the GlobalOptimManager of bitsandbytes, without its leaks, and `keep_32bit`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary, WeakTensorKeyDictionary

__all__ = ["GlobalOptimManager", "keep_32bit"]


class GlobalOptimManager:
    """Options that hold for single parameters in every optimizer of this package, as in bitsandbytes.

    Overrides must be made before the parameter's first step. Parameters and modules are held weakly: what was
    overridden for one that is gone is gone, and a new one does not take its place.
    """

    _instance: ClassVar[GlobalOptimManager | None] = None

    def __init__(self) -> None:
        raise RuntimeError("there is one GlobalOptimManager: call GlobalOptimManager.get_instance()")

    @classmethod
    def get_instance(cls) -> GlobalOptimManager:
        """The only one."""
        if cls._instance is None:
            cls._instance = cls.__new__(cls)
            cls._instance.initialize()
        return cls._instance

    @classmethod
    def existing(cls) -> GlobalOptimManager | None:
        """The only one, or None where nobody has made it yet."""
        return cls._instance

    def initialize(self) -> None:
        """Forget all overrides."""
        self._of_params: Any = WeakTensorKeyDictionary()
        self._of_modules: Any = WeakIdKeyDictionary()

    def register_parameters(self, params: Iterable[Any]) -> None:
        """Accept what the documentation of bitsandbytes calls first.

        There is nothing to note: an override follows its parameter to any device and into any group.

        Raises:
            TypeError: for what are no parameters and no groups of them.
        """
        for item in params:
            for param in _tensors(item["params"] if isinstance(item, dict) else item):
                _check(param)

    def override_config(
        self,
        parameters: Tensor | Iterable[Tensor],
        key: str | None = None,
        value: Any = None,
        key_value_dict: Mapping[str, Any] | None = None,
    ) -> None:
        """Override options of parameters.

        Args:
            parameters: a parameter, or several.
            key: an option of parameter groups, such as `optim_bits` or `lr`.
            value: its value.
            key_value_dict: several options, in place of `key` and `value`.

        Raises:
            ValueError: neither or both ways to give options were used.
            TypeError: for what is no parameter.
        """
        if (key is None) == (key_value_dict is None):
            raise ValueError("override_config: give either key and value, or key_value_dict")
        options = dict(key_value_dict) if key_value_dict is not None else {key: value}
        for param in [_check(param) for param in _tensors(parameters)]:
            self._of_params.setdefault(param, {}).update(options)

    def register_module_override(self, module: nn.Module, param_name: str, config: Mapping[str, Any]) -> None:
        """Override options of the parameter that a module has under a name, whichever it is when it is first stepped.

        They are stronger than those of `override_config`.

        Args:
            module: the module.
            param_name: the name of its attribute, such as `weight`.
            config: the options.
        """
        self._of_modules.setdefault(module, {}).setdefault(param_name, {}).update(config)

    def overrides(self) -> Iterator[tuple[Tensor, Mapping[str, Any]]]:
        """Every parameter with options of its own; of two entries for one, the later is the stronger."""
        yield from list(self._of_params.items())
        for module, names in list(self._of_modules.items()):
            for name, options in names.items():
                param = getattr(module, name, None)
                if isinstance(param, Tensor):
                    yield param, options


def _tensors(given: Any) -> list[Any]:
    return [given] if isinstance(given, Tensor) else list(given)


def _check(param: Any) -> Tensor:
    if not isinstance(param, Tensor):
        raise TypeError(f"GlobalOptimManager: a parameter is a tensor, not {type(param).__name__}")
    return param


def keep_32bit(model: nn.Module, *what: type[nn.Module] | nn.Module | nn.Parameter) -> list[str]:
    """Keep the state of some parameters of a model in 32 bits, in 8-bit optimizers too.

    Call it before the first step: `keep_32bit(model)` is for embeddings, `keep_32bit(model, model.head,
    torch.nn.LayerNorm)` for others.

    Args:
        model: the model.
        *what: classes of modules, modules or parameters of the model; `torch.nn.Embedding` by default.

    Returns:
        The names of the parameters.

    Raises:
        ValueError: for a module or a parameter that the model does not have.
    """
    chosen = what or (nn.Embedding,)
    classes = tuple(item for item in chosen if isinstance(item, type))
    whole = {id(child) for item in chosen if isinstance(item, nn.Module) for child in item.modules()}
    single = {id(item) for item in chosen if isinstance(item, Tensor)}
    inside = {id(item) for part in (model.modules(), model.parameters()) for item in part}
    for item in chosen:
        if not isinstance(item, type) and id(item) not in inside:
            raise ValueError(f"keep_32bit: the model has no such {type(item).__name__}")
    manager, names = GlobalOptimManager.get_instance(), []
    for prefix, module in model.named_modules():
        is_whole = isinstance(module, classes) or id(module) in whole
        for name, param in module.named_parameters(recurse=False):
            if is_whole or id(param) in single:
                manager.register_module_override(module, name, {"optim_bits": 32})
                names.append(f"{prefix}.{name}" if prefix else name)
    return names
