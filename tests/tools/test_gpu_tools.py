"""The check for GPUs: what hangs, crashes or fails costs itself alone, and results of a rehearsal say so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from gpu.journal import records
from gpu.retry import again
from gpu.tests import TOOLS, by_value, verdicts


def script(folder: Path, text: str) -> list[str]:
    path = folder / "script.py"
    path.write_text(textwrap.dedent(text))
    return [sys.executable, str(path), str(folder / "log")]


@pytest.mark.parametrize(("statuses", "ends_well", "runs"), [("310", True, 3), ("0", True, 1), ("3111", False, 4)])
def test_a_command_that_gets_on_is_run_again(tmp_path: Path, statuses: str, ends_well: bool, runs: int) -> None:
    command = script(
        tmp_path,
        f"""
        import sys
        lines = open(sys.argv[1], "a+")
        lines.seek(0)
        done = len(lines.read())
        if done < {len(statuses)}:
            lines.write("x")
        sys.exit(int(({statuses!r} + "9")[done]))
        """,
    )
    log = tmp_path / "log"
    done = again(command, time.monotonic() + 60, lambda: log.exists() and log.stat().st_size)
    assert (done, len(log.read_text())) == (ends_well, runs)


def test_a_command_without_time_is_killed(tmp_path: Path) -> None:
    end = tmp_path / "end"
    command = script(tmp_path, f"import pathlib, time; time.sleep(60); pathlib.Path({str(end)!r}).touch()")
    assert not again(command, time.monotonic() + 1, lambda: None)
    assert not end.exists()


SUITE = """
    import os, time, pytest
    def test_first(): pass
    def test_wrong(): assert 1 == 2, "one is not two"
    @pytest.mark.parametrize("how", ["with a blank"])
    def test_hangs(how): time.sleep(600)
    def test_between(): pass
    def test_crashes(): os.abort()
    @pytest.mark.skip(reason="too far")
    def test_skipped(): pass
    def test_last(): pass
"""


def run_suite(tmp_path: Path, text: str, limit_s: str = "2") -> tuple[int, str, dict[str, str]]:
    file, journal = tmp_path / "test_suite.py", tmp_path / "journal.jsonl"
    file.write_text(textwrap.dedent(text))
    command = [sys.executable, str(TOOLS), "gpu.tests", "--journal", str(journal), "--seconds", "100", str(file)]
    env = {**os.environ, "GPU_TEST_S": limit_s}
    with subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as done:
        said, _ = done.communicate(timeout=120)
    found = {test.split("::")[1]: outcome for test, (outcome, _) in verdicts(journal).items()}
    return done.returncode, said, found


def test_a_test_that_hangs_or_crashes_costs_itself_alone(tmp_path: Path) -> None:
    status, text, found = run_suite(tmp_path, SUITE)
    assert found == {
        "test_first": "passed",
        "test_wrong": "failed",
        "test_hangs[with a blank]": "unfinished",
        "test_between": "passed",
        "test_crashes": "unfinished",
        "test_skipped": "skipped",
        "test_last": "passed",
    }
    assert status == 1
    assert text.endswith("3 passed, 1 failed, 2 unfinished, 1 skipped\n"), text
    assert "one is not two" in text
    assert "in test_hangs" in text, "where it hung is told"


BROKEN = """
    import sys, types
    class cuda:
        works = True
        is_initialized = staticmethod(lambda: True)
        @classmethod
        def synchronize(cls):
            if not cls.works:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
    sys.modules["torch"] = types.SimpleNamespace(cuda=cuda)
    def test_breaks(): cuda.works = False
    def test_after(): assert cuda.works
"""


def test_a_broken_context_ends_the_process(tmp_path: Path) -> None:
    status, text, found = run_suite(tmp_path, BROKEN)
    assert (status, found) == (1, {"test_breaks": "failed", "test_after": "passed"})
    assert "the context is broken: CUDA error: an illegal memory access" in text


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("def test_it(): pass", 0),
        ("import pytest\n@pytest.mark.skip(reason='no GPU')\ndef test_it(): pass", 1),
        ("import nothing_of_this_name", 1),
    ],
    ids=["passes", "only skips", "cannot be read"],
)
def test_only_tests_that_ran_and_passed_are_a_success(tmp_path: Path, text: str, status: int) -> None:
    assert run_suite(tmp_path, text)[0] == status


def test_no_plugin_of_others_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = tmp_path / "site" / "foreign-1.0.dist-info"
    foreign.mkdir(parents=True)
    (foreign / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (foreign / "entry_points.txt").write_text("[pytest11]\nforeign = nothing_of_this_name\n")
    monkeypatch.setenv("PYTHONPATH", str(foreign.parent))
    assert run_suite(tmp_path, "def test_it(): pass")[0] == 0


def test_a_journal_that_was_cut_off_is_read(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_text('{"test": "a", "outcome": "begun"}\n{"test": "b", "outc')
    assert [record["test"] for record in records(journal)] == ["a"]
    assert verdicts(journal) == {"a": ("unfinished", "")}


def test_files_that_the_order_does_not_name_come_last() -> None:
    names = ["test_aa.py", "test_gpu_resume.py", "test_gpu_moves.py", "test_gpu_kernels.py"]
    assert [file.name for file in by_value([Path(name) for name in names])] == [*reversed(names[1:]), names[0]]


@pytest.fixture(scope="module")
def run_of_sections(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Any]:
    """A run whose second section hangs, whose fourth holds on to its memory and whose fifth raises."""
    folder = tmp_path_factory.mktemp("bench")
    path = folder / "sections.py"
    path.write_text(
        textwrap.dedent(
            """
            import sys, time
            from gpu import bench
            from gpu.paged import Paged
            held = []
            def holds(run):
                held.append(Paged(run, 8))
                return {"held": True}
            def fails(run):
                raise ValueError("as it should")
            bench.SECTIONS.update(hangs=lambda run: time.sleep(600), holds=holds, fails=fails)
            bench.SECTION_S["hangs"] = bench.GRACE_S = 0.2
            sys.exit(bench.main(sys.argv[1:], [sys.executable, __file__]))
            """
        )
    )
    names = ["placement_auto", "hangs", "link", "holds", "fails", "managed_link"]
    command = [sys.executable, str(path), "--emulate", "--minutes", "3", "--out", str(folder / "out"), "--sections"]
    env = {**os.environ, "PYTHONPATH": str(TOOLS)}
    done = subprocess.run([*command, *names], env=env, capture_output=True, text=True, timeout=280, check=False)
    [results] = (folder / "out").glob("*.json")
    return done, (results.name, json.loads(results.read_text()))


def test_a_section_that_hangs_or_holds_memory_costs_itself_alone(run_of_sections: Any) -> None:
    done, (_, results) = run_of_sections
    assert done.returncode == 0, done.stderr[-3000:]
    sections = results["sections"]
    assert list(sections) == ["placement_auto", "hangs", "link", "holds", "fails", "managed_link"]
    assert sections["hangs"] == {"reason": "its process hung or crashed"}
    assert sections["holds"]["held"]
    assert "still in use" in sections["holds"]["not_closed"]
    assert sections["fails"]["reason"] == "ValueError: as it should"
    assert "contenders" in sections["managed_link"], (sections["managed_link"], done.stderr[-1500:])
    assert sections["link"]["contenders"]["copy"]["gb_per_s"] > 0
    assert len(sections["placement_auto"]["staged_s"]) == 3


def test_results_of_a_rehearsal_say_so(run_of_sections: Any) -> None:
    done, (name, results) = run_of_sections
    assert name.endswith("-emulated-gpu-trial.json")
    assert results["emulated"] is True
    assert "Emulated: only that the script works" in done.stdout
    assert "A trial" in done.stdout


def test_without_a_gpu_nothing_is_measured(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOLS), "gpu.bench", "--minutes", "1", "--out", str(tmp_path)]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "no GPU to measure" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("body", "status"), [("pass", 0), ("assert False", 1)])
def test_the_command_says_what_failed_and_names_a_rehearsal(tmp_path: Path, body: str, status: int) -> None:
    (tmp_path / "test_one.py").write_text(f"def test_one(): {body}")
    chosen = {"EMULATE_GPU": "1", "PARTS": "tests", "TESTS": str(tmp_path / "test_one.py"), "COMMIT": "abc"}
    done = command(tmp_path, **chosen)
    assert done.returncode == status, done.stdout + done.stderr
    names = {f"emulated-gpu-{name}" for name in ("machine.txt", "tests.log", "tests.jsonl")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert "commit: abc" in done.stdout
    assert ("FAILED" in done.stdout) is (status == 1)


def test_every_process_may_take_a_fifth_of_the_card(tmp_path: Path) -> None:
    body = "import os\ndef test_it(): assert os.environ['PAGEDOPT_MAX_MANAGED_FRACTION'] == '0.2'"
    (tmp_path / "test_one.py").write_text(body)
    done = command(tmp_path, EMULATE_GPU="1", PARTS="tests", TESTS=str(tmp_path / "test_one.py"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_facts_of_the_machine_come_first(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("def test_one(): pass")
    done = command(tmp_path, EMULATE_GPU="1", PARTS="tests", TESTS=str(tmp_path / "test_one.py"))
    lines = (tmp_path / "out" / "emulated-gpu-machine.txt").read_text().splitlines()
    names = [line.split(":")[0] for line in lines]
    assert names[:4] == ["date", "commit", "driver", "MemTotal"]
    assert "attributes" in names[4] or "CUDA of the driver" in names[4]
    assert "holder" in names, "whether the card is held is told"
    assert lines[3] in done.stdout


def test_a_build_that_fails_is_4_and_nothing_follows(tmp_path: Path) -> None:
    done = command(tmp_path, PARTS="build tests bench", WHEELS=str(tmp_path))  # no wheels there
    assert done.returncode == 4
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"gpu-machine.txt", "gpu-build.log"}


def test_without_what_was_built_nothing_is_tested(tmp_path: Path) -> None:
    done = command(tmp_path, PARTS="tests", PYTHON="/bin/false")
    assert (done.returncode, "cannot be imported" in done.stdout) == (4, True)


def command(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "PYTHON": sys.executable,
        "OUT": str(folder / "out"),
        "SITE": str(folder / "site"),
        **variables,
    }
    return subprocess.run([str(TOOLS / "gpu_check")], env=env, capture_output=True, text=True, timeout=200, check=False)
