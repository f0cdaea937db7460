"""Who may include whom in csrc."""

from __future__ import annotations

import graphlib
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "csrc"

# Every folder of csrc and what its files include of the others, from the ground up. What is not in a row is forbidden,
# and what is in it is used.
FOLDERS = {
    "base": "",
    "memory": "base",
    "rules": "",
    "step": "base rules",
    "step/cpu": "rules step",
    "gpu/kernels": "rules step",
    "gpu": "base gpu/kernels memory",
    "gpu/launch": "base gpu memory",
    "sweep": "base gpu/launch memory step",
    "emulated": "base gpu gpu/kernels",
    "python": "base emulated gpu gpu/launch memory step sweep",
}

pytestmark = pytest.mark.skipif(not CSRC.is_dir(), reason="needs csrc")


@cache
def sources() -> tuple[Path, ...]:
    return tuple(sorted(path for path in CSRC.rglob("*") if path.suffix in {".h", ".cpp", ".cu"}))


def included(path: Path) -> set[str]:
    """The files of csrc that a file includes, as paths from there."""
    found = set(re.findall(r'^ *# *include "(.+?)"', path.read_text(), re.MULTILINE))
    assert all((CSRC / name).is_file() for name in found), f"{path} includes what is not in csrc: {found}"
    return found


def folder_of(name: str) -> str:
    return name.rpartition("/")[0]


def test_every_folder_has_a_row() -> None:
    assert {folder_of(str(path.relative_to(CSRC))) for path in sources()} == FOLDERS.keys()


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_a_folder_includes(folder: str) -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for path in sources():
        if path.parent == CSRC / folder:
            for name in included(path):
                found[folder_of(name)].append(f"{path.name} includes {name}")
    allowed = {folder, *FOLDERS[folder].split()}
    assert [found[other] for other in found.keys() - allowed] == []
    assert allowed - found.keys() - {folder} == set(), f"{folder} may include what it does not"


def test_arrows_between_folders_point_one_way() -> None:
    arrows = {folder: others.split() for folder, others in FOLDERS.items()}
    graphlib.TopologicalSorter(arrows).prepare()  # raises CycleError, which names the circle


def test_arrows_between_files_point_one_way() -> None:
    """A header and the source of its name are one file here."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for path in sources():
        unit = str(path.relative_to(CSRC).with_suffix(""))
        arrows[unit] |= {name.rpartition(".")[0] for name in included(path)} - {unit}
    graphlib.TopologicalSorter(arrows).prepare()
