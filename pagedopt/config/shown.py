"""Settings in force as they are shown: each with its value as a user would write it, and where it was given."""

from __future__ import annotations

import operator
from collections.abc import Mapping

from pagedopt.config.settings import Settings, entries
from pagedopt.config.sources import Origin
from pagedopt.snapshot import SettingSnapshot

__all__ = ["shown"]


def shown(settings: Settings, origins: Mapping[str, Origin]) -> tuple[SettingSnapshot, ...]:
    """Every setting, in the order of the reference."""
    return tuple(
        SettingSnapshot(
            name=entry.name,
            value=entry.kind.show(operator.attrgetter(entry.name)(settings)),
            origin=str(origins[entry.name]),
            kind=origins[entry.name].kind,
        )
        for entry in entries(Settings)
    )
