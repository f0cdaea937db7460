"""Every module of tools with a command line can be run, and the documents name no other."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from bench.machine import ROOT, TOOLS

COMMANDS: dict[str, str] = runpy.run_path(str(TOOLS / "__main__.py"))["commands"]()
WITHOUT_OPTIONS = {"bench.child", "bench.training", "make.bitsandbytes_fixtures", "make.cost_plot", "make.optim_stub"}
SHOWN = re.compile(r"\bpython[\d.]* tools ([a-z_][\w.]*\w)")
TEXTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *TOOLS.glob("*/*.md"), *TOOLS.glob("*/*.py"), TOOLS / "gpu_check"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOLS), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - WITHOUT_OPTIONS))
def test_a_command_explains_itself(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python tools {name} "), done.stdout


def test_without_a_name_all_are_listed() -> None:
    assert COMMANDS.keys() >= WITHOUT_OPTIONS
    assert all(COMMANDS.values()), "each says what it does"
    for arguments in ([], ["gpu.nothing"]):
        done = run(*arguments)
        assert done.returncode == 2
        listed = re.findall(r"^  (\S+)  +\S", done.stderr, re.MULTILINE)
        assert listed == sorted(COMMANDS)


def test_the_installed_package_is_used(tmp_path: Path) -> None:
    """As where it is not installed from here: the repository is not on the search path."""
    (tmp_path / "pagedopt").mkdir()
    (tmp_path / "pagedopt" / "__init__.py").write_text("raise SystemExit('the installed one')")
    command = [sys.executable, "-S", "tools", "gpu.touch"]  # -S: without what is installed for development
    env = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.strip() == "the installed one", done.stderr


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_that_are_shown_exist(text: Path) -> None:
    assert set(SHOWN.findall(text.read_text())) - COMMANDS.keys() == set()


def test_shown_commands_are_found() -> None:
    """The pattern sees what it should, or the test above could not fail."""
    assert SHOWN.findall("`python tools bench`, python tools gpu.gone --x, `python tools make.top_svg`.") == [
        "bench",
        "gpu.gone",
        "make.top_svg",
    ]
    assert any(SHOWN.search(text.read_text()) for text in ROOT.glob("docs/*.md"))
