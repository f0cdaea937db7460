"""The error tree: what it is, what it says, that it survives pickling."""

from __future__ import annotations

import copy
import errno
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from pagedopt import errors
from pagedopt.errors import (
    CheckpointError,
    ConfigError,
    DeviceError,
    ForkError,
    MonitorError,
    PagedoptError,
    PagerError,
    Problem,
    SpillError,
)

TREE = [
    (ConfigError, ValueError),
    (SpillError, OSError),
    (DeviceError, RuntimeError),
    (PagerError, RuntimeError),
    (CheckpointError, ValueError),
    (ForkError, RuntimeError),
    (MonitorError, RuntimeError),
]
PROBLEMS = [
    Problem("a.toml:3", "depth = 0: out of range", "a whole number from 1"),
    Problem("PAGEDOPT_BUGDET", "not a setting", hints=("PAGEDOPT_BUDGET",)),
    Problem("keyword budget", "budget = 16", "a size", ("16GiB", "16GB")),
]


@pytest.mark.parametrize(("error", "builtin"), TREE)
def test_error_is_caught_as_pagedopt_and_as_builtin(error: type[PagedoptError], builtin: type[Exception]) -> None:
    assert issubclass(error, PagedoptError)
    assert issubclass(error, builtin)


def test_all_and_docstring_name_every_error() -> None:
    classes = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert classes == set(errors.__all__)
    assert {error for error, _ in TREE} == set(PagedoptError.__subclasses__())
    assert errors.__doc__ is not None
    for error, builtin in TREE:
        assert f"{error.__name__} ({builtin.__name__})" in errors.__doc__


def test_config_error_lists_every_problem_in_order() -> None:
    assert str(ConfigError(PROBLEMS)).splitlines() == [
        "3 problems in the settings of pagedopt",
        "  a.toml:3: depth = 0: out of range; allowed: a whole number from 1",
        "  PAGEDOPT_BUGDET: not a setting; did you mean 'PAGEDOPT_BUDGET'?",
        "  keyword budget: budget = 16; allowed: a size; did you mean '16GiB' or '16GB'?",
    ]
    assert str(ConfigError(PROBLEMS[:1])).startswith("1 problem in")


@pytest.mark.parametrize("remade", [copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_survive_copy_and_pickle(remade: Callable[[Any], Any]) -> None:
    config = remade(ConfigError(PROBLEMS))
    assert config.problems == tuple(PROBLEMS)
    assert str(config) == str(ConfigError(PROBLEMS))
    spill = remade(SpillError("no room", errno=errno.ENOSPC, spill_dir="/s", needed_bytes=5, free_bytes=2))
    assert str(spill) == "no room [ENOSPC]"
    assert (spill.errno, spill.spill_dir, spill.needed_bytes, spill.free_bytes) == (errno.ENOSPC, "/s", 5, 2)
    lost = remade(MonitorError("process 1 has ended", exit_code=4))
    assert (str(lost), lost.exit_code) == ("process 1 has ended", 4)


def test_spill_error_without_number_is_its_message() -> None:
    assert str(SpillError("spill_dir /dev/shm is in RAM")) == "spill_dir /dev/shm is in RAM"
