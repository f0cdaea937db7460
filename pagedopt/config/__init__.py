"""The settings of pagedopt, their sources and their errors. docs/configuration.md is the reference, made from here.

Sources, the first that gives a setting wins: keywords of a constructor, `pagedopt.configure`, `PAGEDOPT_*` variables,
the file `$PAGEDOPT_CONFIG`, `./pagedopt.toml`, `[tool.pagedopt]` in `./pyproject.toml`, the user's
`~/.config/pagedopt/config.toml`, the preset, the default. What is wrong in any of them is raised at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pagedopt.config.kinds import Kind, RefusedError
from pagedopt.config.settings import PRESETS, Settings, build, contradictions, entries
from pagedopt.config.size import Size, format_bytes, parse_size
from pagedopt.config.sources import Given, Layer, Origin, calls, environment, files
from pagedopt.errors import ConfigError, Problem

__all__ = [
    "PRESETS",
    "Origin",
    "Settings",
    "Size",
    "configure",
    "format_bytes",
    "load",
    "load_with_origins",
    "origins",
    "parse_size",
    "unconfigure",
]

_SCHEMA = {entry.name: entry for entry in entries(Settings)}
_configured: dict[str, Given] = {}
_configuring = threading.Lock()


def configure(**settings: Any) -> None:
    """Set settings for this process. Later calls add to earlier ones; without arguments nothing changes.

    This is only the source; `pagedopt.configure` also applies it to what already runs.

    Raises:
        ConfigError: the settings of all sources together cannot be used; nothing was changed.
    """
    global _configured
    if not settings:
        return
    layer = calls("configure", settings, _SCHEMA, Path.cwd())
    with _configuring:
        changed = _configured | {item.name: item for item in layer if isinstance(item, Given)}
        unknown = [item for item in layer if isinstance(item, Problem)]
        _resolve({}, [*unknown, *changed.values()], os.environ, None, None)
        _configured = changed


def unconfigure() -> None:
    """Forget what `configure` set."""
    global _configured
    with _configuring:
        _configured = {}


def load(
    keywords: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    cwd: str | os.PathLike[str] | None = None,
    home: str | os.PathLike[str] | None = None,
) -> Settings:
    """The settings from all sources.

    Args:
        keywords: the strongest source, by name.
        environ: the environment.
        cwd: where `pagedopt.toml` and `pyproject.toml` are looked for; the current directory when None.
        home: the home directory, which holds the user's configuration; `$HOME` when None.

    Raises:
        ConfigError: with every problem of every source.
    """
    return load_with_origins(keywords, environ=environ, cwd=cwd, home=home)[0]


def origins(
    keywords: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    cwd: str | os.PathLike[str] | None = None,
    home: str | os.PathLike[str] | None = None,
) -> dict[str, Origin]:
    """Where the value of each setting comes from. Arguments and errors are those of `load`."""
    return load_with_origins(keywords, environ=environ, cwd=cwd, home=home)[1]


def load_with_origins(
    keywords: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    cwd: str | os.PathLike[str] | None = None,
    home: str | os.PathLike[str] | None = None,
) -> tuple[Settings, dict[str, Origin]]:
    """What `load` and `origins` return, from one reading of the sources."""
    return _resolve(keywords or {}, list(_configured.values()), environ, cwd, home)


def _resolve(
    keywords: Mapping[str, Any],
    configured: Layer,
    environ: Mapping[str, str],
    cwd: str | os.PathLike[str] | None,
    home: str | os.PathLike[str] | None,
) -> tuple[Settings, dict[str, Origin]]:
    here = Path.cwd() if cwd is None else Path(cwd).absolute()
    layers = [
        calls("keyword", keywords, _SCHEMA, here),
        configured,
        environment(environ, _SCHEMA, here),
        *files(environ, _SCHEMA, here, _home(environ, home)),
    ]
    values: dict[str, Any] = {}
    where: dict[str, Origin] = {}
    problems = [problem for layer in layers for problem in _read(layer, values, where)]
    _complete(values, where)
    for names, what, allowed in contradictions(values):
        given = " and ".join(f"{name} from {where[name]}" for name in names)
        problems.append(Problem(given, what, allowed))
    if problems:
        raise ConfigError(problems)
    return build(Settings, values), {name: where[name] for name in _SCHEMA}


def _read(layer: Layer, values: dict[str, Any], where: dict[str, Origin]) -> Iterator[Problem]:
    """Fill `values` and `where` with what stronger layers did not give; a refused value leaves only its origin."""
    for item in layer:
        if isinstance(item, Problem):
            yield item
            continue
        kind = _SCHEMA[item.name].kind
        is_strongest = where.setdefault(item.name, item.origin) is item.origin
        try:
            value = kind.read(item.value)
        except RefusedError as error:
            what = f"{item.name} = {_quote(item.value)}: {error}"
            hints = tuple(hint for hint in error.hints if _is_allowed(kind, hint))
            yield Problem(str(item.origin), what, kind.allowed, hints)
        else:
            if is_strongest:
                values[item.name] = item.base / value if isinstance(value, Path) else value


def _complete(values: dict[str, Any], where: dict[str, Origin]) -> None:
    preset = values.get("preset", _SCHEMA["preset"].default)
    for name, entry in _SCHEMA.items():
        if name in where:
            continue
        is_preset = name in PRESETS[preset]
        values[name] = PRESETS[preset][name] if is_preset else entry.default
        where[name] = Origin("preset", f"preset {preset}") if is_preset else Origin("default", "default")


def _is_allowed(kind: Kind, given: str) -> bool:
    try:
        kind.read(given)
    except RefusedError:
        return False
    return True


def _home(environ: Mapping[str, str], home: str | os.PathLike[str] | None) -> Path | None:
    if home is None:
        home = environ.get("HOME") or os.path.expanduser("~")
    return Path(home) if os.path.isabs(home) else None


def _quote(given: object) -> str:
    text = repr(given)
    return text if len(text) <= 80 else f"{text[:77]}..."
