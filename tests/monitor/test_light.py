"""What watching loads, and how soon the command answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = """
import sys
{work}
print(*sorted({{"torch", "numpy", "pagedopt._core", "prometheus_client"}} & sys.modules.keys()))
"""


@pytest.mark.parametrize(
    "work",
    [
        "import pagedopt",
        "import pagedopt.monitor.feed, pagedopt.monitor.places",
        "import pagedopt.monitor.export.chrome, pagedopt.monitor.export.figures",
        "from pagedopt.cli import main; main(['ps'])",
        "from pagedopt.cli import main; main(['stats'])",
        "from pagedopt.cli import main; main(['trace'])",
        "from pagedopt.cli import main; main(['top', '--once'])",
    ],
)
def test_watching_loads_neither_torch_nor_the_core(work: str, place: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HEAVY.format(work=work)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


def test_help_loads_little() -> None:
    """What makes a command answer at once, counted in modules: seconds differ between machines."""
    work = "from pagedopt.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    listing = f"import sys; known = set(sys.modules)\n{work}\nprint(*sorted(sys.modules.keys() - known))"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    modules = done.stdout.splitlines()[-1].split()
    foreign = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - {"pagedopt"}
    assert foreign <= {"msgspec", "typing_extensions"}
    assert "pagedopt.cli" in modules
    assert len(modules) < 250
