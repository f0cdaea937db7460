"""What documents and sources of the package refer to is there: files by their path, names by their modules."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from slow_tests import SLOW

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "csrc/README.md", *ROOT.glob("pagedopt/**/*.py")]
DOCUMENTS += [*ROOT.glob("tools/**/*.md"), *ROOT.glob("tools/**/*.py"), ROOT / "tests/conftest.py"]
ELSEWHERE = {"crt/host_defines.h", "cuda.h", "cuda_runtime_api.h"}
"""Files of a CUDA toolkit."""

FILE = re.compile(r"(?<![\w/.{<~-])((?:[A-Za-z][\w-]*/)*[A-Za-z]\w*\.(?:py|pyi|h|cpp|cu|md))\b")
FOLDER = re.compile(r"(?<![\w/.{<~-])((?:csrc|docs|pagedopt|tests|tools)(?:/[a-z]\w*)+)(?![\w*.<{-])")
NAME = re.compile(r"(?<![\w/.~\"-])(pagedopt(?:\.[A-Za-z_]\w*)+)(?![\w/])")
SETTINGS_FILES = {"pagedopt.toml", "pagedopt.json"}


@functools.cache
def paths() -> frozenset[tuple[str, ...]]:
    """Every file of the repository by every end of its path."""
    folders = ("csrc", "docs", "pagedopt", "tests", "tools")
    files = [*(path for folder in folders for path in (ROOT / folder).rglob("*")), *ROOT.glob("*.*")]
    parts = [path.relative_to(ROOT).parts for path in files]
    return frozenset(part[-length:] for part in parts for length in range(1, len(part) + 1))


def exists(name: str) -> bool:
    """Whether there is a module or an object of this dotted name. Modules that want what is not installed are there."""
    module = "pagedopt"
    found: Any = importlib.import_module(module)
    for part in name.split(".")[1:]:
        module = f"{module}.{part}"
        try:
            found = importlib.import_module(module)
        except ImportError:
            is_module = hasattr(found, "__path__") and importlib.util.find_spec(module) is not None
            found = module if is_module else getattr(found, part, None)
    return found is not None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_refers_to_is_there(document: Path) -> None:
    text = document.read_text()
    files = set(FILE.findall(text)) - ELSEWHERE
    assert {file for file in files if tuple(file.split("/")) not in paths()} == set()
    assert {folder for folder in FOLDER.findall(text) if not (ROOT / folder).exists()} == set()
    assert {name for name in set(NAME.findall(text)) - SETTINGS_FILES if not exists(name)} == set()


def test_what_is_slow_is_there() -> None:
    for path, _, test in (key.partition("::") for key in SLOW):
        place = ROOT / "tests" / path
        assert place.exists(), path
        assert not test or f"def {test}(" in place.read_text(), f"{path}::{test}"


def test_references_are_found() -> None:
    """The patterns see what they should, or the test above could not fail."""
    text = "see `pager/gone.py`, csrc/gone.h and `pagedopt.pager.gone`"
    assert FILE.findall(text) == ["pager/gone.py", "csrc/gone.h"]
    assert FOLDER.findall("`tests/gone`, tools/gpu_check, `tests/native/ptx_*` and tests/x.py") == [
        "tests/gone",
        "tools/gpu_check",
        "tests/native",
    ]
    assert [exists(name) for name in NAME.findall(text)] == [False]
    assert exists("pagedopt.pager.policy.POLICIES")
