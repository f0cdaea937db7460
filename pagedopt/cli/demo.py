"""Train a small GPT with paged optimizers under a budget below their state.

It learns the source of the Python standard library three times from the same start: with PagedAdamW, with
PagedAdamW8bit, and with torch's own AdamW for comparison. Ends with a table, a picture and a JSON file.
"""

from __future__ import annotations

import argparse
import typing
from importlib.util import find_spec
from pathlib import Path

from pagedopt.config import Size, parse_size
from pagedopt.config.settings import Policy
from pagedopt.config.size import SizeSyntaxError
from pagedopt.errors import PagedoptError

__all__ = ["add_arguments", "run"]

EXTRA = ("rich", "matplotlib")
BUDGET = parse_size("25%")
OUT = Path("pagedopt-demo")


def budget(text: str) -> Size:
    """A budget as it is written on the command line."""
    try:
        return parse_size(text)
    except SizeSyntaxError as error:
        examples = " or ".join(error.readings or ("25%", "24MiB"))
        raise argparse.ArgumentTypeError(f"{text!r}: {error}; write {examples}") from None


def count(text: str) -> int:
    """A number of steps as it is written on the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of steps, 1 or more")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the verb."""
    add = parser.add_argument
    add("--steps", type=count, help="steps of each run (default: about three minutes in all)")
    add(
        "--budget",
        type=budget,
        default=BUDGET,
        help="what each paged run may keep in memory: a size, or a percentage of its own state (default: 25%%)",
    )
    add("--policy", choices=typing.get_args(Policy), default="next_use", help="what decides the moves (next_use)")
    add("--out", type=Path, default=OUT, metavar="DIR", help="where the files go (default: ./pagedopt-demo)")
    add("--seed", type=int, default=0, help="start of the weights and of the order of the text (default: 0)")
    add("--quick", action="store_true", help="a smaller model for a few steps: about 15 seconds")


def run(arguments: argparse.Namespace) -> None:
    """Runs the demo.

    Raises:
        PagedoptError: a package of the `demo` extra is missing, the directory cannot be made, or training failed.
    """
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise PagedoptError(f"the demo needs {' and '.join(missing)}: pip install 'pagedopt[demo]'")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PagedoptError(f"--out {arguments.out} cannot be made: {error.strerror}") from None
    from pagedopt.demo import job  # loads torch

    job.run(
        job.QUICK if arguments.quick else job.FULL,
        steps=arguments.steps,
        budget=arguments.budget,
        policy=arguments.policy,
        seed=arguments.seed,
        out=arguments.out,
    )
