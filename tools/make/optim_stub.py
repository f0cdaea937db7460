"""Writes pagedopt/optim/__init__.pyi from the table of classes; with --check, fails where it is not current."""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from pathlib import Path

from pagedopt.optim.aliases import ALIASES
from pagedopt.optim.muon import MUONS, Muon
from pagedopt.optim.optimizer import RuleOptimizer
from pagedopt.optim.presets import CLASSES, signature_of

STUB = Path(__file__).parents[2] / "pagedopt" / "optim" / "__init__.pyi"

HEAD = '''\
"""Made by tools/make/optim_stub.py from the tables in rules.py and presets.py."""

# fmt: off

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from pagedopt.optim.export import bitsandbytes_state_dict as bitsandbytes_state_dict
from pagedopt.optim.fused import FusedBackward as FusedBackward
from pagedopt.optim.fused import fuse_backward as fuse_backward
from pagedopt.optim.manager import GlobalOptimManager as GlobalOptimManager
from pagedopt.optim.manager import keep_32bit as keep_32bit
from pagedopt.optim.muon import Muon as Muon
from pagedopt.optim.optimizer import RuleOptimizer
from pagedopt.optim.wrapped import Paged as Paged

__all__ = [
{names}
]
'''


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """As ruff sorts: capitals first, numbers in a name as numbers."""
    return [(not name.isupper(), 0, "")] + [
        (not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name) if part
    ]


def wrapped(parameters: list[str]) -> str:
    """The parameters on lines of at most 120 characters."""
    return textwrap.fill(", ".join(parameters), 120, initial_indent=" " * 8, subsequent_indent=" " * 8)


def doc_of(name: str, cls: type[RuleOptimizer]) -> str:
    """The docstring; of a variant its first line alone, for its arguments are those of the plain class."""
    doc = inspect.getdoc(cls) or ""
    stem = cls.family.stem
    return doc + "\n" if name == stem else f"{doc.splitlines()[0]}\n\nArguments as of `{stem}`.\n"


def render() -> str:
    """The text of the stub."""
    classes = [*CLASSES, *ALIASES, *MUONS, "FusedBackward", "GlobalOptimManager", "Paged"]
    names = [*sorted(classes, key=_natural), "bitsandbytes_state_dict", "fuse_backward", "keep_32bit"]
    parts = [HEAD.format(names="\n".join(f'    "{name}",' for name in names))]
    for name, cls in CLASSES.items():
        doc = textwrap.indent(f'"""{doc_of(name, cls)}"""', "    ", lambda line: bool(line.strip()))
        parameters = []
        for parameter in signature_of(cls.family, cls.variant).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parameters:
                parameters.append("*")
            parameters.append(str(parameter).replace("'", ""))
        parts.append(
            f"class {name}(RuleOptimizer):\n{doc}\n    def __init__(\n{wrapped(parameters)}\n    ) -> None: ...\n"
        )
    for name, alias in ALIASES.items():
        parts.append(f'class {name}({alias.__mro__[1].__name__}):\n    """{alias.__doc__}"""\n')
    for name, muon in MUONS.items():
        if muon is not Muon:
            parts.append(f'class {name}(Muon):\n    """{(muon.__doc__ or "").splitlines()[0]}"""\n')
    return "\n".join(parts)


def main() -> int:
    if "--check" in sys.argv[1:]:
        return 0 if STUB.read_text() == render() else 1
    STUB.write_text(render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
