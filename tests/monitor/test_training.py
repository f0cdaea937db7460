"""Real training processes, watched from outside: what is seen, what their end looks like, what switches it off."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from monitor.watched import SNAPSHOT, TRAINING, until

from pagedopt._core import COUNTERS
from pagedopt.cli import main
from pagedopt.errors import MonitorError
from pagedopt.monitor.export import chrome
from pagedopt.monitor.export.figures import figures
from pagedopt.monitor.feed import Feed, Frame
from pagedopt.monitor.places import processes
from pagedopt.monitor.wire import TraceBatch
from pagedopt.snapshot import ProcessInfo, Snapshot

Train = Callable[..., "subprocess.Popen[str]"]
Watchable = Callable[[int], list[ProcessInfo]]
ENDLESS = "while True: step()"


def test_two_processes_are_watched_at_once_and_their_ends_are_seen(train: Train, watchable: Watchable) -> None:
    children = [train(ENDLESS, RANK=str(rank), WORLD_SIZE="2") for rank in (1, 0)]
    found = watchable(2)
    assert [(process.rank, process.world_size) for process in found] == [(0, 2), (1, 2)]
    assert {process.pid for process in found} == {child.pid for child in children}
    feeds = [Feed(process) for process in found]
    for feed in feeds:
        frame = until(partial(complete, feed))
        (arena,), (pages,) = frame.snapshot.arenas, frame.pages
        assert arena.upper_bytes + arena.lower_bytes + arena.fresh_bytes == arena.allocated_bytes
        assert arena.budget_bytes == 4 << 20
        assert len(pages.in_order()) == len(pages.numbers()) > 64
        assert [tensor.shape for tensor in frame.tensors] == [(100_003,)] * 10 + [(1000,)]
        assert sum(tensor.state_bytes for tensor in frame.tensors) == 2 * 4 * (10 * 100_003 + 1000)
        assert all(tensor.first_page is not None and tensor.last_page < len(pages.tiers) for tensor in frame.tensors)
        assert [optimizer.name for optimizer in frame.snapshot.optimizers] == ["PagedAdamW"]
        assert {s.name: s.kind for s in frame.settings}["budget"] == "configure"
    children[0].kill()  # rank 1
    children[0].wait()
    until(lambda: feeds[1].poll(0.2) and feeds[1].frame.lost)
    assert feeds[1].frame.snapshot is not None
    assert feeds[0].frame.lost is None
    assert [process.rank for process in processes()] == [0]
    for feed in feeds:
        feed.close()


def complete(feed: Feed) -> Frame | None:
    """The frame, once everything was heard."""
    if not feed.poll(0.2):
        return None
    frame = feed.frame
    seen = frame.snapshot is not None and frame.snapshot.arenas and frame.snapshot.arenas[0].counters["steps"] > 2
    is_listed = bool(frame.tensors) and all(tensor.state_bytes for tensor in frame.tensors)
    is_mapped = bool(frame.pages) and all(pages.order for pages in frame.pages)  # not from before the first step
    return frame if seen and is_mapped and is_listed and frame.settings else None


@pytest.mark.parametrize("environ", [{"PAGEDOPT_MONITOR": "0"}, {"PAGEDOPT_MONITOR_ENABLED": "false"}])
def test_monitoring_can_be_switched_off(train: Train, place: Path, environ: dict[str, str]) -> None:
    child = train("step(); print('stepped', flush=True); input()", **environ)
    assert child.stdout is not None
    assert child.stdout.readline() == "stepped\n"
    assert list(place.iterdir()) == []


def test_plain_optimizers_are_not_watched(run_python: Any, place: Path) -> None:
    done = run_python(
        TRAINING.replace("PagedAdamW", "AdamW") + "step()\nimport os; print(os.listdir(sys.argv[1]))", str(place)
    )
    assert done.stdout == "[]\n", done.stderr


def test_process_that_cannot_be_watched_trains_on_with_one_warning(run_python: Any, place: Path) -> None:
    place.chmod(0o755)
    done = run_python(TRAINING + "step(); step(); print('stepped')")
    assert done.stdout == "stepped\n"
    assert done.stderr.count("cannot be watched") == 1
    assert "chmod 700" in done.stderr


def test_process_leaves_no_files(run_python: Any, place: Path) -> None:
    done = run_python(TRAINING + "step(); import os; print(len(os.listdir(sys.argv[1])))", str(place))
    assert done.stdout == "3\n", done.stderr
    assert list(place.iterdir()) == []


def test_forked_child_publishes_itself_only(run_python: Any, place: Path) -> None:
    done = run_python(
        TRAINING
        + """
import os
from pagedopt.monitor.export.figures import figures
from pagedopt.monitor.places import processes
step()
if os.fork() == 0:
    before = len(os.listdir(sys.argv[1]))
    tensor = torch.nn.Parameter(torch.ones(100_000)); tensor.grad = torch.ones(100_000)
    optim.PagedAdamW([tensor]).step()
    print(before, sorted(p.pid == os.getpid() for p in processes()), flush=True)
    sys.exit()
os.wait()
print([p.pid == os.getpid() for p in processes()])
""",
        str(place),
    )
    assert done.stdout == "3 [False, True]\n[True]\n", done.stderr
    assert list(place.iterdir()) == []


def test_watchers_settings_reach_the_process(train: Train, watchable: Watchable) -> None:
    train(ENDLESS, PAGEDOPT_MONITOR_ALLOW_CONTROL="1")
    (process,) = watchable(1)
    with Feed(process) as feed:
        until(lambda: feed.poll(0.2) and feed.frame.pages)
        changed = {setting.name: setting.value for setting in feed.ask("set", {"budget": "2MiB", "policy": "lru"})}
        assert (changed["budget"], changed["policy"]) == ("2MiB", "lru")

        def snapshot() -> Snapshot | None:
            return feed.frame.snapshot if feed.poll(0.2) else None

        until(lambda: (seen := snapshot()) is not None and seen.arenas[0].budget_bytes == 2 << 20)
        seen = until(snapshot)
        assert seen.pager.policy == "lru"
        until(lambda: feed.poll(0.2) and any("budget = 2MiB" in event.text for event in feed.frame.events))
        with pytest.raises(MonitorError, match="page_bytes"):
            feed.ask("set", {"page_bytes": "4KiB"})


# ---- verbs


def test_verbs_without_a_process_say_so_with_3(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["ps"], ["stats"], ["trace"]):
        assert main(arguments) == 3
        assert str(place) in capsys.readouterr().err


def test_verbs_show_a_process(train: Train, watchable: Watchable, capsys: pytest.CaptureFixture[str]) -> None:
    train(ENDLESS)
    (process,) = watchable(1)
    assert main(["ps"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == [str(process.pid), "n/a", process.version]
    assert main(["ps", "--json"]) == 0
    assert [row["pid"] for row in json.loads(capsys.readouterr().out)] == [process.pid]
    with Feed(process, topics=()) as feed:
        until(lambda: feed.ask("snapshot").arenas)
    assert main(["stats", "--json", "--pid", str(process.pid)]) == 0
    assert json.loads(capsys.readouterr().out)["arenas"][0]["budget_bytes"] == 4 << 20
    assert main(["stats"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["budget_bytes{cpu}"].split() == ["4,194,304", "bytes"]
    assert main(["trace"]) == 4
    assert "allow_control" in capsys.readouterr().err
    assert main(["stats", "--pid", str(os.getpid())]) == 3


def test_prometheus_is_answered_over_http(train: Train, watchable: Watchable) -> None:
    train(ENDLESS)
    (process,) = watchable(1)
    command = [sys.executable, "-m", "pagedopt", "export", "prometheus", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as exporter:
        try:
            assert exporter.stdout is not None
            address = exporter.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:")

            def text() -> str:
                with urllib.request.urlopen(address, timeout=10) as answer:
                    return str(answer.read().decode())

            lines = until(lambda: found if "pagedopt_budget_bytes{" in (found := text()) else None, 30)
        finally:
            exporter.terminate()
    (budget,) = [line for line in lines.splitlines() if line.startswith("pagedopt_budget_bytes{")]
    assert f'pid="{process.pid}"' in budget
    assert float(budget.rpartition(" ")[2]) == 4 << 20


PROFILED = """
from torch.profiler import ProfilerActivity, profile
step()
print("ready", flush=True); input()
with profile(activities=[ProfilerActivity.CPU]) as profiler:
    end_s = time.monotonic() + 2.5
    while time.monotonic() < end_s: step()
profiler.export_chrome_trace(sys.argv[1] if len(sys.argv) > 1 else __import__("os").environ["OUT"])
print("done", flush=True); input()
"""


def test_trace_merges_with_the_profilers_file(train: Train, watchable: Watchable, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "profile.json", tmp_path / "trace.json"
    child = train(PROFILED, OUT=str(theirs), PAGEDOPT_MONITOR_ALLOW_CONTROL="1")
    assert child.stdin is not None
    assert child.stdout is not None
    while child.stdout.readline() != "ready\n":
        pass
    child.stdin.write("\n")
    child.stdin.flush()
    assert main(["trace", "-s", "2", "-o", str(ours)]) == 0
    while child.stdout.readline() != "done\n":
        pass
    trace, profile = json.loads(ours.read_text()), json.loads(theirs.read_text())
    assert trace["baseTimeNanoseconds"] == profile["baseTimeNanoseconds"]
    names = {event["name"] for event in trace["traceEvents"]}
    assert {"pagedopt step", "pagedopt prefetch", "pagedopt evict", "thread_name"} <= names
    updates = [event for event in profile["traceEvents"] if event.get("name") == "pagedopt.update"]
    steps = [event for event in trace["traceEvents"] if event["name"] == "pagedopt step"]
    inside = [step for step in steps if any(_is_inside(step, update) for update in updates)]
    profiled = [step for step in steps if updates[0]["ts"] <= step["ts"] <= updates[-1]["ts"]]
    assert profiled
    assert [step for step in profiled if step not in inside] == []


def _is_inside(inner: dict[str, Any], outer: dict[str, Any]) -> bool:
    slack_us = 200.0  # the two clocks are read one after the other
    return bool(
        inner["tid"] == outer["tid"]
        and outer["ts"] - slack_us <= inner["ts"]
        and inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"] + slack_us
    )


def test_base_of_the_clock_is_that_of_the_profiler() -> None:
    assert chrome.base_ns(1795368156735472905) == 1790857026000000000  # seen in a file of torch 2.13


def test_file_of_its_own_names_the_process_and_its_threads() -> None:
    kinds = {"prefetch": (11, 0), "evict": (12, 2), "step": (10, 6), "stall": (10, 5)}
    record = struct.Struct("<QQQIIBB6x")  # begin, duration, bytes, page, thread, kind, reason
    records = b"".join(record.pack(1000, 5, 64, 7, thread, kind, 2) for thread, kind in kinds.values())
    batch = TraceBatch(device="cpu", records=records, lost=0, monotonic_ns=1000, unix_ns=10**18)
    events = chrome.document(10, "python train.py", [batch])["traceEvents"]
    names = {(event["name"], event["tid"]): event["args"]["name"] for event in events if event["ph"] == "M"}
    assert names == {
        ("process_name", 10): "python train.py",
        ("thread_name", 10): "step",
        ("thread_name", 11): "pagedopt reader",
        ("thread_name", 12): "pagedopt writer",
    }
    merged = chrome.merge({"traceEvents": []}, 10, [batch])["traceEvents"]
    assert not {"process_name", "step"} & {str(event["args"].get("name", event["name"])) for event in merged}


def test_merging_keeps_what_was_there() -> None:
    profile = {"baseTimeNanoseconds": 5, "traceEvents": [{"name": "x"}], "other": 1}
    assert chrome.merge(profile, 1, []) == profile
    with pytest.raises(ValueError, match="traceEvents"):
        chrome.merge({"traceEvents": 3}, 1, [])


def test_prometheus_answers_on_loopback(train: Train, watchable: Watchable) -> None:
    pytest.importorskip("prometheus_client")
    from prometheus_client import CollectorRegistry, generate_latest

    from pagedopt.monitor.export.prometheus import Collector

    train(ENDLESS)
    (process,) = watchable(1)
    with Feed(process, topics=()) as feed:
        until(lambda: feed.ask("snapshot").arenas)
    registry = CollectorRegistry()
    registry.register(Collector())
    text = generate_latest(registry).decode()
    assert f'pagedopt_up{{pid="{process.pid}",rank=""}} 1.0' in text
    assert f'pagedopt_budget_bytes{{device="cpu",pid="{process.pid}",rank=""}} 4.194304e+06' in text
    assert "# TYPE pagedopt_steps_total counter" in text
    assert "# TYPE pagedopt_stall_seconds_total counter" in text
    for name, _, meaning in COUNTERS:
        assert meaning in text, name
    assert "_ns" not in text


def test_dashboard_asks_for_metrics_that_exist() -> None:
    root = Path(__file__).parent.parent.parent
    dashboard = json.loads((root / "docs" / "grafana" / "pagedopt.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"pagedopt_\w+", target["expr"])
    }
    arena = msgspec.structs.replace(SNAPSHOT.arenas[0], counters={name: 1 for name, _, _ in COUNTERS}, budget_bytes=1)
    rows = figures(msgspec.structs.replace(SNAPSHOT, arenas=(arena,)), {})
    known = {f"pagedopt_{row.name}" + ("_total" if row.is_total else "") for row in rows}
    assert asked - known == set()
    assert len(asked) > 10
