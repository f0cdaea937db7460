"""docs/configuration.md, made from the settings: `python -m pagedopt.config > docs/configuration.md`."""

from __future__ import annotations

from collections.abc import Iterator

from pagedopt.config.settings import PRESETS, Settings, entries

__all__ = ["reference"]

_HEAD = """\
# Configuration

Made by `python -m pagedopt.config > docs/configuration.md`.

Nothing has to be set. What is set is looked for in these places; the first that gives a setting wins:

1. keywords of a call, such as `pagedopt.config.load({"budget": "16GiB"})`
2. `pagedopt.configure(budget="16GiB", ...)`, for the process
3. the environment variables below; an empty one counts as not set
4. the TOML file that `PAGEDOPT_CONFIG` names
5. `pagedopt.toml` in the current directory (*)
6. the table `[tool.pagedopt]` of `pyproject.toml` in the current directory (*)
7. `$XDG_CONFIG_HOME/pagedopt/config.toml`, by default `~/.config/pagedopt/config.toml`
8. the preset
9. the default

(*) These files may come with somebody else's code, so {refused} are refused there.

A setting has the same name everywhere, and every place takes the same values; text is read where a number or a switch
is meant, so `depth = 8` and `depth = "8"` are the same. All problems of all places are raised together, as one
`pagedopt.errors.ConfigError`, each with where it was given, what is wrong, what is allowed and what was probably meant.
`pagedopt config` shows what a process started in the current directory would run by and where each value is given;
`pagedopt.config.origins()` tells the same within a process.

Sizes have a unit: B, KiB to PiB (powers of 1024) or KB to PB (powers of 1000). `16G` is refused because it can be read
both ways, and so is a small number without a unit. A relative path starts at the directory of the file it is written
in, elsewhere at the current directory.

A setting `table.name` is `name` of the table `[table]` (`[tool.pagedopt.table]` in `pyproject.toml`) in a file, and a
nested dict in a call: `pagedopt.configure(monitor={"enabled": False})`.

`PAGEDOPT_RUNTIME_DIR` is no setting: it is where a process that can be watched and those who watch it find each other,
by default `$XDG_RUNTIME_DIR/pagedopt`, else `pagedopt-<uid>` in the directory for temporary files.
"""


def reference() -> str:
    """The whole page, as Markdown."""
    refused = [f"`{entry.name}`" for entry in entries(Settings) if not entry.from_directory]
    head = _HEAD.replace("{refused}", f"{', '.join(refused[:-1])} and {refused[-1]}")
    return "\n".join([head, "## Settings", "", *_settings(), "", "## Presets", "", *_presets()]) + "\n"


def _settings() -> Iterator[str]:
    rows = (
        (f"`{e.name}`", _code(e.kind.show(e.default)), e.meaning, e.kind.allowed, _codes(e.variables))
        for e in entries(Settings)
    )
    yield from _table(("Name", "Default", "Meaning", "Allowed", "Environment variable"), rows)


def _presets() -> Iterator[str]:
    yield "A preset changes defaults; what is given anywhere else wins over it. `lean` leaves other programs more room,"
    yield "`fast` takes more room and reads further ahead."
    yield ""
    changed = [entry for entry in entries(Settings) if any(entry.name in values for values in PRESETS.values())]
    yield from _table(
        ("Preset", *(f"`{entry.name}`" for entry in changed)),
        (
            (f"`{preset}`", *(entry.kind.show(values.get(entry.name, entry.default)) for entry in changed))
            for preset, values in PRESETS.items()
        ),
    )


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    for row in (head, ("---",) * len(head), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _codes(words: tuple[str, ...]) -> str:
    return ", ".join(map(_code, words))


def _code(text: str) -> str:
    return f"`{text}`" if text else "none"
