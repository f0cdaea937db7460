"""Where settings come from: calls, the environment, TOML files. Here names are judged; values are judged later."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from pagedopt.config.kinds import meant
from pagedopt.config.settings import Entry
from pagedopt.config.toml_lines import error_line, key_lines, parse
from pagedopt.errors import Problem
from pagedopt.files import read_regular

__all__ = ["FILE_VARIABLE", "Given", "Layer", "Origin", "OriginKind", "calls", "environment", "files"]

FILE_VARIABLE = "PAGEDOPT_CONFIG"
PLACE_VARIABLES = ("PAGEDOPT_RUNTIME_DIR",)
"""Variables that are no settings: they say where processes find each other."""

MOST_BYTES = 1 << 20
"""What a file with settings may have at most."""

OriginKind = Literal["keyword", "configure", "environment", "file", "preset", "default"]
Schema = Mapping[str, Entry]


class Origin(msgspec.Struct, frozen=True):
    """Where a value was given.

    Attributes:
        kind: the source.
        where: the place in it: a keyword, a variable, `file:line`, or a preset.
    """

    kind: OriginKind
    where: str

    def __str__(self) -> str:
        return self.where


@dataclass(frozen=True)
class Given:
    """A value of a setting as a source gives it. Relative paths start at `base`."""

    name: str
    value: object
    origin: Origin
    base: Path


Layer = list["Given | Problem"]
"""What one source gives, in its order, and what it gives that is no setting."""


def calls(kind: Literal["keyword", "configure"], values: Mapping[str, Any], schema: Schema, base: Path) -> Layer:
    """The keywords of a call."""
    layer: Layer = []
    for path, value in _leaves(values, schema):
        name = ".".join(path)
        origin = Origin(kind, f"keyword {name}" if kind == "keyword" else f"pagedopt.configure({name}=...)")
        layer.append(_named(Given(name, value, origin, base), schema))
    return layer


def environment(environ: Mapping[str, str], schema: Schema, base: Path) -> Layer:
    """The variables PAGEDOPT_*; an empty one counts as not set."""
    layer: Layer = []
    names = {variable: name for name, entry in schema.items() for variable in entry.variables}
    others = (FILE_VARIABLE, *PLACE_VARIABLES)
    second = {variable for entry in schema.values() for variable in entry.other_variables}
    for variable in sorted(environ, key=lambda variable: (variable in second, variable)):
        if not variable.startswith("PAGEDOPT_") or variable in others or not environ[variable]:
            continue
        origin = Origin("environment", variable)
        if variable in names:
            layer.append(Given(names[variable], environ[variable], origin, base))
        else:
            layer.append(_unknown(origin, variable, [*names, *others]))
    return layer


def files(environ: Mapping[str, str], schema: Schema, cwd: Path, home: Path | None) -> Iterator[Layer]:
    """The files, the strongest first. Only the one that FILE_VARIABLE names has to exist.

    Files that merely lie in the current directory may be anybody's, so some settings are refused there.
    """
    seen: set[Path] = set()
    chosen = environ.get(FILE_VARIABLE)
    if chosen:
        path = cwd / Path(chosen).expanduser()
        seen.add(path)
        yield _file(path, schema, lambda error: _missing(chosen, error))
    for path in [cwd / "pagedopt.toml", cwd / "pyproject.toml"]:
        if path not in seen:
            yield [_not_from_directory(item, schema) for item in _file(path, schema, lambda error: [])]
    for path in _user_files(environ, home):
        if path not in seen:
            yield _file(path, schema, lambda error: [])


def _not_from_directory(item: Given | Problem, schema: Schema) -> Given | Problem:
    """The item, or a problem if its setting may not come from a file in the current directory."""
    if isinstance(item, Problem) or schema[item.name].from_directory:
        return item
    return Problem(
        str(item.origin),
        f"{item.name} is not taken from a file in the current directory, which may be somebody else's",
        f"a call, {schema[item.name].variable}, the file that {FILE_VARIABLE} names, or your own "
        "~/.config/pagedopt/config.toml",
    )


def _user_files(environ: Mapping[str, str], home: Path | None) -> Iterator[Path]:
    xdg = Path(environ.get("XDG_CONFIG_HOME", ""))
    if xdg.is_absolute():
        yield xdg / "pagedopt" / "config.toml"
    elif home is not None:
        yield home / ".config" / "pagedopt" / "config.toml"


def _missing(chosen: str, error: OSError) -> Layer:
    why = f"{FILE_VARIABLE} = {chosen!r}: {error.strerror}"
    return [Problem(FILE_VARIABLE, why, "the path of a TOML file with settings")]


def _file(path: Path, schema: Schema, on_missing: Callable[[OSError], Layer]) -> Layer:
    try:
        data = read_regular(path, MOST_BYTES)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return on_missing(error)
        return [Problem(f"{path}:1", f"cannot be read: {error.strerror}", "a readable TOML file")]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return [Problem(f"{path}:{line}", "is not UTF-8", "TOML files are UTF-8")]
    try:
        document = parse(text)
    except (ValueError, RecursionError) as error:
        return [Problem(f"{path}:{error_line(text, error)}", f"is not TOML: {error}", "TOML 1.0")]
    return _document(path, text, document, schema)


def _document(path: Path, text: str, document: dict[str, Any], schema: Schema) -> Layer:
    prefix = ("tool", "pagedopt") if path.name == "pyproject.toml" else ()
    table: object = document
    for key in prefix:
        table = table.get(key, {}) if isinstance(table, dict) else {}
    if table == {}:
        return []
    lines = key_lines(text)
    if not isinstance(table, dict):
        return [Problem(f"{path}:{lines[prefix]}", "tool.pagedopt is not a table", "[tool.pagedopt]")]
    layer: Layer = []
    for leaf, value in _leaves(table, schema):
        origin = Origin("file", f"{path}:{lines[prefix + leaf]}")
        layer.append(_named(Given(".".join(leaf), value, origin, path.parent), schema))
    return layer


def _named(given: Given, schema: Schema) -> Given | Problem:
    return given if given.name in schema else _unknown(given.origin, given.name, schema)


def _unknown(origin: Origin, spelled: str, known: Collection[str]) -> Problem:
    hints = meant(spelled, known)
    return Problem(str(origin), f"{spelled} is not a setting", "" if hints else ", ".join(known), hints)


def _leaves(
    table: Mapping[str, Any], schema: Schema, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every value with its path; a table that is not in the schema is one value."""
    for key, value in table.items():
        path = (*above, str(key))
        is_table = any(name.startswith(".".join(path) + ".") for name in schema)
        if is_table and isinstance(value, Mapping):
            yield from _leaves(value, schema, path)
        else:
            yield path, value
