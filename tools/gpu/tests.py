"""Run tests/gpu, a file at a time, and tell what failed. What hangs or crashes costs its own test alone.

    python tools gpu.tests --journal gpu-tests.jsonl --seconds 180

Exit status 0 says that every test that began passed, that all began, and that not all of them skipped.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path

from gpu.journal import records
from gpu.retry import again

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
ORDER = ("kernels", "moves", "streams", "life", "resume")
FILE_S = 100.0
"""Seconds a file may take, so that one does not take the time of all others."""

# No settings of pyproject.toml, which name plugins that may be missing; no plugins of others, which may be there.
PYTEST: tuple[str, ...] = (
    sys.executable,
    "-m",
    "pytest",
    "-c",
    os.devnull,
    f"--rootdir={ROOT}",
    f"--confcutdir={ROOT / 'tests'}",
)
PYTEST += ("-p", "no:cacheprovider", "-v", "--no-header", "--no-summary")
ENVIRONMENT = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def by_value(files: list[Path]) -> list[Path]:
    """What is worth most first, and what the order does not name after it."""
    names = [f"test_gpu_{name}.py" for name in ORDER]
    return sorted(files, key=lambda file: (names.index(file.name) if file.name in names else len(names), file.name))


def verdicts(journal: Path) -> dict[str, tuple[str, str]]:
    """Of every test that began what it came to, and why."""
    found: dict[str, tuple[str, str]] = {}
    for record in records(journal):
        before = found.get(record["test"], ("unfinished", ""))
        outcome = "unfinished" if record["outcome"] == "begun" else record["outcome"]
        if before[0] != "failed":  # a failure of the body and one of its end
            found[record["test"]] = (outcome, record.get("text", ""))
    return found


def tell(found: dict[str, tuple[str, str]], cut_off: list[str]) -> int:
    """Print what failed, in words, and return the exit status."""
    for test, (outcome, why) in found.items():
        if outcome in ("failed", "unfinished"):
            print(f"\n---- {outcome}: {test}\n{why}")
    for test, (outcome, why) in found.items():
        if outcome in ("failed", "unfinished"):
            print(f"{outcome.upper()} {test}: {why.splitlines()[-1] if why else 'hung or crashed'}")
    for why, count in Counter(why for outcome, why in found.values() if outcome == "skipped").items():
        print(f"skipped {count}: {why}")
    for file in cut_off:
        print(f"NOT ALL OF {file} ran")
    counts = Counter(outcome for outcome, _ in found.values())
    print(", ".join(f"{counts[name]} {name}" for name in ("passed", "failed", "unfinished", "skipped")))
    is_good = counts["passed"] and not (counts["failed"] or counts["unfinished"] or cut_off)
    return 0 if is_good else 1


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--journal", type=Path, required=True, help="what every test came to, a line each")
    parser.add_argument("--seconds", type=float, default=180.0, help="for all files")
    parser.add_argument("--file-seconds", type=float, default=FILE_S, help="for one file")
    parser.add_argument("files", type=Path, nargs="*", help="default: all of tests/gpu")
    options = parser.parse_args(arguments)
    journal = options.journal.resolve()
    journal.unlink(missing_ok=True)
    os.environ.update(ENVIRONMENT, GPU_JOURNAL=str(journal))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TOOLS), *filter(None, [os.environ.get("PYTHONPATH")])])
    files = [file.resolve() for file in options.files] or by_value(list((ROOT / "tests" / "gpu").glob("test_*.py")))
    deadline, cut_off = time.monotonic() + options.seconds, []
    for file in files:
        end = min(deadline, time.monotonic() + options.file_seconds)
        # Not where the sources are: they hold no core, and would hide the package that was installed.
        if not again(
            [*PYTEST, "-p", "gpu.journal", str(file)],
            end,
            lambda: journal.exists() and journal.stat().st_size,
            journal.parent,
        ):
            cut_off.append(file.name)
    return tell(verdicts(journal), cut_off)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
