"""Where state lives, and what happens when somebody else touches, copies, drops or replaces it."""

from __future__ import annotations

import copy
import gc
import io
import itertools
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pagedopt import optim

OPTIONS: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.1, "amsgrad": True, "percentile_clipping": 60}
NAMES = ["AdamW", "AdamW8bit", "PagedAdamW", "PagedAdamW8bit"]


def make(name: str, sizes: tuple[int, ...] = (4757, 9, 40000), **options: Any) -> Any:
    generator = torch.Generator().manual_seed(5)
    params = [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in sizes]
    return getattr(optim, name)(params, **{**OPTIONS, **options})


def params_of(optimizer: Any) -> list[torch.Tensor]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def train(optimizer: Any, steps: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for param in params_of(optimizer):
            param.grad = torch.randn(param.shape, generator=generator)
        optimizer.step()
    return [param.detach().clone() for param in params_of(optimizer)]


def is_paged(arena: Any, optimizer: Any) -> bool:
    """Whether every slot lies in the arena (and step and history do not)."""
    return all(
        arena.owns(value.data_ptr(), value.nbytes) == (key.startswith(("exp_", "max_")))
        for entry in optimizer.state.values()
        for key, value in entry.items()
    )


def reference(name: str, steps: int) -> list[torch.Tensor]:
    optimizer = make(name)
    return train(optimizer, steps)


def test_one_parameters_state_is_one_extent_in_step_order(arena: Any) -> None:
    optimizer = make("PagedAdamW8bit")
    train(optimizer, 1)
    assert arena.ledger()["extents"] == 3
    big = [optimizer.state[param] for param in params_of(optimizer) if param.numel() > 4096]
    names = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]
    names += [f"{name}_absmax" for name in names]
    at = [entry[name].data_ptr() for entry in big for name in names]
    assert at == sorted(at)
    assert all(address % 256 == 0 for address in at)
    for entry in big:
        for first, second in itertools.pairwise(names):
            assert 0 <= entry[second].data_ptr() - entry[first].data_ptr() - entry[first].nbytes < 256
        assert all(entry[name].untyped_storage().nbytes() == entry[name].nbytes for name in names)


def test_small_state_shares_pages_and_stays(paging: Callable[..., Any]) -> None:
    arena = paging(budget="128KiB", min_paged_bytes="64KiB")
    optimizer = make("PagedAdamW", sizes=(10, 20, 30, 40000))
    train(optimizer, 2)
    assert arena.ledger()["kept_pages"] == 1
    assert is_paged(arena, optimizer)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_glued_to_tensors(arena: Any, name: str) -> None:
    optimizer = make(name)
    train(optimizer, 1)
    assert not any(vars(value) for entry in optimizer.state.values() for value in entry.values())
    assert not any(vars(param).keys() - {"grad"} for param in params_of(optimizer))


@pytest.mark.parametrize("name", ["PagedAdamW", "PagedAdamW8bit"])
def test_views_outlive_their_optimizer(arena: Any, name: str) -> None:
    optimizer = make(name)
    train(optimizer, 2)
    view = optimizer.state[params_of(optimizer)[2]]["exp_avg"]
    values = view.clone()
    alive = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert alive() is None
    assert arena.ledger()["extents"] == 1
    other = make(name)
    train(other, 3, seed=1)
    assert torch.equal(view, values)
    del view, other
    gc.collect()
    assert arena.ledger()["extents"] == 0


def load_copy(optimizer: Any) -> Any:
    other = make(type(optimizer).__name__)
    with torch.no_grad():
        for param, source in zip(params_of(other), params_of(optimizer), strict=True):
            param.copy_(source)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda optimizer: pickle.loads(pickle.dumps(optimizer)),
    "save and load": load_copy,
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", NAMES)
def test_a_copy_goes_on_bit_for_bit_on_its_own(arena: Any, name: str, way: str) -> None:
    optimizer = make(name)
    train(optimizer, 3)
    other = COPIES[way](optimizer)
    assert type(other) is type(optimizer)
    if "Paged" in name:
        assert is_paged(arena, other)
    kept = [value.clone() for entry in other.state.values() for value in entry.values()]
    expected = train(optimizer, 3, seed=1)
    assert all(map(torch.equal, kept, [value for entry in other.state.values() for value in entry.values()]))
    assert all(map(torch.equal, train(other, 3, seed=1), expected))


def test_model_and_optimizer_copied_together_stay_together(arena: Any) -> None:
    module = torch.nn.Linear(70, 70)
    optimizer = optim.PagedAdamW8bit(module.parameters())
    train(optimizer, 1)
    module2, optimizer2 = copy.deepcopy((module, optimizer))
    assert params_of(optimizer2)[0] is module2.weight
    assert set(optimizer2.state) == set(module2.parameters())


def test_a_shallow_copy_shares_its_state(arena: Any) -> None:
    optimizer = make("PagedAdamW")
    train(optimizer, 2)
    expected = reference("PagedAdamW", 2)
    other = copy.copy(optimizer)
    assert other.state is optimizer.state
    assert all(map(torch.equal, params_of(other), expected))


REPLACEMENTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "cloned": lambda entry: entry.update({key: value.clone() for key, value in entry.items()}),
    "double": lambda entry: entry.update(
        {key: value.double() for key, value in entry.items() if value.dtype == torch.float32 and "absmax" not in key}
    ),
    "one slot": lambda entry: entry.update(exp_avg=entry["exp_avg"].clone()),
    "by data": lambda entry: setattr(entry["exp_avg"], "data", entry["exp_avg"].clone()),
    "step as int": lambda entry: entry.update(step=int(entry["step"])),
}


@pytest.mark.parametrize("how", REPLACEMENTS)
@pytest.mark.parametrize("name", NAMES)
def test_replaced_state_is_used_and_brought_home_with_one_warning(arena: Any, name: str, how: str) -> None:
    optimizer = make(name)
    train(optimizer, 3)
    for entry in optimizer.state.values():
        REPLACEMENTS[how](entry)
    needs_copy = ("Paged" in name and how != "double") or how in ("double", "step as int")
    with (
        pytest.warns(UserWarning, match=r"state of 3 parameters was replaced")
        if needs_copy
        else _no_warning() as caught
    ):
        found = train(optimizer, 1, seed=9)
    assert len(caught) == needs_copy
    twin = make(name)
    train(twin, 3)
    assert all(map(torch.equal, found, train(twin, 1, seed=9)))
    if "Paged" in name:
        assert is_paged(arena, optimizer)


def _no_warning() -> Any:
    import warnings

    return warnings.catch_warnings(record=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_replaced_entry_or_a_changed_value_is_seen(arena: Any, name: str) -> None:
    optimizer = make(name, sizes=(4757,), amsgrad=False, percentile_clipping=100)
    train(optimizer, 1)
    param = params_of(optimizer)[0]
    optimizer.state[param] = {"step": torch.tensor(7.0), "exp_avg": torch.zeros(4757), "exp_avg_sq": torch.ones(4757)}
    before = param.detach().clone()
    param.grad = torch.zeros(4757)
    with pytest.warns(UserWarning, match="replaced") if name != "AdamW" else _no_warning():
        optimizer.step()
    assert torch.allclose(param, before * (1 - 1e-3), rtol=1e-6)
    assert float(optimizer.state[param]["step"]) == 8


def test_dropped_state_starts_anew(arena: Any) -> None:
    optimizer = make("PagedAdamW")
    train(optimizer, 3)
    optimizer.state.clear()
    with torch.no_grad():
        for param, value in zip(params_of(optimizer), params_of(make("PagedAdamW")), strict=True):
            param.copy_(value)
    assert all(map(torch.equal, train(optimizer, 2), reference("PagedAdamW", 2)))
    assert arena.ledger()["extents"] == 3


@pytest.mark.parametrize("name", ["PagedAdamW", "AdamW"])
def test_foreign_state_that_does_not_fit_changes_nothing(arena: Any, name: str) -> None:
    optimizer = make(name)
    train(optimizer, 2)
    params = params_of(optimizer)
    before = [param.detach().clone() for param in params]
    optimizer.state[params[0]] = {key: value.clone() for key, value in optimizer.state[params[0]].items()}
    optimizer.state[params[2]]["exp_avg_sq"] = torch.zeros(3)
    kept = optimizer.state[params[0]]["exp_avg"]
    with pytest.raises(ValueError, match=r"parameter 2 of group 0: exp_avg_sq has shape \(3,\)"):
        train(optimizer, 1)
    assert all(map(torch.equal, params, before))
    assert optimizer.state[params[0]]["exp_avg"] is kept


@pytest.mark.filterwarnings("error")
def test_storage_options_may_change_between_steps(arena: Any) -> None:
    optimizer = make("PagedAdamW", sizes=(4757,), percentile_clipping=100)
    train(optimizer, 2)
    group, param = optimizer.param_groups[0], params_of(optimizer)[0]
    values = optimizer.state[param]["exp_avg_sq"].clone()
    for bits, dtype in ((8, torch.uint8), (32, torch.float32)):
        group["optim_bits"] = bits
        param.grad = None
        optimizer.step()
        assert optimizer.state[param]["exp_avg_sq"].dtype is dtype
    torch.testing.assert_close(optimizer.state[param]["exp_avg_sq"], values, rtol=0.06, atol=1e-6)
    group["percentile_clipping"] = 50
    train(optimizer, 1)
    assert float((optimizer.state[param]["gnorm_history"] > 0).sum()) == 1
    assert is_paged(arena, optimizer)


def test_all_of_the_state_is_paged_whatever_the_budget(paging: Callable[..., Any]) -> None:
    found = []
    for budget in ("64KiB", "1GiB"):
        arena = paging(budget=budget)
        optimizer = make("PagedAdamW8bit", sizes=(400_000, 300_001), amsgrad=False)
        found.append(train(optimizer, 4))
        counters = arena.counters()
        assert (counters["evicted_bytes"] > 0) == (budget == "64KiB")
    assert all(map(torch.equal, *found))


def test_placement_by_group(arena: Any) -> None:
    optimizer = make("AdamW8bit")
    params = params_of(optimizer)
    groups: list[dict[str, Any]] = [{"params": params[:2]}, {"params": params[2:], "is_paged": True}]
    mixed = optim.AdamW8bit(groups, **OPTIONS)
    expected = reference("AdamW8bit", 3)
    assert all(map(torch.equal, train(mixed, 3), expected))
    owned = [arena.owns(mixed.state[param]["exp_avg"].data_ptr(), 1) for param in params]
    assert owned == [False, False, True]
    mixed.param_groups[0]["is_paged"] = True
    train(mixed, 1)
    assert is_paged(arena, mixed)


def test_state_moved_to_shared_memory_is_followed() -> None:
    optimizer = make("AdamW")
    train(optimizer, 2)
    for entry in optimizer.state.values():
        for value in entry.values():
            value.share_memory_()
    found = train(optimizer, 1, seed=9)
    assert all(value.is_shared() for entry in optimizer.state.values() for value in entry.values())
    twin = make("AdamW")
    train(twin, 2)
    assert all(map(torch.equal, found, train(twin, 1, seed=9)))
    assert all(map(torch.equal, *([entry["exp_avg"] for entry in each.state.values()] for each in (optimizer, twin))))


def test_loading_holds_no_second_copy(run_python: Callable[..., Any], tmp_path: Any) -> None:
    """64 MiB of state, mapped from a file, into an arena that may hold 4 MiB: anonymous memory hardly grows."""
    script = """
        import re, sys, threading, time, torch
        from pathlib import Path
        from pagedopt import optim, runtime

        def anonymous_mib():
            return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

        params = [torch.nn.Parameter(torch.zeros(1 << 21)) for _ in range(4)]
        ones = torch.ones(1 << 21)
        state = {i: {"step": torch.tensor(1.0), "exp_avg": ones.clone(), "exp_avg_sq": ones.clone()} for i in range(4)}
        file = sys.argv[1] + "/state.pt"
        torch.save({"state": state, "param_groups": [{"params": [0, 1, 2, 3]}]}, file)
        del state, ones
        state = torch.load(file, mmap=True, weights_only=True)
        runtime.configure(budget="4MiB", spill_dir=sys.argv[1])
        optimizer = optim.PagedAdamW(params)
        runtime.arena()
        before, peak, done = anonymous_mib(), [0.0], []
        def watch():
            while not done:
                peak[0] = max(peak[0], anonymous_mib())
                time.sleep(0.001)
        watcher = threading.Thread(target=watch)
        watcher.start()
        optimizer.load_state_dict(state)
        done.append(1)
        watcher.join()
        assert all(bool((entry["exp_avg_sq"] == 1).all()) for entry in optimizer.state.values())
        print(peak[0] - before)
    """
    done = run_python(script, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 24


def test_rows_keep_their_memory_alive(arena: Any) -> None:
    """Until the next step makes others: a step that runs in another thread may still use it."""
    optimizer = make("PagedAdamW", (40_000,))
    train(optimizer, 1)
    (entry,) = optimizer.state.values()
    for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
        entry[name].data = torch.zeros(40_000)
    gc.collect()
    assert arena.ledger()["extents"] == 1
    with pytest.warns(UserWarning, match="the state of 1 parameters was replaced"):
        train(optimizer, 1)
    gc.collect()
    assert arena.ledger()["extents"] == 1
    assert all(torch.isfinite(param).all() for param in params_of(optimizer))
