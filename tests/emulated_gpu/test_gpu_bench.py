"""The benchmark that wants a GPU, on the emulated one: every section runs, its results and its table are whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
SECTIONS = {
    "link": {"copy", "to_device", "to_host", "both_ways"},
    "managed_link": {f"{hint}_both_ways" for hint in ("device", "none", "direction", "batch")},
    "moves": {"to_device", "to_host", "both_ways", "to_device_calls"},
    "resident_one_tensor": {"pagedopt_adamw", "pagedopt_adamw8bit", "torch_fused", "bitsandbytes_adamw8bit"},
    "paged_stream": {"0_out", "25_out", "50_out", "75_out", "100_out"},
    "paged_staged": {"0_out", "25_out", "50_out", "75_out", "100_out"},
    "paged_direct": {"0_out", "25_out", "50_out", "75_out", "100_out"},
    "training": {"torch_fused", "resident_32bit", "paged_32bit", "paged_8bit"},
}
OTHERS = {
    "resident_one_tensor_f32",
    "resident_llama",
    "paged_stream_8bit",
    "paged_staged_8bit",
    "paged_none",
    "placement_auto",
}


def run(out: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "tools", "gpu.bench", "--emulate", "--out", str(out), *arguments]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| section | what | predicted | measured | goal | |" in done.stdout
    (json_file,) = out.glob("*-emulated-gpu.json")
    assert json_file.with_suffix(".md").read_text() in done.stdout
    return dict(json.loads(json_file.read_text()))


def test_a_spent_budget_is_said(tmp_path: Path) -> None:
    results = run(tmp_path, "--minutes", "0")
    assert all("time budget" in section["reason"] for section in results["sections"].values())
    assert results["commit"].keys() >= {"id", "dirty"}
    assert results["gpu"]["total_bytes"] > 0


def test_every_section(tmp_path: Path) -> None:
    results = run(tmp_path, "--minutes", "0.6")  # the first sections have to fit on a busy machine
    sections = results["sections"]
    assert sections.keys() >= {*SECTIONS, *OTHERS}
    for name, section in sections.items():
        assert "traceback" not in section, (name, section)
        assert "not_closed" not in section, (name, section)
        for series in section.get("contenders", {}).values():
            assert (series["median_s"] is None) == (not series["samples_s"])
            assert series["samples_s"] or series["reason"]
    for name, contenders in SECTIONS.items():
        if "reason" not in sections[name]:
            assert sections[name]["contenders"].keys() >= contenders
    assert sections["link"]["contenders"]["copy"]["gb_per_s"] > 0
    half = sections["paged_stream"]["contenders"]["50_out"]
    assert half["moved_bytes"] > 0
    assert half["samples_s"]
    assert half["budget_bytes"] < half["state_bytes"]
