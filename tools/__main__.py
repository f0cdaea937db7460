"""Run a module of this folder: `python tools bench.many --help` runs bench/many.py. Without a name, list the modules.

The search path begins with this folder and does not have the repository: its `pagedopt` has no core, and would hide the
package that is installed.
"""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def commands() -> dict[str, str]:
    """The modules that have a command line, with what each does."""
    found = {}
    for path in sorted(HERE.glob("*/*.py")):
        text = path.read_text(encoding="utf-8")
        if '\nif __name__ == "__main__":\n' in text:
            name = ".".join(path.relative_to(HERE).with_suffix("").parts).removesuffix(".__main__")
            found[name] = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return found


def main(arguments: list[str]) -> int:
    known = commands()
    if not arguments or arguments[0] not in known:
        print("usage: python tools NAME ARGUMENTS\n", file=sys.stderr)
        print("\n".join(f"  {name:<28}{what}" for name, what in known.items()), file=sys.stderr)
        return 2
    name, *rest = arguments
    sys.path[0] = str(HERE)
    sys.argv[:] = [f"python tools {name}", *rest]
    runpy.run_module(name, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
