"""What the tests of a process's life share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

TIMES = int(os.environ.get("MOMENTS", "1"))
"""How many times the usual number of moments and lines to try."""

Program = Callable[..., "subprocess.CompletedProcess[str]"]
"""Runs one of the programs here."""
