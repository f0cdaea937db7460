"""Measure the optimizers on a GPU, section by section within a time budget, and compare with the goals.

    python tools gpu.bench                 # everything, six minutes, into tools/results
    python tools gpu.bench --emulate --minutes 0.3 --out /tmp/x    # that the script works, where there is no GPU

It writes <date>-<gpu>.json after every section and a table beside it; with -trial in the name where not all sections
were asked for. A section that hangs or breaks the card's context costs itself alone: another process goes on behind it.
Never more managed memory than a quarter of what the card has free, nor than 16 GiB: see card.py.
"""

from __future__ import annotations

import argparse
import datetime
import faulthandler
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench import machine
from bench.samples import MissingError, say
from gpu import paged, resident, training
from gpu.card import Card, EmulatedCard, Managed, managed_allowance
from gpu.link import link
from gpu.retry import again
from gpu.run import Run

SCHEMA = 2
BROKEN_STATUS = 3
THIS = (sys.executable, str(machine.TOOLS), "gpu.bench")
Section = Callable[[Run], dict[str, Any]]

SECTIONS: dict[str, Section] = {
    "link": link,
    "moves": paged.moves,
    "managed_link": paged.managed_link,
    "resident_one_tensor": resident.one_tensor,
    "paged_stream": partial(paged.placed, placement="stream", bits=32),
    "paged_staged": partial(paged.placed, placement="staged", bits=32),
    "paged_direct": partial(paged.placed, placement="direct", bits=32),
    "paged_stream_8bit": partial(paged.placed, placement="stream", bits=8),
    "paged_staged_8bit": partial(paged.placed, placement="staged", bits=8),
    "resident_one_tensor_f32": resident.one_tensor_f32,
    "placement_auto": paged.auto,
    "residency": paged.residency,
    "training": training.training,
    "resident_llama": resident.llama,
    "resident_small": resident.small_tensors,
    "paged_none": paged.none,
    "bitsandbytes_paged": resident.bitsandbytes_paged,
    "torchao": resident.torchao,
}
"""What decides most comes first: what the time does not suffice for is at the end."""

NEEDED_S = {"training": 30.0, "paged_none": 20.0, "torchao": 60.0}
"""Seconds that have to be left for a section to begin."""

SECTION_S = {"training": 75.0, "torchao": 100.0}
USUAL_S = 45.0
GRACE_S = 45.0
"""A section begins nothing more after USUAL_S, or its SECTION_S, and is ended when it takes GRACE_S longer."""

EMULATED_SLOWER = 10


def begin_section(name: str, run: Run) -> None:
    """Set its times; a thread of C ends the process when it hangs, whatever holds the interpreter."""
    slower = EMULATED_SLOWER if run.card.is_emulated else 1
    soft_s = min(SECTION_S.get(name, USUAL_S) * slower, max(0.0, run.deadline - time.monotonic()))
    run.section_end = time.monotonic() + soft_s
    faulthandler.dump_traceback_later(soft_s + GRACE_S * slower, exit=True)


def run_section(name: str, run: Run) -> dict[str, Any]:
    """A section, or why there is none. Whatever it raises is recorded; the next one runs."""
    begin_section(name, run)
    if run.left_s <= (0 if run.card.is_emulated else NEEDED_S.get(name, 0)):
        return {"reason": "the time budget was spent"}
    say(f"{name} ... ({run.deadline - time.monotonic():.0f} s left)")
    begin = time.monotonic()
    try:
        result = SECTIONS[name](run)
    except MissingError as missing:
        result = {"reason": str(missing)}
    except Exception as error:
        traceback.print_exc()
        trace = traceback.format_exc().splitlines()[-12:]
        result = {"reason": f"{type(error).__name__}: {error}", "traceback": trace}
        traceback.clear_frames(error.__traceback__)
    try:
        run.managed.close()
    except RuntimeError as error:
        result["not_closed"] = str(error)
    return {"seconds": time.monotonic() - begin, **result}


def is_spoiled(run: Run, result: dict[str, Any]) -> bool:
    """Whether this process can do nothing more: memory is still held, or the card's context is broken."""
    try:
        run.card.synchronize()
    except RuntimeError as error:
        result["broken"] = str(error).splitlines()[0]
    return "broken" in result or "not_closed" in result


def goal_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Every goal of the sections, reached or not, or why not measured."""
    rows = []
    for name, section in results["sections"].items():
        rows += [{"section": name, **row} for row in section.get("goals", [])]
        if "reason" in section:
            rows.append({"section": name, "name": "not measured", "reason": section["reason"]})
    return rows


def number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def span(bounds: list[float] | None) -> str:
    if not bounds:
        return ""
    return f"{bounds[0]:.2f}" if bounds[0] == bounds[1] else f"{bounds[0]:.2f}-{bounds[1]:.2f}"


def cells(row: dict[str, Any]) -> list[str]:
    at_least, at_most = row.get("at_least"), row.get("at_most")
    goal = f">= {at_least:.2f}" if at_least is not None else f"<= {at_most:.2f}" if at_most is not None else ""
    met = {True: "met", False: "SHORT", None: ""}[row.get("met")]
    figures = [span(row.get("predicted")), number(row.get("reached")), goal]
    return [row["section"], row["name"], *figures, met or row.get("reason") or ""]


def table(results: dict[str, Any]) -> str:
    """What was predicted, measured and wanted; then the times, in markdown."""
    gpu, commit = results["gpu"]["name"], (results["commit"]["id"] or "unknown")[:12]
    lines = [f"# {gpu}, {results['date'][:10]}, commit {commit}", ""]
    if not results["is_whole"]:
        lines += ["A trial: not all sections were asked for.", ""]
    if results["emulated"]:
        lines += ["Emulated: only that the script works; no figure means anything.", ""]
    lines += ["| section | what | predicted | measured | goal | |", "|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(cell.replace("|", "/") for cell in cells(row)) + " |" for row in goal_rows(results)]
    lines += ["", "| section | timed | ms a step | GB/s |", "|---|---|---|---|"]
    for name, section in results["sections"].items():
        for key, series in section.get("contenders", {}).items():
            ms = "n/a" if series["median_s"] is None else f"{series['median_s'] * 1e3:.2f}"
            rate = "" if series["gb_per_s"] is None else f"{series['gb_per_s']:.1f}"
            lines.append(f"| {name} | {key} | {ms} | {rate or (series['reason'] or '').replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def save(results: dict[str, Any], path: Path) -> None:
    """Whole, or not at all."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(results, indent=1) + "\n")
    draft.replace(path)
    path.with_suffix(".md").write_text(table(results))


def commit() -> dict[str, Any]:
    found = machine.commit()
    return {**found, "id": found["id"] or os.environ.get("COMMIT") or None}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0, help="no section begins after so many minutes")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--out", type=Path, default=machine.TOOLS / "results")
    parser.add_argument("--emulate", action="store_true", help="tiny sizes on the core's emulated GPU")
    # For the process that measures:
    parser.add_argument("--run", help=argparse.SUPPRESS, metavar="DATE")
    parser.add_argument("--deadline", help=argparse.SUPPRESS, type=float)
    return parser.parse_args(arguments)


def header(card: Card, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "date": options.run,
        "is_whole": set(options.sections) == set(SECTIONS),
        "emulated": card.is_emulated,
        "minutes": options.minutes,
        "gpu": card.describe(),
        "free_bytes": card.free_bytes,
        "managed_allowance_bytes": managed_allowance(card.free_bytes),
        "machine": machine.machine(options.out.parent),
        "versions": machine.versions(),
        "commit": commit(),
        "sections": {},
    }


def results_of(out: Path, date: str) -> Path | None:
    """The file of the run that began then."""
    for path in out.glob(f"{date[:10]}-*.json"):
        if json.loads(path.read_text()).get("date") == date:
            return path
    return None


def measure(options: argparse.Namespace) -> int:
    """The sections that the run has no result of yet, in this process."""
    faulthandler.dump_traceback_later(60 * (EMULATED_SLOWER if options.emulate else 1), exit=True)
    card = EmulatedCard() if options.emulate else Card()
    run = Run(card, Managed(card), options.deadline)
    path = results_of(options.out, options.run)
    results = header(card, options) if path is None else json.loads(path.read_text())
    path = path or options.out / f"{options.run[:10]}-{card.slug()}{'' if results['is_whole'] else '-trial'}.json"
    run.done = results["sections"]
    for name in [name for name in options.sections if name not in run.done]:
        run.done[name] = {"reason": "its process hung or crashed"}
        save(results, path)
        run.done[name] = result = run_section(name, run)
        is_last = is_spoiled(run, result)
        save(results, path)
        if is_last:
            say(f"{name}: this process is of no more use: {result.get('broken') or result['not_closed']}")
            return BROKEN_STATUS
    faulthandler.cancel_dump_traceback_later()
    return 0


def main(arguments: list[str], command: Sequence[str] = THIS) -> int:
    """Measure in a process that `command` starts, and where that ends early in another one."""
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.run:
        return measure(options)
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    deadline = time.monotonic() + options.minutes * 60
    command = [*command, *arguments, "--run", date, "--deadline", repr(deadline)]

    def progress() -> str | None:
        path = results_of(options.out, date)
        return None if path is None else path.read_text()

    slower = EMULATED_SLOWER if options.emulate else 1
    is_done = again(command, deadline + (GRACE_S + 10) * slower, progress)
    path = results_of(options.out, date)
    if path is None:
        return 1
    print(table(json.loads(path.read_text())))
    print(f"written to {path}")
    return 0 if is_done else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
