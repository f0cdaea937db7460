"""Run a training command, unchanged, with the optimizers of pagedopt.

In every Python that the command starts, the Trainer of Transformers makes optimizers of pagedopt for its names of
bitsandbytes, such as paged_adamw_8bit: `pagedopt run -- torchrun train.py --optim paged_adamw_8bit`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pagedopt.errors import PagedoptError

__all__ = ["add_arguments", "run"]

TRAINERS = Path(__file__).parents[1] / "trainers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the verb."""
    parser.add_argument(
        "--as-bitsandbytes",
        action="store_true",
        help="`import bitsandbytes` finds a module whose `optim` is pagedopt's and that has nothing else",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD", help="the command and its arguments")


def run(arguments: argparse.Namespace) -> None:
    """Becomes the command.

    Raises:
        PagedoptError: no command was given, or it cannot be started.
    """
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise PagedoptError("give a command: pagedopt run -- python train.py")
    folders = [TRAINERS / "startup"]
    if arguments.as_bitsandbytes:
        folders.append(TRAINERS / "standin")
    path = os.pathsep.join(filter(None, [*map(str, folders), os.environ.get("PYTHONPATH", "")]))
    try:
        os.execvpe(command[0], command, {**os.environ, "PYTHONPATH": path})
    except OSError as error:
        raise PagedoptError(f"{command[0]} cannot be started: {error.strerror}") from None
