"""TRL, PEFT, Accelerate and Lightning as they are, with a model of a few thousand parameters."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

for package in ("transformers", "accelerate", "trl", "peft", "datasets", "lightning"):
    pytest.importorskip(package)

import lightning
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from datasets import Dataset
from lightning.pytorch.loggers import CSVLogger
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from trainers.tiny import TEXTS, Data, inner, make_model, make_tokenizer, make_trainer, weights
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

import pagedopt
from pagedopt import optim
from pagedopt.trainers.lightning import StatsCallback
from pagedopt.trainers.transformers import StatsCallback as TransformersCallback


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(("cls", "config"), [(SFTTrainer, SFTConfig), (DPOTrainer, DPOConfig)])
def test_trl(cls: Any, config: Any, lora: bool, installed: None, tmp_path: Path) -> None:
    rows = [{"text": text} for text in TEXTS]
    if cls is DPOTrainer:
        rows = [{"prompt": "the cat", "chosen": "sat on the mat", "rejected": "ran under a tree"}] * 8
    args = config(
        str(tmp_path), optim="paged_adamw_8bit", max_steps=2, learning_rate=1e-2, use_cpu=True, bf16=False,
        per_device_train_batch_size=2, report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    peft = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], r=4) if lora else None
    others: dict[str, Any] = {"ref_model": make_model()} if cls is DPOTrainer and not lora else {}
    others |= {"peft_config": peft, "processing_class": make_tokenizer()}
    trainer = cls(make_model(), args=args, train_dataset=Dataset.from_list(rows), **others)
    trainable = [param for param in trainer.model.parameters() if param.requires_grad]
    before = [param.detach().clone() for param in trainable]
    trainer.train()
    assert type(inner(trainer)) is optim.AdamW
    assert inner(trainer).param_groups[0]["is_paged"] is True
    assert any(not torch.equal(old, new) for old, new in zip(before, trainable, strict=True))


def test_lora_plus() -> None:
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "embed_tokens"], r=4)
    model: Any = get_peft_model(make_model(), config)
    optimizer: Any = create_loraplus_optimizer(model, optim.PagedAdamW8, lr=1e-3, loraplus_lr_ratio=16)
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3, 1e-6, 16e-3}
    before = weights(model)
    model(**{key: value[None] for key, value in Data()[0].items()}).loss.backward()
    optimizer.step()
    moved = [not torch.equal(old, new) for old, new in zip(before, weights(model), strict=True)]
    assert moved == [param.grad is not None and bool(param.grad.any()) for param in model.parameters()]
    assert any(moved)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_accelerate(precision: str) -> None:
    """With gradient accumulation: as a loop without Accelerate over the same batches, to the bit."""
    trained = []
    for is_plain in (True, False):
        model = make_model()
        optimizer: Any = optim.PagedAdamW8bit(model.parameters(), lr=1e-2)
        loader: Any = torch.utils.data.DataLoader(Data(), batch_size=4)
        if is_plain:
            for number, batch in enumerate(loader):
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                    loss = model(**batch).loss
                (loss / 2).backward()
                if number % 2:
                    optimizer.step()
                    optimizer.zero_grad()
        else:
            AcceleratorState._reset_state(True)
            accelerator = Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=2)
            model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
            for batch in loader:
                with accelerator.accumulate(model):
                    accelerator.backward(model(**batch).loss)
                    optimizer.step()
                    optimizer.zero_grad()
        trained.append(weights(model))
    assert all(map(torch.equal, *trained))


class Module(lightning.LightningModule):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.model = make_model()

    def training_step(self, batch: Any, index: int) -> Any:
        return self.model(**batch).loss

    def configure_optimizers(self) -> Any:
        return optim.PagedAdamW8bit(self.parameters(), lr=1e-2)


def fit(folder: Path, epochs: int, **options: Any) -> Any:
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=CSVLogger(folder), log_every_n_steps=1,
        callbacks=[StatsCallback()],
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0, accumulate_grad_batches=2,
    )  # fmt: skip
    module = Module()
    trainer.fit(module, torch.utils.data.DataLoader(Data(), batch_size=8), **options)  # an epoch is two steps
    return trainer, module


def test_lightning_resumes_and_logs(tmp_path: Path) -> None:
    first, _ = fit(tmp_path, 1)
    first.save_checkpoint(tmp_path / "one.ckpt")
    _, resumed = fit(tmp_path, 2, ckpt_path=str(tmp_path / "one.ckpt"))
    whole_trainer, whole = fit(tmp_path, 2)
    assert all(map(torch.equal, weights(whole), weights(resumed)))
    rows = list(csv.DictReader((Path(whole_trainer.logger.log_dir) / "metrics.csv").read_text().splitlines()))
    logged = {int(row["step"]): float(row["paging/allocated_bytes/cpu"]) for row in rows}
    assert list(logged) == [1, 2, 3, 4]
    assert logged[4] > 0


def test_the_trainers_log_has_the_figures_beside_its_own(installed: None, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, optim="paged_adamw_8bit")
    trainer.add_callback(TransformersCallback(trainer))
    trainer.train()
    history = trainer.state.log_history
    steps = [row["step"] for row in history if "paging/allocated_bytes/cpu" in row]
    assert steps == [row["step"] for row in history if "loss" in row] == [1, 2, 3, 4]
    expected = pagedopt.stats().arenas[0].allocated_bytes
    last = [row for row in history if "paging/allocated_bytes/cpu" in row][-1]
    assert last["paging/allocated_bytes/cpu"] == expected > 0
