"""Which lock guards what is said in the sources (base/annotations.h); clang checks it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from native.builds import CSRC

CLANG = os.environ.get("CLANGXX") or shutil.which("clang++")
SOURCES = sorted(path for folder in ("base", "memory") for path in (CSRC / folder).glob("*.cpp"))

pytestmark = pytest.mark.skipif(CLANG is None, reason="needs clang++ (on PATH, or named by CLANGXX)")


def said_by_clang(source: Path, text: str) -> str:
    """What clang says of `text` in the place of the source; empty if nothing."""
    command = [
        str(CLANG), "-std=c++17", "-fsyntax-only", "-Wthread-safety", "-Werror", "-DPAGEDOPT_CHECKED",
        f"-I{CSRC}", "-x", "c++", "-",
    ]  # fmt: skip
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=120, cwd=CSRC)
    return f"{source}:\n{done.stderr}" if done.returncode else ""


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_guarded_data_is_used_under_its_lock(source: Path) -> None:
    assert said_by_clang(source, source.read_text()) == ""


@pytest.mark.parametrize("name", ["arena", "arena_report", "extents", "mover", "pins", "trace"])
def test_a_lock_that_is_missing_is_found(name: str) -> None:
    source = CSRC / "memory" / f"{name}.cpp"
    text, locks = re.subn(r"^ +const Lock \w+\(.*\);$", "", source.read_text(), flags=re.MULTILINE)
    assert locks > 0
    assert "thread-safety" in said_by_clang(source, text)
