"""Trainers are installed for one test and undone after it; nothing reaches for a network."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import pagedopt

os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "true", "TOKENIZERS_PARALLELISM": "false"}


@pytest.fixture
def installed() -> Iterator[None]:
    pagedopt.install()
    yield
    pagedopt.uninstall()


@pytest.fixture(autouse=True)
def no_overrides() -> Iterator[None]:
    yield
    pagedopt.optim.GlobalOptimManager.get_instance().initialize()
