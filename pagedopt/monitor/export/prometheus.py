"""The figures of every process as Prometheus metrics, looked up when they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from pagedopt.errors import MonitorError
from pagedopt.monitor.export.figures import Figure, figures
from pagedopt.monitor.feed import Feed
from pagedopt.monitor.places import processes
from pagedopt.output import printable, say
from pagedopt.snapshot import ProcessInfo, Snapshot

__all__ = ["Collector", "serve"]

ANSWER_S = 2.0
Family = CounterMetricFamily | GaugeMetricFamily


class Collector:
    """Asks every process for a snapshot whenever Prometheus comes by; in between nothing is asked of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """The metrics of all processes."""
        with self._lock:
            found = [(process, _snapshot(process)) for process in processes()]
        up = GaugeMetricFamily("pagedopt_up", "whether the process answers", labels=["pid", "rank"])
        families: dict[str, Family] = {}
        for process, snapshot in found:
            where = {"pid": str(process.pid), "rank": "" if process.rank is None else str(process.rank)}
            up.add_metric(list(where.values()), 0 if snapshot is None else 1)
            if snapshot is not None:
                _add(families, where, figures(snapshot, process.counters))
        yield up
        yield from families.values()


def _snapshot(process: ProcessInfo) -> Snapshot | None:
    try:
        with Feed(process, topics=(), with_lists=False) as feed:
            snapshot: Snapshot = feed.ask("snapshot", timeout_s=ANSWER_S)
            return snapshot
    except MonitorError:
        return None


def _add(families: dict[str, Family], where: dict[str, str], rows: Iterable[Figure]) -> None:
    for figure in rows:
        if figure.value is None:
            continue  # what cannot be measured is absent, not 0
        labels = {name: printable(value) for name, value in {**where, **figure.labels}.items()}
        name = f"pagedopt_{figure.name}"
        if name not in families:
            family = CounterMetricFamily if figure.is_total else GaugeMetricFamily
            families[name] = family(name, printable(f"{figure.unit}: {figure.meaning}"), labels=list(labels))
        families[name].add_metric(list(labels.values()), figure.value)


def serve(port: int) -> None:
    """Answer on 127.0.0.1 until interrupted.

    Raises:
        MonitorError: the port cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(Collector())
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise MonitorError(f"127.0.0.1:{port} cannot be listened on: {error.strerror}; choose another --port") from None
    say(f"http://127.0.0.1:{server.server_port}/metrics")
    try:
        thread.join()
    finally:
        server.shutdown()
