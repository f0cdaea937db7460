"""A training run for the monitor to watch, until it is killed: its optimizer state does not fit the budget."""

from __future__ import annotations

import time

import torch

from pagedopt import optim

torch.manual_seed(0)
torch.set_num_threads(1)
model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(16)))
optimizer = optim.PagedAdamW(model.parameters(), lr=1e-4)
batch = torch.randn(8, 256)
while True:
    model(batch).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    time.sleep(0.02)
