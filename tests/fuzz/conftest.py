"""The fixtures of the monitor's tests, for those that bend what they use."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "monitor"))

import publishing

looks, place, publish = publishing.looks, publishing.place, publishing.publish
