"""A pager that fails: it hears of it at once, and what its error says to do can be done."""

from __future__ import annotations

import ast
import operator
import re
from pathlib import Path
from typing import Any

import pytest

import pagedopt

PACKAGE = Path(pagedopt.__file__).parent


def calls_in_texts() -> list[str]:
    """Every call of something of pagedopt that a text of the package names."""
    texts = [
        node.value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return sorted({name for text in texts for name in re.findall(r"\bpagedopt\.([a-z_.]+)\(", text)})


@pytest.mark.parametrize("name", calls_in_texts())
def test_what_texts_name_is_public(name: str) -> None:
    assert name.split(".")[0] in (*pagedopt.__all__, "config")
    assert callable(operator.attrgetter(name)(pagedopt))


def test_the_error_of_a_failed_pager_names_a_call() -> None:
    assert "restart_pager" in calls_in_texts()


def test_pager_hears_of_a_failure_at_once(run_python: Any) -> None:
    """Neither a step nor the next look at the memory, in an hour, has to come first."""
    done = run_python(
        """
import resource, time
import torch, pagedopt
from pagedopt import optim

pagedopt.configure(page_bytes="64KiB", budget="64MiB", min_paged_bytes=0, interval_s=3600.0)
parameter = torch.nn.Parameter(torch.zeros(1_000_000))
optimizer = optim.PagedAdamW([parameter])
parameter.grad = torch.ones_like(parameter)
optimizer.step()
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))  # what a full disk does
pagedopt.configure(budget="1MiB")
end_s = time.monotonic() + 60
while pagedopt.stats().pager.is_alive and time.monotonic() < end_s:
    time.sleep(0.01)
print(pagedopt.stats().pager.failure is not None)
try:
    optimizer.step()
except pagedopt.PagerError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    pagedopt.restart_pager()
    optimizer.step()
    print(pagedopt.stats().pager.is_alive, "pagedopt.restart_pager()" in str(error))
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\nTrue True\n", done.stdout + done.stderr
