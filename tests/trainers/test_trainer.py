"""The Trainer of Transformers as it is, with these optimizers by its names for bitsandbytes."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from trainers.tiny import Data, inner, make_args, make_model, make_trainer, weights
from transformers import Trainer
from transformers.training_args import OptimizerNames

import pagedopt
from pagedopt import optim
from pagedopt.trainers.names import NAMES

OPTIM_ARGS = {"AdEMAMix": "alpha=4.5,beta3=0.99,t_alpha=7", "RMSprop": "alpha=0.9,eps=1e-6"}


def class_of(name: str) -> Any:
    stem = NAMES[name][0]
    return getattr(optim, stem, None) or pytest.skip(f"there is no {stem} yet")


def as_numbers(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The Trainer hands the options of RMSprop on as text."""
    return {key: float(value) if isinstance(value, str) else value for key, value in kwargs.items()}


def test_every_name_of_bitsandbytes_is_known() -> None:
    handlers = pytest.importorskip("transformers.trainer_optimizer")
    assert {name.value for name in handlers._BITSANDBYTES_OPTIMIZERS} == NAMES.keys()
    assert len(NAMES) == 15


@pytest.mark.parametrize("name", NAMES)
def test_the_arguments_are_those_that_bitsandbytes_gets(name: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    cls, text = class_of(name), OPTIM_ARGS.get(NAMES[name][0])
    args = make_args(tmp_path, optim=name, optim_args=text, adam_beta1=0.8, adam_epsilon=1e-7)
    theirs, their_kwargs = Trainer.get_optimizer_cls_and_kwargs(args)
    pagedopt.install()
    try:
        ours, our_kwargs = Trainer.get_optimizer_cls_and_kwargs(args)
    finally:
        pagedopt.uninstall()
    assert "bitsandbytes" in theirs.__module__
    assert ours is cls
    assert ours.__name__ == theirs.__name__
    assert our_kwargs == as_numbers(their_kwargs)


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_without_bitsandbytes(
    name: str, installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = class_of(name)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # neither imported nor found
    trainer = make_trainer(tmp_path, optim=name, learning_rate=1e-3)
    trainer.train()
    optimizer, before = inner(trainer), weights(make_model())
    assert type(optimizer) is cls
    assert all(group["is_paged"] is NAMES[name][2] for group in optimizer.param_groups)
    assert all(not torch.equal(old, new) for old, new in zip(before, weights(trainer.model), strict=True))
    embedding = trainer.model.get_input_embeddings().weight
    types = {
        param is embedding: {value.dtype for value in state.values() if getattr(value, "ndim", 0) == 2}
        for param, state in optimizer.state.items()
        if param.numel() >= 4096
    }
    assert types == {True: {torch.float32}, False: {torch.uint8 if NAMES[name][1] == 8 else torch.float32}}


@pytest.mark.parametrize("name", ["paged_adamw_32bit", "adamw_8bit", "paged_lion_8bit"])
def test_it_trains_as_bitsandbytes_does(name: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    trained = []
    for is_ours in (False, True):
        if is_ours:
            pagedopt.install()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bitsandbytes does not page on the CPU
            trainer = make_trainer(tmp_path, optim=name, learning_rate=1e-3)
            trainer.train()
        assert ("bitsandbytes" in str(type(inner(trainer)))) is not is_ours
        trained.append(weights(trainer.model))
    pagedopt.uninstall()
    __import__("bitsandbytes").optim.GlobalOptimManager.get_instance().initialize()
    for before, theirs, ours in zip(weights(make_model()), *trained, strict=True):
        moved = (theirs - before).abs().mean()
        assert (theirs - ours).abs().mean() < (0.05 if "8bit" in name else 1e-3) * moved


@pytest.mark.parametrize(
    "options",
    [{}, {"bf16": True}, {"gradient_accumulation_steps": 2}, {"optim": "lion_8bit"}],
    ids=str,
)
def test_resuming_gives_the_same_bits(options: dict[str, Any], installed: None, tmp_path: Path) -> None:
    given = {"optim": "paged_adamw_8bit", "save_strategy": "steps", "save_steps": 2, **options}
    whole = make_trainer(tmp_path, **given)
    whole.train()
    resumed = make_trainer(tmp_path, **given)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert all(map(torch.equal, weights(whole.model), weights(resumed.model)))
    (tmp_path / "checkpoint-2" / "optimizer.pt").unlink()
    stateless = make_trainer(tmp_path, **given)
    stateless.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert not all(map(torch.equal, weights(whole.model), weights(stateless.model))), "the state matters"


class OwnOptimizer(Trainer):  # type: ignore[misc]
    """A Trainer that makes its own groups, as that of Unsloth does."""

    def create_optimizer(self, model: Any = None) -> Any:
        cls, kwargs = Trainer.get_optimizer_cls_and_kwargs(self.args)
        self.optimizer = cls([{"params": list(self.model.parameters()), "weight_decay": 0.0}], **kwargs)
        return self.optimizer


def test_a_subclass_that_makes_its_own_groups(installed: None, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, OwnOptimizer, optim="paged_adamw_8bit")
    trainer.train()
    assert type(inner(trainer)) is optim.AdamW
    assert inner(trainer).param_groups[0]["is_paged"] is True


def test_installing_twice_is_undone_once(tmp_path: Path) -> None:
    old = vars(Trainer)["get_optimizer_cls_and_kwargs"]
    for _ in range(2):
        pagedopt.install()
    new = vars(Trainer)["get_optimizer_cls_and_kwargs"]
    pagedopt.uninstall()
    assert vars(Trainer)["get_optimizer_cls_and_kwargs"] is old is not new
    pagedopt.uninstall()
    assert vars(Trainer)["get_optimizer_cls_and_kwargs"] is old


def test_other_names_are_the_trainers_own(installed: None, tmp_path: Path) -> None:
    for name in OptimizerNames:
        if name.value in ("adamw_torch", "sgd", "adafactor"):
            cls, _ = Trainer.get_optimizer_cls_and_kwargs(make_args(tmp_path, optim=name))
            assert not cls.__module__.startswith("pagedopt")


def test_options_that_cannot_take_effect_are_named(installed: None, tmp_path: Path) -> None:
    args = make_args(tmp_path, optim="adamw_8bit", optim_args="amsgrad=true, wrong=1,min_8bit_size=64")
    with pytest.warns(UserWarning, match="optim_args: wrong cannot be set there for AdamW"):
        _, kwargs = Trainer.get_optimizer_cls_and_kwargs(args)
    assert (kwargs["amsgrad"], kwargs["min_8bit_size"]) == (True, 64)


@pytest.mark.parametrize("name", ["PagedAdamW8bit", "paged_adamw_8bit", None])
def test_hf_trains_the_same_without_installing(name: str | None, tmp_path: Path) -> None:
    args = make_args(tmp_path, optim="paged_adamw_8bit")
    model = make_model()
    chosen = pagedopt.hf(args, name, model=model)
    direct = Trainer(model=model, args=args, train_dataset=Data(), optimizer_cls_and_kwargs=chosen)
    direct.train()
    pagedopt.install()
    installed = make_trainer(tmp_path, optim="paged_adamw_8bit")
    installed.train()
    pagedopt.uninstall()
    assert all(map(torch.equal, weights(direct.model), weights(installed.model)))
    with pytest.raises(ValueError, match="'AdamX' is no optimizer of pagedopt"):
        pagedopt.hf(args, "AdamX")
