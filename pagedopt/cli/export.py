"""Offer the figures of every process to other programs.

`pagedopt export prometheus` is a process of its own that answers http://127.0.0.1:9841/metrics. docs/grafana has a
dashboard for it.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from pagedopt.errors import MonitorError

__all__ = ["add_arguments", "run"]


def port(text: str) -> int:
    """A port as it is written on the command line."""
    if text.isdecimal() and int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the verb."""
    kinds = parser.add_subparsers(dest="to", metavar="TO", required=True)
    prometheus = kinds.add_parser("prometheus", help="metrics over HTTP", description="Metrics over HTTP, on loopback.")
    prometheus.add_argument("--port", type=port, default=9841, metavar="N", help="on 127.0.0.1; 0 for any (9841)")


def run(arguments: argparse.Namespace) -> None:
    """Exports until it is interrupted.

    Raises:
        MonitorError: the `export` extra is missing, or the port is taken.
    """
    if find_spec("prometheus_client") is None:
        raise MonitorError("the export needs prometheus-client: pip install 'pagedopt[export]'")
    from pagedopt.monitor.export.prometheus import serve

    serve(arguments.port)
