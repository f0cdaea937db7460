"""The model of the demo: a byte-level GPT, with tables of byte runs that give it many parameters and few operations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["GPT", "Shape"]

BYTES = 256
RUN_LENGTHS = (2, 3, 5)
RUN_BASE = 257  # prime to the number of rows, so that every byte of a run moves its row


@dataclass(frozen=True)
class Shape:
    """The size of a model.

    Attributes:
        context: bytes it sees at once.
        width: length of the vector at each position.
        layers: blocks.
        heads: attention heads; they divide the width.
        table_rows: rows of each table of byte runs; a prime.
    """

    context: int
    width: int
    layers: int
    heads: int
    table_rows: int


class Block(nn.Module):
    """Attention, then a two-layer perceptron, each on normalised input and added to what came in (pre-norm)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.perceptron_norm = nn.LayerNorm(width)
        self.perceptron_in = nn.Linear(width, 4 * width, bias=False)
        self.perceptron_out = nn.Linear(4 * width, width, bias=False)

    def attend(self, hidden: Tensor) -> Tensor:
        """Causal attention over `hidden` (batch, position, width)."""
        batch, positions, width = hidden.shape
        split = self.query_key_value(hidden).view(batch, positions, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        joined: Tensor = self.attention_out(mixed.transpose(1, 2).reshape(batch, positions, width))
        return joined

    def forward(self, hidden: Tensor) -> Tensor:
        """From and to (batch, position, width)."""
        hidden = hidden + self.attend(self.attention_norm(hidden))
        inner = functional.gelu(self.perceptron_in(self.perceptron_norm(hidden)))
        out: Tensor = hidden + self.perceptron_out(inner)
        return out


class GPT(nn.Module):
    """Predicts the next byte.

    Beside the embedding of its byte, a position gets a row for each of the last 2, 3 and 5 bytes, found by hashing them
    (as the Byte Latent Transformer does, Pagnoni et al. 2024). They learn spellings in a few hundred steps and, like
    the vocabulary of a large model, hold most of the parameters: much optimizer state for little arithmetic.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.byte = nn.Embedding(BYTES, shape.width)
        self.position = nn.Embedding(shape.context, shape.width)
        self.runs = nn.ModuleList(nn.Embedding(shape.table_rows, shape.width) for _ in RUN_LENGTHS)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, BYTES, bias=False)
        self.head.weight = self.byte.weight
        self.table_rows = shape.table_rows
        self.initialise()

    def initialise(self) -> None:
        """As GPT-2: normal with 0.02, smaller where a block adds to what came in."""
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                scale = math.sqrt(2 * len(self.blocks)) if name.endswith("_out.weight") else 1.0
                nn.init.normal_(weight, std=0.02 / scale)

    def run_rows(self, text: Tensor, length: int) -> Tensor:
        """Row in the table of runs of `length` bytes, for each position of `text` (batch, position)."""
        row = torch.zeros_like(text)
        for back in reversed(range(length)):
            earlier = functional.pad(text, (back, 0))[:, : text.shape[1]]
            row = row * RUN_BASE + earlier
        return row % self.table_rows

    def forward(self, text: Tensor) -> Tensor:
        """From bytes as int64 (batch, position) to logits (batch, position, 256)."""
        hidden = self.byte(text) + self.position.weight[: text.shape[1]]
        for length, table in zip(RUN_LENGTHS, self.runs, strict=True):
            hidden = hidden + table(self.run_rows(text, length))
        for block in self.blocks:
            hidden = block(hidden)
        logits: Tensor = self.head(self.norm(hidden))
        return logits
