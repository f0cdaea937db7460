"""The settings: each one's name, default, meaning and allowed values, once. Everything else is derived from this."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from pagedopt.config.kinds import (
    Address,
    Bytes,
    Choice,
    Directory,
    Hertz,
    Kind,
    Multiple,
    Percent,
    Seconds,
    SizeOf,
    Switch,
    Whole,
)
from pagedopt.config.size import Size, format_bytes, format_percent

__all__ = ["PRESETS", "Entry", "Meaning", "Monitor", "Settings", "build", "contradictions", "entries"]

Policy = Literal["next_use", "lru", "static", "none"]
DirectIo = Literal["auto", "on", "off"]
WatchWrites = Literal["auto", "on", "off"]
OnPagerFailure = Literal["raise", "warn"]
Preset = Literal["balanced", "lean", "fast"]
Placement = Literal["auto", "stream", "direct", "staged"]


@dataclass(frozen=True)
class Meaning:
    """What a setting does, and the kind of its values.

    Attributes:
        text: what it does.
        kind: its values.
        variables: environment variables that mean it besides the one its name makes.
        from_directory: whether a file in the current directory may set it. Such a file may come with somebody else's
            code, and must not open the process to its author or choose where data goes.
    """

    text: str
    kind: Kind
    variables: tuple[str, ...] = ()
    from_directory: bool = True


class Monitor(msgspec.Struct, frozen=True, kw_only=True):
    """What others may see of a process, and how."""

    enabled: Annotated[
        bool,
        Meaning(
            "whether a process with a paged optimizer can be watched (`pagedopt top`); costs nothing while nobody does",
            Switch(),
            variables=("PAGEDOPT_MONITOR",),
            from_directory=False,
        ),
    ] = True
    address: Annotated[
        str,
        Meaning(
            "where it listens: `ipc` in the runtime directory, for this user only; on loopback TCP for who has the "
            "token of its discovery file; on other addresses for who has a key in `monitor.keys_dir`",
            Address(),
            from_directory=False,
        ),
    ] = "ipc"
    rate_hz: Annotated[
        float,
        Meaning("snapshots a second while somebody watches", Hertz(50.0), from_directory=False),
    ] = 2.0
    allow_control: Annotated[
        bool,
        Meaning("whether who watches may also change settings and start traces", Switch(), from_directory=False),
    ] = False
    keys_dir: Annotated[
        Path | None,
        Meaning(
            "the directory of CURVE keys: `server.key_secret` and `clients/*.key` where training runs, "
            "`client.key_secret` where it is watched",
            Directory("only addresses of this machine can be listened on"),
            from_directory=False,
        ),
    ] = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting of pagedopt, as `pagedopt.config.load` found it. `Settings()` holds the defaults.

    The watermarks are fractions of the upper tier; `spill_dir` is absolute, or None where pagedopt chooses.
    """

    preset: Annotated[
        Preset,
        Meaning("a set of defaults: see Presets below", Choice(typing.get_args(Preset))),
    ] = "balanced"
    budget: Annotated[
        Size,
        Meaning(
            "bytes the state may hold in the upper tier; with `auto` it follows what the machine has free",
            SizeOf("the upper tier"),
        ),
    ] = Size()
    policy: Annotated[
        Policy,
        Meaning(
            "what decides which page moves when: `next_use` keeps what is needed soonest, `lru` what was used last, "
            "`static` a fixed prefix, `none` moves nothing",
            Choice(typing.get_args(Policy)),
        ),
    ] = "next_use"
    depth: Annotated[
        int,
        Meaning("pages read ahead of the step", Whole(1, 1 << 20)),
    ] = 8
    page_bytes: Annotated[
        int,
        Meaning(
            "bytes of a page, the unit of residency, on the host; where it is not set, pages are larger if those that "
            "fit could take more than half of the mappings that Linux allows a process (`vm.max_map_count`)",
            Bytes(min_bytes=4096, max_bytes=1 << 30, power_of_two=True),
        ),
    ] = 2 << 20
    min_paged_bytes: Annotated[
        int,
        Meaning(
            "the state of a parameter below this many bytes shares pages with others and stays in the upper tier",
            Bytes(min_bytes=0, max_bytes=1 << 40, letter="K"),
        ),
    ] = 64 << 10
    low_watermark: Annotated[
        float,
        Meaning("with an automatic budget: pages are evicted once less than this of the upper tier is free", Percent()),
    ] = 0.08
    high_watermark: Annotated[
        float,
        Meaning("with an automatic budget: evicting stops once this much of the upper tier is free", Percent()),
    ] = 0.12
    phases: Annotated[
        bool,
        Meaning(
            "with an automatic budget on the host: whether pages use the memory that backward frees, until the next "
            "forward needs it; without it the budget is the same for the whole iteration",
            Switch(),
        ),
    ] = True
    host_limit: Annotated[
        Size,
        Meaning(
            "limit of host memory for this process, parameters and activations included; the pager works as if the "
            "machine had no more; `auto` is the whole machine",
            SizeOf("the machine's memory"),
        ),
    ] = Size()
    device_limit: Annotated[
        Size,
        Meaning(
            "limit of GPU memory for this process, parameters and activations included; the pager works as if the card "
            "were this large; `auto` is the whole card",
            SizeOf("the card"),
        ),
    ] = Size()
    device_page_bytes: Annotated[
        int,
        Meaning(
            "on a GPU: bytes of a page; larger than on the host, because each move costs a call of the driver; pages "
            "under 2MiB share the driver's blocks of 2 MiB, which others can have whole only once all of it has left",
            Bytes(min_bytes=65536, max_bytes=1 << 30, power_of_two=True),
        ),
    ] = 8 << 20
    placement: Annotated[
        Placement,
        Meaning(
            "on a GPU: how state that does not fit is used: `stream` moves it in and out, `direct` leaves it on the "
            "host and reads and writes it over the link, `staged` leaves it there and copies it through a ring of "
            "windows on the device, `auto` measures once and takes the fastest",
            Choice(typing.get_args(Placement)),
        ),
    ] = "auto"
    max_managed_fraction: Annotated[
        float,
        Meaning(
            "on a GPU: the most managed memory to ask for, as a multiple of what the card has free; more than 1 is "
            "what paging is for",
            Multiple(64.0),
        ),
    ] = 16.0
    spill_dir: Annotated[
        Path | None,
        Meaning(
            "the directory of the unlinked spill file, on a disk; it is made only once a page is evicted",
            Directory("the directory for temporary files (`TMPDIR`)"),
            from_directory=False,
        ),
    ] = None
    direct_io: Annotated[
        DirectIo,
        Meaning(
            "whether pages pass the page cache by: `auto` does where the file system can, `on` insists, `off` does not",
            Choice(typing.get_args(DirectIo)),
        ),
    ] = "auto"
    watch_writes: Annotated[
        WatchWrites,
        Meaning(
            "whether writes to paged state by other code than pagedopt are watched on the host, so that all of them "
            "count: `auto` does where the system allows it (userfaultfd), `on` insists, with `off` such writes are "
            "safe within `pagedopt.hold()` alone",
            Choice(typing.get_args(WatchWrites)),
        ),
    ] = "auto"
    on_pager_failure: Annotated[
        OnPagerFailure,
        Meaning(
            "what the next step does after the pager failed; its error says what became of the state",
            Choice(typing.get_args(OnPagerFailure)),
        ),
    ] = "raise"
    pager: Annotated[
        bool,
        Meaning("whether the pager runs; without it nothing moves ahead of the step", Switch()),
    ] = True
    interval_s: Annotated[
        float,
        Meaning("seconds between two looks at the memory pressure", Seconds(3600.0)),
    ] = 0.25
    monitor: Monitor = Monitor()


PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    "balanced": {},
    "lean": {"depth": 4, "low_watermark": 0.16, "high_watermark": 0.24},
    "fast": {"depth": 32, "low_watermark": 0.04, "high_watermark": 0.06},
}


@dataclass(frozen=True)
class Entry:
    """One setting. The name of a setting in a table has a dot: `table.name`."""

    name: str
    default: Any
    meaning: str
    kind: Kind
    other_variables: tuple[str, ...] = ()
    from_directory: bool = True

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return "PAGEDOPT_" + self.name.replace(".", "_").upper()

    @property
    def variables(self) -> tuple[str, ...]:
        """Every environment variable that sets it, the strongest first."""
        return (self.variable, *self.other_variables)


def entries(struct: type[msgspec.Struct], above: str = "") -> Iterator[Entry]:
    """The settings of `struct` in the order of its fields; a field that is a struct itself is a table of settings."""
    hints = typing.get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from entries(hint, f"{above}{field.name}.")
        else:
            meaning: Meaning = hint.__metadata__[0]
            name, others = above + field.name, meaning.variables
            yield Entry(name, field.default, meaning.text, meaning.kind, others, meaning.from_directory)


def build(struct: type[msgspec.Struct], values: Mapping[str, Any], above: str = "") -> Any:
    """The `struct` with `values`, which are named as `entries` names them."""
    hints = typing.get_type_hints(struct)
    fields = {}
    for name in struct.__struct_fields__:
        if above + name in values:
            fields[name] = values[above + name]
        else:
            fields[name] = build(hints[name], values, f"{above}{name}.")
    return struct(**fields)


def contradictions(values: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], str, str]]:
    """What is wrong between two settings that are right alone: their names, what, and what is allowed."""
    low, high = values.get("low_watermark"), values.get("high_watermark")
    if low is not None and high is not None and not low < high:
        yield (
            ("low_watermark", "high_watermark"),
            f"low_watermark {format_percent(low)} is not below high_watermark {format_percent(high)}",
            "low_watermark < high_watermark",
        )
    budget, page_bytes = values.get("budget"), values.get("page_bytes")
    if budget is not None and page_bytes is not None and budget.nbytes is not None and budget.nbytes < page_bytes:
        yield (
            ("budget", "page_bytes"),
            f"a budget of {budget} does not hold one page of {format_bytes(page_bytes)}",
            f"budget >= page_bytes; to evict whatever can be evicted: budget={format_bytes(page_bytes)}",
        )
