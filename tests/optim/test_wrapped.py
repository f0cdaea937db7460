"""Optimizers wrapped in `Paged` come out to the bit as without it: parameters, state dicts, resumed runs."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from optim.wrapped_cases import (
    Make,
    assert_same,
    make_params,
    of_torch,
    saved_bytes,
    set_gradients,
    state_bytes,
    third_party,
    train,
)
from torch import Tensor

from pagedopt import optim
from pagedopt.optim import homes

QUARTER = "320KiB"
"""Of the state of most of them, which is 1.2 MiB or more."""

CASES: dict[str, tuple[Make, dict[str, Any]]] = {
    "Adafactor": (of_torch("Adafactor"), {}),
    "RAdam": (of_torch("RAdam", weight_decay=0.1), {}),
    "NAdam": (of_torch("NAdam", weight_decay=0.1), {}),
    "ASGD": (of_torch("ASGD", t0=2), {}),
    "Rprop": (of_torch("Rprop"), {}),
    "SGD": (of_torch("SGD", lr=0.1, momentum=0.9, nesterov=True), {}),
    "Adadelta": (of_torch("Adadelta"), {}),
    "Adamax": (of_torch("Adamax"), {}),
    "AdamW foreach": (of_torch("AdamW", foreach=True, amsgrad=True), {}),
    "Adam fused": (of_torch("Adam", fused=True), {}),
    "Adagrad": (of_torch("Adagrad", lr_decay=0.1), {}),
    "RAdam whole": (of_torch("RAdam"), {"whole": True}),
    "ScheduleFree": (third_party("schedulefree", "AdamWScheduleFree", warmup_steps=3), {}),
    "Prodigy": (third_party("prodigyopt", "Prodigy", has_groups=False), {"whole": True}),
    "SOAP": (third_party("pytorch_optimizer", "SOAP", precondition_frequency=2), {}),
    "CAME": (third_party("pytorch_optimizer", "CAME"), {}),
    "Adan": (third_party("pytorch_optimizer", "Adan"), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_same_bits_and_resume(paging: Any, name: str) -> None:
    make, options = CASES[name]
    arena = paging(budget=QUARTER)
    theirs, ours = make_params(), make_params()
    plain, paged = make(theirs), optim.Paged(make(ours), **options)
    train(plain, theirs, range(4))
    train(paged, ours, range(4))
    assert_same(ours, theirs)
    assert saved_bytes(paged) == saved_bytes(plain)
    assert all_in(arena, paged)

    again = make_params()
    for one, other in zip(again, ours, strict=True):
        one.data.copy_(other.data)
    resumed = optim.Paged(make(again), **options)
    resumed.load_state_dict(copy.deepcopy(plain.state_dict()))
    train(plain, theirs, range(4, 7))
    train(resumed, again, range(4, 7))
    assert_same(again, theirs)
    assert saved_bytes(resumed) == saved_bytes(plain)
    assert arena.is_valid(), arena.fault()
    assert arena.counters()["evicted_bytes"] > 0 or state_bytes(paged) < 320 << 10


def all_in(arena: Any, optimizer: Any) -> bool:
    """Whether all state but numbers is in the arena."""
    tensors = [t for entry in optimizer.state.values() for t in entry.values() if isinstance(t, Tensor) and t.ndim > 0]
    return bool(tensors) and all(arena.owns(tensor.data_ptr(), tensor.nbytes) for tensor in tensors)


@pytest.mark.parametrize("policy", ["lru", "static", "none"])
def test_same_bits_whatever_the_policy(paging: Any, policy: str) -> None:
    make = CASES["RAdam"][0]
    for settings in ({"policy": policy}, {"pager": False}):
        paging(budget=QUARTER, **settings)
        theirs, ours = make_params(), make_params()
        train(make(theirs), theirs, range(4))
        train(optim.Paged(make(ours)), ours, range(4))
        assert_same(ours, theirs)


def test_small_state_is_kept(paging: Any) -> None:
    arena = paging(budget=QUARTER, min_paged_bytes="1MiB")
    params = make_params()
    train(optim.Paged(CASES["RAdam"][0](params)), params, range(2))
    ledger = arena.ledger()
    assert (ledger["kept_pages"], ledger["lower_pages"]) == (ledger["allocated_pages"], 0)


def test_an_optimizer_that_looks_at_all_parameters_is_refused_by_name(paging: Any) -> None:
    paging(budget=QUARTER)
    params = make_params()
    optimizer = optim.Paged(CASES["Prodigy"][0](params))
    with pytest.raises(RuntimeError, match=r"Prodigy looks at all parameters at once: its .*d_denom.*whole=True"):
        train(optimizer, params, range(1))
    assert [len(group["params"]) for group in optimizer.param_groups] == [7]


def test_lbfgs_runs_whole_with_its_closure(paging: Any) -> None:
    paging(budget="64KiB")

    def run(wrap: bool) -> Tensor:
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 9000))
        optimizer: Any = torch.optim.LBFGS([weight], max_iter=4, history_size=3)
        optimizer = optim.Paged(optimizer, whole=True) if wrap else optimizer

        def closure() -> Any:
            optimizer.zero_grad()
            loss = ((weight - 0.3) ** 4).sum() + (weight[1:] * weight[:-1]).sum() ** 2 / 1e4
            loss.backward()
            return loss

        losses = [optimizer.step(closure).item() for _ in range(4)]
        assert losses[-1] < losses[0]
        return weight.detach()

    assert_same([run(True)], [run(False)])


def test_a_schedule_free_optimizer_swaps_its_parameters(paging: Any) -> None:
    arena = paging(budget="64KiB")
    make: Make = CASES["ScheduleFree"][0]
    theirs, ours = make_params(), make_params()
    plain, paged = make(theirs), optim.Paged(make(ours))
    train(plain, theirs, range(3))
    train(paged, ours, range(3))
    plain.eval()
    paged.eval()
    assert_same(ours, theirs)
    with pytest.raises(Exception, match="not in train mode"):
        paged.step()
    assert arena.is_valid()
    train(plain, theirs, range(3, 5))
    train(paged, ours, range(3, 5))
    assert_same(ours, theirs)


def test_a_group_without_gradients_counts_its_steps(paging: Any) -> None:
    paging(budget=QUARTER)
    theirs, ours = make_params(), make_params()
    make = CASES["ScheduleFree"][0]
    plain, paged = make(theirs), optim.Paged(make(ours))
    for params, optimizer in ((theirs, plain), (ours, paged)):
        train(optimizer, params, range(2))
        for param in params[4:]:
            param.grad = None
        optimizer.step()
    assert saved_bytes(paged) == saved_bytes(plain)


def twin(paged: bool, **options: Any) -> tuple[list[Tensor], Any]:
    params = make_params()
    optimizer = torch.optim.NAdam(params, lr=0.1)
    return params, optim.Paged(optimizer, **options) if paged else optimizer


def test_what_torch_puts_around_an_optimizer(paging: Any) -> None:
    """Schedulers, hooks, a scaler, a closure and a new group: each as with the optimizer alone."""
    paging(budget=QUARTER)
    results = []
    for is_paged in (False, True):
        params, optimizer = twin(is_paged)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        calls: list[str] = []
        optimizer.register_step_pre_hook(lambda *_, calls=calls: calls.append("before"))
        optimizer.register_step_post_hook(lambda *_, calls=calls: calls.append("after"))
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1000)
        extra = torch.nn.Parameter(torch.ones(3000))
        for step in range(4):
            if step == 2:
                optimizer.add_param_group({"params": [extra], "lr": 0.3})
                scheduler.base_lrs.append(0.3)
            optimizer.zero_grad()
            set_gradients(params, step)
            extra.grad = torch.full((3000,), float("inf") if step == 3 else 0.7)
            scaler.scale(torch.ones(()))  # which begins it
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
        extra.grad = torch.ones(3000)
        seen: list[bool] = []

        def closure(seen: list[bool] = seen) -> float:
            seen.append(torch.is_grad_enabled())
            return 7.0

        loss = optimizer.step(closure)
        results.append(([*params, extra], calls, seen, loss, [group["lr"] for group in optimizer.param_groups]))
    assert_same(results[1][0], results[0][0])
    assert results[1][1:] == results[0][1:]
    assert results[1][1] == ["before", "after"] * 4  # one of five steps overflowed
    assert results[1][2:4] == ([True], 7.0)


def test_groups_and_state_are_the_optimizers_own(paging: Any) -> None:
    paging(budget=QUARTER)
    params = make_params()
    inner = torch.optim.NAdam(params)
    paged = optim.Paged(inner)
    before = [inner.param_groups, inner.param_groups[0], inner.param_groups[0]["params"]]
    train(paged, params, range(2))
    assert all(map(lambda one, other: one is other, before, [paged.param_groups, paged.param_groups[0], before[2]]))
    assert paged.param_groups[0]["params"] is before[2]
    assert paged.state is inner.state
    assert paged.defaults is inner.defaults
    assert isinstance(paged, torch.optim.Optimizer)
    assert repr(paged).startswith("Paged(NAdam")


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))], ids=["copy", "pickle"]
)
def test_a_copy_goes_on_alike(paging: Any, copied: Any) -> None:
    arena = paging(budget=QUARTER)
    theirs, plain = twin(False)
    ours, paged = twin(True)
    train(plain, theirs, range(3))
    train(paged, ours, range(3))
    copies, clone = copied((ours, paged))
    train(paged, ours, range(5, 6))  # must not touch the copy
    assert all_in(arena, clone)
    train(plain, theirs, range(3, 5))
    train(clone, copies, range(3, 5))
    assert_same(copies, theirs)


def test_two_optimizers_may_load_one_state_dict(paging: Any) -> None:
    paging(budget=QUARTER)
    params, first = twin(True)
    train(first, params, range(2))
    others, second = twin(True)
    for one, other in zip(others, params, strict=True):
        one.data.copy_(other.data)
    second.load_state_dict(first.state_dict())
    train(first, params, range(2, 4))
    train(second, others, range(2, 4))
    assert_same(others, params)


def test_state_that_is_replaced_comes_home(paging: Any) -> None:
    arena = paging(budget=QUARTER)
    theirs, plain = twin(False)
    ours, paged = twin(True)
    for params, optimizer in ((theirs, plain), (ours, paged)):
        train(optimizer, params, range(2))
        entry = optimizer.state[params[3]]
        entry["exp_avg"] = 2 * entry["exp_avg"]  # of its size: where it was
        optimizer.state[params[4]] = {key: value.clone() for key, value in optimizer.state[params[4]].items()}
        entry["extra"] = torch.ones(5)
        train(optimizer, params, range(8, 10))
        entry["extra"] = torch.arange(70_000.0)  # larger: it needs another place
        train(optimizer, params, range(10, 11))
        assert torch.equal(entry["extra"], torch.arange(70_000.0))
    assert_same(ours, theirs)
    assert all_in(arena, paged)


def test_state_that_found_no_room_is_moved_at_the_next_step(paging: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arena = paging(budget=QUARTER)
    theirs, plain = twin(False)
    ours, paged = twin(True)
    train(plain, theirs, range(1))
    moves: list[Any] = []
    move = homes._move

    def fails(*arguments: Any) -> None:
        moves.append(arguments)
        if len(moves) == 4:
            raise OSError("the disk is full")
        move(*arguments)

    monkeypatch.setattr(homes, "_move", fails)
    with pytest.raises(OSError, match="the disk is full"):
        train(paged, ours, range(1))
    assert arena.is_valid(), arena.fault()
    for params, optimizer in ((theirs, plain), (ours, paged)):
        train(optimizer, params, range(1, 4))
    assert all_in(arena, paged)
    assert_same(ours[1:2], theirs[1:2])  # updated before the failure, and ever since


class Odd(torch.optim.Optimizer):
    """Keeps whatever it is given as the state of each parameter."""

    def __init__(self, params: Any, state_of: Any) -> None:
        super().__init__(params, {})
        self.state_of = state_of

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for param in group["params"]:
                self.state[param]["odd"] = self.state_of(param)


def shared(part: Any) -> Any:
    """State that is a part of one tensor, whatever the parameter."""
    one = torch.ones(999)
    return lambda param: part(one)


@pytest.mark.parametrize(
    ("state_of", "kind", "message"),
    [
        (lambda param: torch.eye(9).to_sparse(), TypeError, r"parameter 0 of group 0: its state 'odd' has layout"),
        (lambda param: object(), TypeError, r"parameter 0 of group 0: its state 'odd' is a builtins.object"),
        (shared(lambda one: [one]), ValueError, r"parameter 1 of group 0: its state 'odd\[0\]' shares memory"),
        (shared(lambda one: one[7:]), ValueError, r"parameter 0 of group 0: its state 'odd' shares memory"),
    ],
    ids=["sparse", "no tensor", "shared", "shared view"],
)
def test_what_cannot_be_paged_is_refused_by_name(paging: Any, state_of: Any, kind: Any, message: str) -> None:
    arena = paging(budget=QUARTER)
    params = make_params()
    set_gradients(params, -1)
    with pytest.raises(kind, match=message):
        optim.Paged(Odd(params, state_of)).step()
    assert arena.is_valid(), arena.fault()


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda params: params, TypeError, "wraps a torch.optim.Optimizer, not a list"),
        (lambda params: optim.AdamW(params), TypeError, "AdamW is pagedopt's own"),
        (lambda params: optim.Paged(torch.optim.SGD(params)), TypeError, "Paged is pagedopt's own"),
    ],
    ids=["no optimizer", "own", "twice"],
)
def test_what_is_no_optimizer_to_wrap_is_refused(make: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        optim.Paged(make(make_params()))


def test_a_fork_is_refused(paging: Any, run_python: Any) -> None:
    done = run_python("""
        import os, sys, torch, pagedopt
        param = torch.nn.Parameter(torch.ones(9000))
        optimizer = pagedopt.optim.Paged(torch.optim.RAdam([param]))
        param.grad = torch.ones(9000)
        optimizer.step()
        if os.fork() == 0:
            for use in (optimizer.step, optimizer.state_dict):
                try:
                    use()
                except pagedopt.ForkError:
                    continue
                os._exit(1)
            os._exit(0)
        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
    """)
    assert done.returncode == 0, done.stderr


def test_it_is_listed_as_paged(paging: Any) -> None:
    import pagedopt

    paging(budget=QUARTER)
    _, optimizer = twin(True)
    assert [(one.name, one.is_paged) for one in pagedopt.stats().optimizers] == [("Paged", True)]
    del optimizer
