"""Who may import whom, and what importing costs."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pagedopt
from pagedopt import errors

PACKAGE = Path(pagedopt.__file__).parent

# Every package (or module, where it has a rule of its own) and what it imports of the others, from the ground up. What
# is not in a row is forbidden, and what is in it is used. `pagedopt` is the package's own __init__: the version.
LAYERS = {
    "_core": "",
    "errors": "",
    "files": "",
    "output": "",
    "background": "",
    "snapshot": "",
    "device": "_core",
    "config": "errors files snapshot",
    # what a process pages: nothing here knows who watches, or torch
    "pager.policy": "",
    "pager.budget": "config",
    "pager": "_core background config device errors pager.budget pager.policy",
    # telemetry: both sides, and above them what only the watched process runs
    "monitor": "config errors files output pagedopt snapshot",
    "monitor.export": "errors monitor output snapshot",
    "monitor.publisher": "_core background config errors monitor pagedopt pager snapshot",
    # training
    "runtime": "_core config device errors monitor.publisher pager pager.policy snapshot",
    "optim": "_core config device errors runtime",
    "demo": "config errors optim pagedopt runtime",
    # trainers: `install` and `startup` load no torch; `standin` is what `import bitsandbytes` finds, at the top level
    "trainers": "monitor.export optim runtime",
    # watching
    "top.view": "config output snapshot",
    "top": "errors monitor output snapshot top.view",
    "cli": "config demo errors files monitor monitor.export output pagedopt snapshot top top.view",
    "__main__": "cli",
    "pagedopt": "config errors optim runtime trainers",
}

# Libraries that cost time or may be missing, and who imports them.
LIBRARIES = {
    "torch": "demo optim trainers",
    "numpy": "monitor.publisher optim pager pager.policy",
    "zmq": "monitor monitor.publisher",
    "rich": "demo top top.view",
    "textual": "top",
    "matplotlib": "demo",
    "prometheus_client": "monitor.export",
    "transformers": "trainers",
    "lightning": "trainers",
}

LONGEST_FILE_LINES = 400


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@cache
def imports(path: Path) -> frozenset[str]:
    """What a file imports, wherever in it and if only for annotations: modules, and names in modules."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


def module_of(target: str) -> str:
    """The module of pagedopt that an import loads."""
    known = {name for name, _ in modules()} | {"pagedopt._core"}
    return target if target in known else target.rpartition(".")[0]


def layer_of(module: str) -> str:
    """The row of `LAYERS` that a module belongs to; empty for none."""
    name = module.removeprefix("pagedopt.")
    return max((layer for layer in LAYERS if is_within(name, layer)), key=len, default="")


def is_within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


def imported(layer: str) -> dict[str, str]:
    """The layers a layer imports, and for each one import of it, as a message shows it."""
    return {
        layer_of(module_of(target)): f"{name} imports {target}"
        for name, path in modules()
        if layer_of(name) == layer
        for target in imports(path)
        if is_within(target, "pagedopt") and layer_of(module_of(target)) != layer
    }


def test_every_module_has_a_layer() -> None:
    assert [name for name, _ in modules() if not layer_of(name)] == []


@pytest.mark.parametrize("layer", LAYERS)
def test_layers(layer: str) -> None:
    found = imported(layer)
    assert [found[other] for other in found.keys() - set(LAYERS[layer].split())] == []
    assert set(LAYERS[layer].split()) - found.keys() == set(), f"{layer} may import what it does not"


def test_arrows_between_layers_point_one_way() -> None:
    arrows = {layer: set(others.split()) - {"pagedopt"} for layer, others in LAYERS.items()}
    graphlib.TopologicalSorter(arrows).prepare()  # raises CycleError, which names the circle


def test_arrows_between_modules_point_one_way() -> None:
    """Annotations count: who is only named in one is known all the same."""
    arrows = {
        name: {module_of(target) for target in imports(path) if is_within(target, "pagedopt")} - {name, "pagedopt"}
        for name, path in modules()
    }
    graphlib.TopologicalSorter(arrows).prepare()


@pytest.mark.parametrize("library", LIBRARIES)
def test_who_imports_a_library(library: str) -> None:
    found = {layer_of(name) for name, path in modules() if any(is_within(target, library) for target in imports(path))}
    assert found == set(LIBRARIES[library].split())


def test_files_are_short() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules()}
    assert {name: lines for name, lines in lengths.items() if lines >= LONGEST_FILE_LINES} == {}


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
        ("pagedopt.monitor.feed", ("torch", "numpy", "pagedopt._core")),
        ("pagedopt.monitor.export.chrome", ("torch", "numpy", "pagedopt._core")),
        ("pagedopt.top.sources", ("torch", "numpy", "pagedopt._core")),
        ("pagedopt.pager.policy", ("torch", "pagedopt._core")),
        ("pagedopt.pager.budget", ("torch", "numpy", "pagedopt._core")),
        ("pagedopt.runtime", ("torch", "zmq")),
        ("pagedopt.trainers.install", ("torch", "numpy", "transformers", "pagedopt._core")),
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
    command = [sys.executable, "-m", "mypy", str(script)]  # as tools/check does, which has read torch already
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    wrong = [line.split(": ", 2) for line in done.stdout.splitlines() if ": error: " in line]
    assert [place.rpartition(":")[2] for place, _, _ in wrong] == ["4", "5"], done.stdout + done.stderr
