"""What the check for GPUs tells and does before it measures: the driver's facts, the host's memory, predictions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.machine import TOOLS
from gpu import bench, predicted, touch
from gpu.run import goal

# A driver of one card whose attributes are twice their numbers.
DRIVER = """
    int cuInit(unsigned flags) { return flags == 0 ? 0 : 1; }
    int cuDeviceGet(int* device, int ordinal) { *device = 7; return ordinal == 0 ? 0 : 101; }
    int cuDeviceGetAttribute(int* value, int attribute, int device) {
      *value = 2 * attribute;
      return device == 7 ? 0 : 101;
    }
    int cuDriverGetVersion(int* version) { *version = 13020; return 0; }
"""


@pytest.fixture(scope="module")
def with_driver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine with that driver."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("driver")
    source = folder / "driver.c"
    source.write_text(textwrap.dedent(DRIVER))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(source)], check=True)
    return {**os.environ, "LD_LIBRARY_PATH": str(folder)}


def told(env: dict[str, str]) -> list[str]:
    command = [sys.executable, str(TOOLS), "gpu.facts"]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()


def test_driver_and_memory_come_before_the_attributes(with_driver: dict[str, str]) -> None:
    lines = told(with_driver)
    assert [line.split(":")[0] for line in lines[:3]] == ["driver", "MemTotal", "CUDA of the driver"]
    assert lines[2] == "CUDA of the driver: 13.2"
    assert [line.split()[1] for line in lines[3:]] == ["88", "89", "100", "18"]
    assert [line.split(": ")[1] for line in lines[3:]] == ["176", "178", "200", "36"]


def test_without_a_driver_the_reason_is_given(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("not a library")
    lines = told({**os.environ, "LD_LIBRARY_PATH": str(tmp_path)})
    assert lines[-1].startswith("attributes: n/a: "), lines


@pytest.fixture
def held(with_driver: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that starts one that holds the card, prints its id and what it says, and stays until its input ends."""
    script = f"""
        import subprocess, sys
        command = [sys.executable, {str(TOOLS)!r}, "gpu.facts", "--hold"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        print(child.pid, child.stdout.readline().strip(), flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=with_driver, **pipes) as process:
        yield process


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_the_card_is_held_until_the_one_who_asked_ends(held: subprocess.Popen[str]) -> None:
    assert held.stdout is not None
    pid, said = held.stdout.readline().strip().split(" ", 1)
    assert said == "the card is held"
    time.sleep(1.5)
    assert is_there(int(pid))
    held.communicate()
    end = time.monotonic() + 20
    while is_there(int(pid)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not is_there(int(pid))


def test_memory_is_touched_in_whole_pieces_and_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(touch, "PIECE_BYTES", 1 << 20)
    assert touch.touch((3 << 20) + 5, 60.0) == 3 << 20
    assert touch.touch(1 << 40, 0.05) < 1 << 40
    assert touch.touch(1 << 40, 0.0) == 0


def test_what_decides_most_is_measured_first() -> None:
    sections = list(bench.SECTIONS)
    assert sections[:4] == ["link", "moves", "managed_link", "resident_one_tensor"]
    assert sections[4:9] == [name for name in sections if name.startswith(("paged_s", "paged_d"))]


CARDS = [("NVIDIA H200", 0.85, "0.85-0.96"), ("NVIDIA H100 80GB HBM3", 0.90, "0.90-0.96"), ("NVIDIA A100", None, "")]


@pytest.mark.parametrize(("card", "least", "cell"), CARDS)
def test_the_table_has_what_was_predicted_beside_measured_and_goal(card: str, least: float | None, cell: str) -> None:
    share = predicted.of_copy(card, "bfloat16", 8)
    assert (share and share[0]) == least
    one = goal("8-bit, of copy bandwidth", 0.7, at_least=0.8, predicted=share)
    sections = {"link": {"goals": [one]}}
    results = {"gpu": {"name": card}, "commit": {"id": None}, "date": "2026-01-01", "is_whole": True}
    text = bench.table({**results, "emulated": False, "sections": sections})
    assert "| section | what | predicted | measured | goal | |" in text
    assert f"| link | 8-bit, of copy bandwidth | {cell} | 0.700 | >= 0.80 | SHORT |" in text


def test_every_prediction_is_of_something_that_is_measured() -> None:
    assert {f"paged_{placement}" for placement in predicted.OF_LINK} <= set(bench.SECTIONS)
    for shares in predicted.OF_COPY.values():
        assert set(shares) == {(dtype, bits) for dtype in ("float32", "bfloat16") for bits in (32, 8)}
        assert all(0 < low <= high <= 1 for low, high in shares.values())
