"""Makes the Trainer of Transformers use the optimizers of this package, and undoes it.

What is replaced is one function, `Trainer.get_optimizer_cls_and_kwargs`, which every Trainer calls when it makes its
optimizer: subclasses that were made before have it too. For a name of bitsandbytes the new one returns a class of
`pagedopt.optim`; for any other it calls the old one. Nothing is imported here: a Trainer that is not loaded yet is
changed when it is.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType
from typing import Any, Final

__all__ = ["install", "uninstall"]

MODULE: Final = "transformers.trainer"
FUNCTION: Final = "get_optimizer_cls_and_kwargs"


class _Finder(MetaPathFinder):
    """Changes the module with the Trainer as soon as it is loaded; the other finders find it."""

    def __init__(self) -> None:
        self._is_asking = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's spec as another finder has it, with a loader that changes the module."""
        if fullname != MODULE or self._is_asking:
            return None
        self._is_asking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._is_asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """A loader that changes the module once another has executed it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """The module, as the other loader makes it."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module and change it."""
        self._loader.exec_module(module)
        _change(module)


class _Change:
    """The replaced function of one class.

    Attributes:
        trainer: the class.
        old: what it had.
        new: what it has now.
    """

    def __init__(self, trainer: type[Any]) -> None:
        self.trainer = trainer
        self.old: Any = vars(trainer)[FUNCTION]
        self.new = staticmethod(_replacement(self.old.__func__))
        setattr(trainer, FUNCTION, self.new)

    def undo(self) -> bool:
        """Put the old function back; False where someone else has replaced ours, which may call it."""
        if vars(self.trainer).get(FUNCTION) is not self.new:
            return False
        setattr(self.trainer, FUNCTION, self.old)
        return True


_finder: Final = _Finder()
_changes: Final[list[_Change]] = []


def _replacement(old: Callable[..., Any]) -> Callable[..., Any]:
    def get_optimizer_cls_and_kwargs(args: Any, model: Any = None, **others: Any) -> Any:
        from pagedopt.trainers.names import NAMES, class_and_kwargs, name_of  # loads torch

        if _finder not in sys.meta_path or name_of(args) not in NAMES:
            return old(args, model, **others) if model is not None else old(args, **others)
        return class_and_kwargs(args, model)

    get_optimizer_cls_and_kwargs.__doc__ = old.__doc__
    return get_optimizer_cls_and_kwargs


def _change(module: ModuleType) -> None:
    trainer = module.Trainer
    if all(change.trainer is not trainer for change in _changes):
        _changes.append(_Change(trainer))


def install() -> None:
    """Make the Trainer of Transformers use these optimizers for the names of bitsandbytes.

    `optim="paged_adamw_8bit"`, or another of its 15 names for bitsandbytes, then makes an optimizer of this package,
    in every subclass too (TRL's, Unsloth's), whether or not bitsandbytes is installed. It may be called before or
    after transformers is imported, and more than once. bitsandbytes itself is not changed.
    """
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    if hasattr(sys.modules.get(MODULE), "Trainer"):
        _change(sys.modules[MODULE])


def uninstall() -> None:
    """Undo `install`. Optimizers that were made stay as they are."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    _changes[:] = [change for change in _changes if not change.undo()]
