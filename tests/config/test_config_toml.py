"""Lines of TOML keys: documents whose values are their own line numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagedopt.config import toml_lines
from pagedopt.config.toml_lines import error_line, key_lines, parse

DOCUMENT = '''# depth = 0
depth = 2
text = 3 # """
[tool.other]
depth = 5
"budget" = 6
notes = """
[tool.pagedopt]
depth = 9
"""
list = [
  "[tool.pagedopt]", # ]
  'depth = 13', [1],
]

  [ tool . pagedopt ]   # comment
  depth = 17
  'low_watermark'=18
monitor.port = 19
inline = { depth = 20, "a.b" = 20, c.d = 20 }

[[tool.rows]]
depth = 23
[[tool.rows]]
depth = 25
[tool.pagedopt.deep]
depth = 27
'''


def numbers(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield from numbers(value[0], path)
    elif isinstance(value, int):
        yield path, value


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_lines_of_a_document_with_the_same_names_everywhere(ending: str) -> None:
    text = DOCUMENT.replace("\n", ending)
    lines = key_lines(text)
    expected = dict(numbers(parse(text)))
    assert len(expected) == 12
    assert {path: lines[path] for path in expected} == expected
    assert lines["tool", "other", "notes"] == 7
    assert lines["tool", "other", "list"] == 11
    assert lines["tool", "pagedopt"] == 16
    assert lines["tool", "rows"] == 22
    assert lines["tool", "pagedopt", "deep"] == 26


NAMES = st.sampled_from(["depth", "budget", "tool", '"a b"', "'c.d'"])
FILLERS = [
    ["# [depth]"],
    [""],
    ['{} = """', "depth = 1", "[budget]", '"""'],
    ["{} = '''", "[tool]", "''' # '''"],
    ["{} = [", " [1, 2], # ]", " {{x = ']'}},", "]"],
    ['{} = "[x]" # depth = 3'],
]


@st.composite
def documents(draw: st.DrawFn) -> str:
    lines: list[str] = []
    for table in range(draw(st.integers(1, 4))):
        if table:
            lines.append(f"[t{table}.{draw(NAMES)}]")
        for name in draw(st.lists(NAMES, unique=True)):
            for filler in draw(st.lists(st.sampled_from(FILLERS), max_size=2)):
                lines += [part.format(f"f{len(lines)}") for part in filler]
            lines.append(f"{name} = {len(lines) + 1}")
    return "\n".join(lines)


@given(documents())
def test_lines_of_any_document(text: str) -> None:
    lines = key_lines(text)
    named = {path: number for path, number in numbers(parse(text)) if path[-1] != "x"}
    assert {path: lines[path] for path in named} == named


def test_long_list_is_not_parsed_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    def counted(text: str) -> dict[str, Any]:
        parsed.append(text)
        return dict(parse(text))

    monkeypatch.setattr(toml_lines, "parse", counted)
    text = "list = [\n" + "  'x',\n" * 1000 + "]\ndepth = 1003\n"
    assert key_lines(text)["depth",] == 1003
    assert len(parsed) < 10


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb = \nc = 3\n", 2),
        ("a = 1\na = 2\n", 2),
        ("a = 1\n[t]\nx = [1,\n2\n", 4),
        ('a = 1\nb = """\nc\n', 3),
        ("= 1", 1),
    ],
)
def test_line_of_a_syntax_error(text: str, line: int) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse(text)
    assert error_line(text, caught.value) == line
