"""What the tests of a process's life share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

IS_LONG = bool(os.environ.get("PAGEDOPT_LONG"))
"""Whether to take hours instead of seconds: every line, a hundred times as many moments."""

Program = Callable[..., "subprocess.CompletedProcess[str]"]
"""Runs one of the programs here."""
