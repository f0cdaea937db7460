"""Who may import whom, and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pagedopt
from pagedopt import errors

PACKAGE = Path(pagedopt.__file__).parent

# Modules (by prefix) and what they must never import.
FORBIDDEN = [
    ("pagedopt.files", ("torch", "numpy", "pagedopt")),
    ("pagedopt.errors", ("torch", "numpy", "pagedopt._core")),
    ("pagedopt.config", ("torch", "numpy", "pagedopt._core", "pagedopt.runtime", "pagedopt.optim", "pagedopt.pager")),
    ("pagedopt.snapshot", ("torch", "numpy", "pagedopt._core", "pagedopt.runtime", "pagedopt.optim", "pagedopt.pager")),
    ("pagedopt.pager.policy", ("torch", "pagedopt")),
    ("pagedopt.pager", ("torch", "pagedopt.optim", "pagedopt.top", "pagedopt.cli", "pagedopt.runtime")),
    ("pagedopt.runtime", ("torch", "pagedopt.optim", "pagedopt.top", "pagedopt.cli")),
    ("pagedopt.optim", ("pagedopt.pager", "pagedopt.top", "pagedopt.cli")),
    ("pagedopt.top", ("torch", "pagedopt._core", "pagedopt.runtime", "pagedopt.optim", "pagedopt.cli")),
]


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports; imports under TYPE_CHECKING do not count."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


@pytest.mark.parametrize(("prefix", "forbidden"), FORBIDDEN, ids=[prefix for prefix, _ in FORBIDDEN])
def test_layers(prefix: str, forbidden: tuple[str, ...]) -> None:
    seen = [(name, path) for name, path in modules() if is_within(name, prefix)]
    assert seen, f"no module {prefix}"
    wrong = [
        f"{name} imports {target}"
        for name, path in seen
        for target in imports(path)
        for banned in forbidden
        if is_within(target, banned) and not is_within(target, prefix)
    ]
    assert wrong == []


def test_no_module_imports_what_is_private_to_another() -> None:
    wrong = []
    for name, path in modules():
        for target in imports(path):
            owner, _, leaf = target.rpartition(".")
            if leaf.startswith("_") and leaf != "_core" and is_within(owner, "pagedopt") and not is_within(name, owner):
                wrong.append(f"{name} imports {target}")
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("pagedopt", ("torch", "numpy", "pagedopt._core")),
        ("pagedopt.config", ("torch", "numpy", "pagedopt._core")),
        ("pagedopt.snapshot", ("torch", "numpy", "pagedopt._core")),
        ("pagedopt.cli", ("torch", "numpy", "pagedopt._core")),
        ("pagedopt.runtime", ("torch", "zmq")),
    ],
)
def test_importing_loads_no_more(module: str, absent: tuple[str, ...]) -> None:
    script = f"import sys, {module}; print(sorted(set({absent!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_public_names() -> None:
    for name in pagedopt.__all__:
        assert getattr(pagedopt, name) is not None
    assert sorted(pagedopt.__all__) == pagedopt.__all__
    assert dir(pagedopt) == pagedopt.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pagedopt.nothing  # type: ignore[attr-defined]


def test_settings_are_at_hand_after_one_import() -> None:
    script = "import pagedopt; print(pagedopt.config.load(environ={}, cwd='/', home='/').depth)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "8\n"


def test_every_error_is_a_public_name() -> None:
    assert set(errors.__all__) - {"Problem"} <= set(pagedopt.__all__)
    assert all(getattr(pagedopt, name) is getattr(errors, name) for name in errors.__all__ if name != "Problem")


@pytest.mark.slow
def test_type_checkers_know_the_public_names(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import pagedopt\n"
        "used: int = pagedopt.stats(measure=True).arenas[0].upper_bytes\n"
        "pagedopt.optim.PagedAdamW8bit([], lr=1e-3, betas=(0.9, 0.99)).step()\n"
        "pagedopt.optim.AdamW([], rate=1e-3)\n"
        "pagedopt.stast()\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}/cache", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wrong = [line.split(": ", 2) for line in done.stdout.splitlines() if ": error: " in line]
    assert [place.rpartition(":")[2] for place, _, _ in wrong] == ["4", "5"], done.stdout + done.stderr
