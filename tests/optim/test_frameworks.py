"""What scripts and libraries written for torch.optim and bitsandbytes do with an optimizer."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from pagedopt import optim
from pagedopt.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("arena")


def make_params(*sizes: tuple[int, ...]) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    return [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in sizes or [(71, 67), (9,)]]


def train(optimizer: Any, steps: int) -> list[torch.Tensor]:
    params = [param for group in optimizer.param_groups for param in group["params"]]
    generator = torch.Generator().manual_seed(7)
    for _ in range(steps):
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)
        optimizer.step()
    return [param.detach() for param in params]


SWITCHES = [
    {"foreach": None, "fused": None, "capturable": False, "differentiable": False},
    {"foreach": True},
    {"fused": True},
    {"foreach": False, "fused": False},
    {"capturable": None, "differentiable": None},
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("name", ["Adam", "PagedAdamW8bit"])
def test_switches_of_torch_change_nothing(name: str, switches: dict[str, Any]) -> None:
    cls = getattr(optim, name)
    plain = train(cls(make_params()), 3)
    for optimizer in (cls(make_params(), **switches), cls([{"params": make_params(), **switches}])):
        assert all(map(torch.equal, train(optimizer, 3), plain))


def test_groups_and_states_of_torch_keep_their_switches() -> None:
    """Groups made for torch.optim, with its own switches on, may be given and loaded; ours load there."""
    torchs = torch.optim.AdamW(make_params(), fused=True)
    train(torchs, 2)
    ours = optim.AdamW(make_params())
    ours.load_state_dict(torchs.state_dict())
    assert ours.param_groups[0]["fused"] is True
    assert not {"foreach", "fused", "capturable", "differentiable"} & optim.AdamW(make_params()).param_groups[0].keys()
    back = torch.optim.AdamW(make_params())
    back.load_state_dict(optim.AdamW(make_params()).state_dict())
    optim.AdamW(torchs.param_groups)


class Embedding(torch.nn.Module):
    """As bitsandbytes.nn.StableEmbedding: it asks for 32-bit state of its weight."""

    def __init__(self, manager: Any) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(make_params((100, 50))[0].detach())
        manager.register_module_override(self, "weight", {"optim_bits": 32})


class StandIn:
    """The attributes and methods of bitsandbytes' GlobalOptimManager that hold overrides."""

    _instance: Any = None

    def __init__(self) -> None:
        self.pid2config: dict[int, dict[str, Any]] = {}
        self.index2config: dict[tuple[int, int], dict[str, Any]] = {}
        self.module_weight_config_triple: list[tuple[Any, str, dict[str, Any]]] = []

    def register_module_override(self, module: Any, name: str, options: dict[str, Any]) -> None:
        self.module_weight_config_triple.append((module, name, options))

    def override_config(self, parameter: Any, key: Any = None, value: Any = None, key_value_dict: Any = None) -> None:
        self.pid2config.setdefault(id(parameter), {}).update(key_value_dict or {key: value})


@pytest.fixture(params=["stand-in", "bitsandbytes"])
def manager(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """GlobalOptimManager as loaded in this process, without overrides before and after."""
    if request.param == "bitsandbytes":
        found = pytest.importorskip("bitsandbytes.optim").GlobalOptimManager.get_instance()
        found.initialize()
        yield found
        found.initialize()
        return
    monkeypatch.setattr(StandIn, "_instance", StandIn())
    module: Any = types.ModuleType("bitsandbytes.optim")
    module.GlobalOptimManager = StandIn
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", module)
    yield StandIn._instance


def bits_of(optimizer: Any) -> list[int]:
    params = [param for group in optimizer.param_groups for param in group["params"]]
    return [8 if optimizer.state[param]["exp_avg"].dtype is torch.uint8 else 32 for param in params]


@pytest.mark.parametrize("name", ["AdamW8bit", "PagedAdam8bit"])
def test_a_module_override_is_honoured(manager: Any, name: str) -> None:
    weight, other = Embedding(manager).weight, make_params((100, 50))[0]
    kept = manager.module_weight_config_triple[0][0]
    optimizer = getattr(optim, name)([other, weight])
    train(optimizer, 3)
    assert bits_of(optimizer) == [8, 32]
    plain = getattr(optim, name.replace("8bit", "32bit"))(make_params((100, 50), (100, 50)))
    with torch.no_grad():
        plain.param_groups[0]["params"][1].copy_(make_params((100, 50))[0])
    assert torch.equal(train(plain, 3)[1], weight)
    again = getattr(optim, name)([other, weight])
    again.load_state_dict(optimizer.state_dict())
    assert bits_of(again) == [8, 32]
    assert kept.weight is weight


OVERRIDES: list[dict[str, Any]] = [
    {"optim_bits": 32},
    {"lr": 0.5},
    {"lr": "0.5"},
    {"betas": (0.5, 0.6), "eps": 1e-3, "weight_decay": 0.2},
    {"max_unorm": 0.01, "skip_zeros": True},
    {"min_8bit_size": 1 << 20},
    {"percentile_clipping": 5, "block_wise": False, "alpha": 0.0},
]


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("override", OVERRIDES, ids=str)
def test_an_overridden_parameter_trains_as_in_a_group_of_its_own(
    manager: Any, override: dict[str, Any], is_late: bool
) -> None:
    """Also one overridden after the optimizer was made, as the documentation of bitsandbytes shows it."""
    params, twins = (make_params((71, 67), (100, 50), (9,)) for _ in range(2))
    known = {key: value for key, value in override.items() if key != "alpha"}
    groups = [{"params": twins[:1]}, {"params": twins[1:2], **known}, {"params": twins[2:]}]
    expected = optim.PagedAdamW8bit(groups, lr=1e-2)
    if not is_late:
        manager.override_config(params[1], key_value_dict=dict(override))
    ours = optim.PagedAdamW8bit(params, lr=1e-2)
    if is_late:
        manager.override_config(params[1], key_value_dict=dict(override))
    for optimizer in (ours, expected):
        train(optimizer, 3)
        for group in optimizer.param_groups:
            if "lr" not in override or group["params"][0] is not twins[1]:
                group["lr"] = 5e-3  # as a scheduler does
        train(optimizer, 2)
    assert all(map(torch.equal, params, twins))
    assert len(ours.param_groups) == 1


@pytest.mark.parametrize(
    ("override", "naming"), [({"optim_bits": 4}, r"optim_bits=4.*8 or 32"), ({"lrr": 1}, "unknown options 'lrr'")]
)
def test_an_override_that_cannot_be_honoured_is_refused(manager: Any, override: Any, naming: str) -> None:
    params = make_params()
    manager.override_config(params[0], key_value_dict=override)
    before = [param.detach().clone() for param in params]
    with pytest.raises(ValueError, match=f"GlobalOptimManager of bitsandbytes, .*{naming}"):
        train(optim.AdamW8bit(params), 1)
    assert all(map(torch.equal, params, before))


def test_the_real_embedding_of_bitsandbytes() -> None:
    nn = pytest.importorskip("bitsandbytes.nn")
    embedding = nn.StableEmbedding(200, 50)
    optimizer = optim.Adam8bit([*embedding.parameters(), *make_params((100, 50))])
    train(optimizer, 1)
    assert bits_of(optimizer) == [32, 32, 32, 8], "weight, the two of its norm (small), and another"


def coupled(name: str, **options: Any) -> list[str]:
    """The warnings of a constructor."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        getattr(optim, name)(options.pop("params", make_params()), **options)
    assert all(warning.filename == __file__ for warning in caught), "it names the line that made the optimizer"
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("name", "options", "is_warned"),
    [
        ("Adam", {"weight_decay": 0.1}, True),
        ("PagedAdam8bit", {"weight_decay": "0.1"}, True),
        ("Adam", {"params": [{"params": make_params(), "weight_decay": 0.1}]}, True),
        ("Adam", {}, False),
        ("Adam", {"weight_decay": 0.1, "decoupled_weight_decay": False}, False),
        ("Adam", {"weight_decay": 0.1, "decoupled_weight_decay": True}, False),
        ("AdamW", {"weight_decay": 0.1}, False),
    ],
)
def test_coupled_decay_warns_where_bitsandbytes_is_loaded(
    name: str, options: dict[str, Any], is_warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    assert not coupled(name, **options)
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    found = coupled(name, **options)
    assert [f"{name} couples" in text and "decoupled_weight_decay=True" in text for text in found] == [True] * is_warned


class Wrapped(torch.Tensor):
    """A tensor that keeps its values in another, as torchao's int8 mixed-precision weights do."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Wrapped:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner: torch.Tensor) -> None:
        self.held = inner

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*(arg.held if isinstance(arg, Wrapped) else arg for arg in args), **(kwargs or {}))
        return cls(out) if func is torch.ops.aten.detach.default else out


class WrappedByProtocol(Wrapped):
    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None


def torchao_weight() -> Any:
    module = pytest.importorskip("torchao.prototype.quantized_training.int8_mixed_precision")
    config = module.Int8MixedPrecisionTrainingConfig()
    return module.Int8MixedPrecisionTrainingLinearWeight(torch.ones(9, 8), config)


@pytest.mark.parametrize(
    ("make", "naming"),
    [
        (lambda: Wrapped(torch.ones(9, 8)), r"test_frameworks\.Wrapped"),
        (lambda: WrappedByProtocol(torch.ones(9, 8)), r"test_frameworks\.WrappedByProtocol.*held"),
        (torchao_weight, r"torchao.*Int8MixedPrecisionTrainingLinearWeight.*_data"),
    ],
)
def test_tensors_without_memory_are_refused_by_their_type(make: Callable[[], Any], naming: str) -> None:
    param = torch.nn.Parameter(make())
    with pytest.raises(TypeError, match=f"parameter 'w' is a .*{naming}"):
        optim.AdamW([("w", param)])
    optimizer = optim.AdamW([param.requires_grad_(False), *make_params()])
    param.grad = torch.ones(9, 8)
    with pytest.raises(TypeError, match=naming):
        train(optimizer, 1)


@pytest.mark.parametrize("name", ["AdamW", "PagedAdamW8bit"])
def test_state_that_a_wrapper_wrote_before_the_first_step(name: str) -> None:
    """As schedule-free keeps `z` there: it stays beside ours, through copies and state_dicts."""
    cls = getattr(optim, name)
    params = make_params()
    optimizer = cls(params)
    for number, param in enumerate(params):
        optimizer.state[param]["z"] = torch.full_like(param, number)
    entries = [optimizer.state[param] for param in params]
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()  # the second parameter has no gradient
    assert entries[1].keys() == {"z"}
    other = cls(make_params())
    other.load_state_dict(optimizer.state_dict())
    assert torch.equal(other.state[other.param_groups[0]["params"][1]]["z"], entries[1]["z"])
    for each in (optimizer, other):
        for param in each.param_groups[0]["params"]:
            param.data.copy_(torch.ones_like(param))
    assert all(map(torch.equal, train(optimizer, 2), train(other, 2)))
    assert [optimizer.state[param] is entry for param, entry in zip(params, entries, strict=True)] == [True, True]
    assert [float(entry["step"]) for entry in entries] == [3, 2]
    assert [int(entry["z"].flatten()[0]) for entry in entries] == [0, 1]


def test_state_that_holds_a_part_of_ours_is_not_begun_anew() -> None:
    params = make_params()
    optimizer = optim.AdamW(params)
    optimizer.state[params[0]] = {"exp_avg": torch.ones(71, 67), "z": 1}
    with pytest.raises(CheckpointError, match="truncated"):
        train(optimizer, 1)


def test_under_schedule_free() -> None:
    """Its wrapper over ours and over torch's, whose state has to be begun for it: equal parameters."""
    schedulefree = pytest.importorskip("schedulefree")
    found = []
    for cls in (optim.PagedAdamW, torch.optim.AdamW):
        params = make_params()
        optimizer = cls(params, lr=1e-2)
        if cls is torch.optim.AdamW:
            for param in params:
                zeros = {name: torch.zeros_like(param) for name in ("exp_avg", "exp_avg_sq")}
                optimizer.state[param] = {"step": torch.zeros(()), **zeros}
        wrapper = schedulefree.ScheduleFreeWrapper(optimizer, momentum=0.9)
        wrapper.train()
        found.append(train(wrapper, 4))
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["AdamW", "PagedAdamW8bit"])
def test_a_parameter_listed_twice_is_updated_once(name: str) -> None:
    """torch.optim warns, too; its for-loop updates such a parameter twice a step."""
    cls = getattr(optim, name)
    params, twins = make_params(), make_params()
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optimizer = cls([params[0], params[1], params[0]])
    plain = cls(twins)
    for step in range(3):
        for each in (params, twins):
            for param in each:
                param.grad = torch.full_like(param, 1.0 + step)
        optimizer.step()
        plain.step()
    assert all(map(torch.equal, params, twins))
    assert float(optimizer.state[params[0]]["step"]) == 3
    with pytest.warns(UserWarning, match="duplicate parameters"):
        other = cls([params[0], params[1], params[0]])
    other.load_state_dict(optimizer.state_dict())
    assert torch.equal(other.state[params[0]]["exp_avg"], optimizer.state[params[0]]["exp_avg"])


def test_betas_that_are_tensors_are_followed() -> None:
    """As with torch.optim: both of them tensors, which may change in place."""
    found = []
    for cls in (optim.AdamW, torch.optim.AdamW):
        betas = (torch.tensor(0.9), torch.tensor(0.95))
        options: dict[str, Any] = {"betas": betas} | ({} if cls is optim.AdamW else {"foreach": False})
        optimizer = cls(make_params(), **options)
        train(optimizer, 2)
        betas[0].fill_(0.5)
        found.append(train(optimizer, 2))
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=2e-6)
