"""Nothing that somebody else says reaches a terminal raw."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pagedopt
from pagedopt.output import json_text, printable

PACKAGE = Path(pagedopt.__file__).parent
HOSTILE = [
    "\x1b[2J",
    "\x9b2J",
    "\u202egnp.exe",
    "\x07",
    "\u2066a\u2069",
    "\U000e0001",
    "\x7f",
    "\r",
    "\u2028",
    "\ud800",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_that_steers_a_terminal_is_shown_as_question_marks(text: str) -> None:
    assert "?" in printable(text)
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)


@given(st.text())
def test_json_means_the_same_and_is_printable(text: str) -> None:
    data = json.dumps({text: [text]}, ensure_ascii=False).encode()
    shown = json_text(data)
    assert json.loads(shown) == {text: [text]}
    assert shown.isprintable()


def test_only_one_place_prints() -> None:
    """`demo` prints what it says itself; the gate writes to its parent; documentation is made, not shown;
    what Python runs as it starts has nothing else of the package."""
    allowed = {"output.py", "gate.py", "__main__.py", "sitecustomize.py"}
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        if path.name in allowed or path.parent.name == "demo":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "print",
                "sys.stdout.write",
                "sys.stderr.write",
            ):
                wrong.append(f"{path.name}:{node.lineno}")
    assert wrong == []
