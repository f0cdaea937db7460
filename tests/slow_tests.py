"""What `tools/check --fast` leaves out: folders, files and tests, and what takes the time there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SLOW: Final = {
    "emulated_gpu/test_evict_ways.py": "every way is timed",
    "emulated_gpu/test_gpu_bench.py": "every section of a benchmark",
    "emulated_gpu/test_locked_memory.py": "pytest in pytest",
    "emulated_gpu/test_ptx_steps.py": "nvcc, and its PTX interpreted",
    "emulated_gpu/test_refused_hints.py": "a training for each hint that is refused",
    "emulated_gpu/test_schedule.py": "streams in many orders",
    "end_to_end/test_dying_disk.py": "file systems made and killed",
    "end_to_end/test_faults.py": "disks that fill",
    "end_to_end/test_faulty_calls.py": "a process for each failing call",
    "end_to_end/test_limits.py": "control groups",
    "end_to_end/test_order.py": "an optimizer for each parameter",
    "end_to_end/test_out_of_memory.py": "control groups",
    "end_to_end/test_same_bits.py::test_every_policy": "a training for each policy, class and type",
    "end_to_end/test_saving.py": "control groups",
    "end_to_end/test_writes.py": "a write at each moment of a move",
    "fuzz": "thousands of inputs",
    "life": "processes interrupted everywhere",
    "monitor/test_training.py": "whole trainings that are watched",
    "monitor/test_watcher_limits.py": "time limits of connections",
    "native": "compilers, sanitizers, machine code",
    "optim/test_distributed.py": "two ranks",
    "optim/test_distributed_document.py": "two ranks",
    "optim/test_float64.py": "every class against torch in float64",
    "optim/test_linear.py": "operations counted at several sizes",
    "optim/test_sharded.py": "ranks of many meshes",
    "optim/test_state.py::test_loading_holds_no_second_copy": "large states in processes of their own",
    "optim/test_torch_inputs.py": "every combination of arguments",
    "pager/test_driver_cache.py::test_budget_is_fair_whoever_comes_and_goes": "thousands of looks at a full card",
    "pager/test_policy.py::test_every_page_is_up_when_compute_reaches_it": "policies over many budgets",
    "pager/test_policy.py::test_next_use_meets_the_floor": "policies over many budgets",
    "pager/test_policy.py::test_planning_a_terabyte_takes_a_hundredth_of_moving_it": "a terabyte of pages",
    "test_demo.py": "trainings",
    "tools/test_bench.py": "every section of a benchmark",
    "tools/test_commands.py::test_a_command_explains_itself": "a process for each command",
    "tools/test_gpu_profile.py::test_every_case_runs_and_has_a_log": "pytest in pytest",
    "tools/test_gpu_profile.py::test_the_tests_that_are_checked_exist_and_pass": "pytest in pytest",
    "tools/test_gpu_profile.py::test_the_tools_are_asked_for_what_is_wanted": "pytest in pytest",
    "tools/test_gpu_tools.py": "runs of tools/gpu_check",
    "top/test_top_app.py": "screens driven by keys and mouse",
    "top/test_top_frames.py::test_no_screen_is_larger_than_its_room": "every view at every size",
    "top/test_top_live.py": "real terminals",
}


def is_slow(path: Path, name: str) -> bool:
    """Whether a test, by its file in `tests` and its name, is in the table: itself, its file or its folder."""
    return not SLOW.keys().isdisjoint({path.parts[0], str(path), f"{path}::{name.partition('[')[0]}"})
