"""The fixtures of the monitor's tests, for those that bend what they use."""

from __future__ import annotations

from monitor import publishing

looks, place, publish = publishing.looks, publishing.place, publishing.publish
