"""State that another optimizer made, moved into extents of the arena: its tensors stay the same objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import torch
from torch import Tensor, UntypedStorage

from pagedopt import _core, runtime
from pagedopt.optim.devices import device_of, tensor_over

__all__ = ["Home", "Homes", "Span", "severed"]

ALIGNMENT: Final = 256
"""Of tensors in an extent, in bytes."""

Span = tuple[int, int]
"""The address and the bytes of memory that a task uses."""

_PLAIN: Final = (type(None), bool, int, float, complex, str)
"""What state may hold beside tensors."""


@dataclass(frozen=True)
class Home:
    """The extent that one parameter's state lives in.

    Attributes:
        extent: the memory.
        places: for each tensor's address its bytes.
        is_kept: whether it shares pages with other small states, which stay in the upper tier.
    """

    extent: _core.Extent
    places: Mapping[int, int]
    is_kept: bool

    @property
    def span(self) -> Span:
        """All of it."""
        return self.extent.address, self.extent.nbytes


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """What is not a list, tuple or dict in the value of `key`, each under a name that messages can show."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{key}[{name!r}]" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{key}[{index}]")
    else:
        yield key, value


def severed(value: Any) -> Any:
    """The same state in other objects: containers and numbers are copied, tensors share their memory."""
    if isinstance(value, Tensor) and _is_plain(value):
        if value.ndim == 0:
            return value.clone()
        empty = torch.empty(0, dtype=value.dtype, device=value.device)
        return empty.set_(value.untyped_storage(), value.storage_offset(), value.shape, value.stride())
    if type(value) is dict:
        return {key: severed(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(severed(item) for item in value)
    return value


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and type(tensor) in (Tensor, torch.nn.Parameter)


def _check_tensor(tensor: Tensor, key: str, name: str) -> None:
    if tensor.layout != torch.strided:
        raise TypeError(f"{name}: its state {key!r} has layout {tensor.layout}, which cannot be paged; dense state can")
    if not _is_plain(tensor):
        kind = f"{type(tensor).__module__}.{type(tensor).__qualname__}"
        raise TypeError(f"{name}: its state {key!r} is a {kind}, which cannot be paged; only plain tensors can")


class Homes:
    """Moves the state of parameters into extents, and knows where it is.

    Args:
        paging: settings of the arena, the strongest source; None for those of the process.
    """

    def __init__(self, paging: Mapping[str, Any] | None) -> None:
        self._paging = paging
        self._homes: dict[Tensor, Home] = {}
        self.arenas: dict[torch.device, _core.Arena] = {}
        self.changes = 0
        """How often a home was made or left."""

    def arena(self, device: torch.device) -> _core.Arena:
        """The arena of a device, made where there is none."""
        if device not in self.arenas:
            self.arenas[device] = runtime.arena(self._paging, device_of(device))
        return self.arenas[device]

    def of(self, param: Tensor) -> Home | None:
        """The home of a parameter's state, if it has one."""
        return self._homes.get(param)

    def forget(self, params: list[Tensor]) -> None:
        """Forget the homes of all parameters but these. Their memory is free once their tensors are gone."""
        kept = {param: self._homes[param] for param in params if param in self._homes}
        self.changes += len(self._homes) - len(kept)
        self._homes = kept

    def settle(self, param: Tensor, entry: Mapping[str, Any], name: str, *, is_pinned: bool, is_alone: bool) -> None:
        """Move what is not at home.

        Args:
            param: the parameter.
            entry: its state.
            name: what messages call it.
            is_pinned: whether the pages of its home are pinned.
            is_alone: whether nothing else may use the memory of its state.

        Raises:
            TypeError: naming the state that cannot be paged.
            ValueError: naming the state that others share.
        """
        found = self._memory_of(param, entry, name)
        home = self._homes.get(param)
        places = home.places if home else {}
        strays = {address: tensors for address, tensors in found.items() if address not in places}
        if not strays:
            return
        if is_alone:
            self._check_alone(param, strays, name)
        free = {address: nbytes for address, nbytes in places.items() if address not in found}
        if home is not None and self._move_within(param.device, home, strays, free, is_pinned=is_pinned):
            return
        self._move_all(param, found)

    def _memory_of(self, param: Tensor, entry: Mapping[str, Any], name: str) -> dict[int, dict[str, Tensor]]:
        """The tensors of a state by the address of their memory. Numbers stay where they are."""
        found: dict[int, dict[str, Tensor]] = {}
        others, has_tensors = [], False
        own = {tensor.untyped_storage().data_ptr() for tensor in (param, param.grad) if tensor is not None}
        for key, value in _leaves(entry, ""):
            if not isinstance(value, Tensor):
                others.append((key, value))
                continue
            has_tensors = True
            _check_tensor(value, key, name)
            address = value.untyped_storage().data_ptr() if value.device == param.device else 0
            if value.ndim > 0 and address not in own and address:
                found.setdefault(address, {})[key] = value
        foreign = [(key, value) for key, value in others if not isinstance(value, _PLAIN)]
        if foreign and not has_tensors:
            key, value = foreign[0]
            raise TypeError(
                f"{name}: its state {key!r} is a {type(value).__module__}.{type(value).__qualname__}; "
                "only state that is tensors can be paged"
            )
        return found

    def _check_alone(self, param: Tensor, strays: Mapping[int, Mapping[str, Tensor]], name: str) -> None:
        arena = self.arena(param.device)
        for address, tensors in strays.items():
            key, tensor = next(iter(tensors.items()))
            is_others = arena.owns(address, tensor.untyped_storage().nbytes()) and any(
                address in home.places for other, home in self._homes.items() if other is not param
            )
            if is_others or _users(tensor) > len({id(own) for own in tensors.values()}):
                raise ValueError(
                    f"{name}: its state {key!r} shares memory with other tensors (the state of another parameter, or "
                    "what the optimizer keeps elsewhere), and cannot be paged"
                )

    def _move_within(
        self,
        device: torch.device,
        home: Home,
        strays: Mapping[int, Mapping[str, Tensor]],
        free: dict[int, int],
        *,
        is_pinned: bool,
    ) -> bool:
        """Move new tensors to where those that they replaced were; False where they do not fit, with nothing done."""
        targets: list[tuple[int, Mapping[str, Tensor]]] = []
        for tensors in strays.values():
            nbytes = _storage_of(tensors).nbytes()
            address = next((address for address, size in free.items() if size == nbytes), None)
            if address is None:
                return False
            del free[address]
            targets.append((address, tensors))
        write = _copy if is_pinned else self.arena(device).write
        for address, tensors in targets:
            _move(tensors, home.extent, address - home.extent.address, device, write)
        return True

    def _move_all(self, param: Tensor, found: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Give a state an extent of its own, its tensors side by side."""
        device = param.device
        arena = self.arena(device)
        sizes = [_storage_of(tensors).nbytes() for tensors in found.values()]
        nbytes = sum(map(_round_up, sizes))
        is_kept = nbytes < runtime.settings().min_paged_bytes
        extent = arena.allocate(nbytes, keep=is_kept)
        offsets = [0, *accumulate(map(_round_up, sizes))][: len(sizes)]
        places = {extent.address + offset: size for offset, size in zip(offsets, sizes, strict=True)}
        # First of all: should a disk be full in between, the rest is moved at the next step.
        self._homes[param] = Home(extent, places, is_kept)
        self.changes += 1
        for tensors, offset in zip(found.values(), offsets, strict=True):
            _move(tensors, extent, offset, device, arena.write)

    def check_readable(self) -> None:
        """Check that the state can be read: in this process, and from a disk that works.

        Raises:
            ForkError: this is a fork of the process that it belongs to.
            VmError: a part of it is lost.
        """
        for device, arena in self.arenas.items():
            arena.refuse_in_fork()
            for param, home in self._homes.items() if arena.failure else ():
                if param.device == device:
                    arena.check_readable(*home.span)


def _users(tensor: Tensor) -> int:
    """How many tensors use a tensor's memory; 0 where torch does not say."""
    storage = tensor.untyped_storage()
    count = getattr(torch._C, "_storage_Use_Count", None)
    return count(storage._cdata) - 1 if count else 0  # less the storage here


def _storage_of(tensors: Mapping[str, Tensor]) -> UntypedStorage:
    return next(iter(tensors.values())).untyped_storage()


def _move(
    tensors: Mapping[str, Tensor],
    extent: _core.Extent,
    offset: int,
    device: torch.device,
    write: Callable[[Tensor, Tensor], None],
) -> None:
    """Move tensors that share memory, and all of that memory. They stay the same objects."""
    source = _storage_of(tensors)
    target = tensor_over(extent, offset, source.nbytes(), device)
    content = torch.empty(0, dtype=torch.uint8, device=device).set_(source)
    write(target, content if write is _copy else content.cpu())
    storage = target.untyped_storage()
    for tensor in tensors.values():
        empty = torch.empty(0, dtype=tensor.dtype, device=device)
        tensor.data = empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())


def _copy(target: Tensor, source: Tensor) -> None:
    target.copy_(source)


def _round_up(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
