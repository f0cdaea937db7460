"""A language model of a few thousand parameters, its tokenizer, texts, and a Trainer on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments

WORDS = ["<pad>", "<eos>", "<unk>", "the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree", "and", "then"]
TEXTS = ["the cat sat on the mat", "a dog ran under the tree", "the dog sat and then ran", "a cat ran on a tree"] * 4


def make_model() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=160, max_position_embeddings=32, pad_token_id=0, **sizes))


def make_tokenizer() -> Any:
    words = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=32
    )


class Data(torch.utils.data.Dataset[Any]):
    """Sequences of random tokens."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = torch.randint(160, (8,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": tokens, "labels": tokens}


def make_args(out: Path, **options: Any) -> Any:
    given = {"max_steps": 4, "learning_rate": 1e-2, "weight_decay": 0.1, "logging_steps": 1, "save_strategy": "no"}
    return TrainingArguments(
        str(out), use_cpu=True, report_to="none", disable_tqdm=True, per_device_train_batch_size=2, **given | options
    )


def make_trainer(out: Path, cls: Any = Trainer, **options: Any) -> Any:
    return cls(model=make_model(), args=make_args(out, **options), train_dataset=Data())


def weights(model: Any) -> list[torch.Tensor]:
    return [param.detach().clone() for param in model.parameters()]


def inner(trainer: Any) -> Any:
    """The optimizer itself, without Accelerate's wrapper."""
    return getattr(trainer.optimizer, "optimizer", trainer.optimizer)
