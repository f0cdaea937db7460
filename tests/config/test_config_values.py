"""Sizes and the other kinds of values: rows, and round trips over everything."""

from __future__ import annotations

import math
import operator
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagedopt.config.kinds import Kind, RefusedError
from pagedopt.config.settings import PRESETS, Settings, entries
from pagedopt.config.size import (
    MAX_BYTES,
    Size,
    SizeSyntaxError,
    format_bytes,
    format_percent,
    parse_percent,
    parse_size,
)

KINDS: dict[str, Kind] = {entry.name: entry.kind for entry in entries(Settings)}
GI, G = 1024**3, 1000**3

SIZES = [
    ("16GiB", 16 * GI),
    ("16GB", 16 * G),
    ("16 GiB", 16 * GI),
    (" 16gib ", 16 * GI),
    ("1.5TiB", 3 * 1024**4 // 2),
    ("0.3KiB", 307),
    ("64KiB", 65536),
    ("64kB", 64000),
    ("2PiB", 2 * 1024**5),
    ("3PB", 3 * 10**15),
    ("1024B", 1024),
    ("17179869184", 17179869184),
    ("9007199254740993B", 2**53 + 1),
    ("9223372036854775807", MAX_BYTES),
]
NOT_SIZES = [
    *("", "GiB", "-1GiB", "+1GiB", "1e3GiB", "1..5GiB", ".5GiB", "5.GiB", "1,5GiB", "1_000MiB", "16 G iB", "1.5"),
    *("16GiBs", "16Gbit", "0x10", "\N{ARABIC-INDIC DIGIT THREE}GiB", "\N{SUPERSCRIPT TWO}GiB", "lots", "80 percent"),
    *("nan%", "auto%", "%", "-80%", "9223372036854775808", "8193PiB", "9" * 400),
]
TWO_READINGS = [(unit, "KMGTP"[i % 5]) for i, unit in enumerate([*"KMGTP", *"kmgtp"])]


@pytest.mark.parametrize(("text", "nbytes"), SIZES)
def test_size_is_read(text: str, nbytes: int) -> None:
    assert parse_size(text) == Size(nbytes=nbytes)


@pytest.mark.parametrize("text", NOT_SIZES)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SizeSyntaxError):
        parse_size(text)


@pytest.mark.parametrize(("unit", "letter"), TWO_READINGS)
def test_unit_with_two_readings_offers_both(unit: str, letter: str) -> None:
    with pytest.raises(SizeSyntaxError) as caught:
        parse_size(f"1.5{unit}")
    assert caught.value.readings == (f"1.5{letter}iB", f"1.5{letter}B")


def test_unit_of_kubernetes_offers_its_one_reading() -> None:
    with pytest.raises(SizeSyntaxError) as caught:
        parse_size("16Gi")
    assert caught.value.readings == ("16GiB",)


@pytest.mark.parametrize(
    ("size", "total_bytes", "resolved"),
    [
        (Size(), 10 * GI, None),
        (Size(nbytes=5), 3, 5),
        (Size(fraction=0.8), 10, 8),
        (Size(fraction=0.29), 100, 29),
        (Size(fraction=1.0), 2**60 + 1, 2**60 + 1),
        (Size(fraction=0.5), 3, 1),
        (Size(fraction=0.5), 0, 0),
    ],
)
def test_size_resolves(size: Size, total_bytes: int, resolved: int | None) -> None:
    assert size.resolve(total_bytes) == resolved
    assert size.is_auto == (resolved is None)


def test_size_is_bytes_or_fraction() -> None:
    with pytest.raises(ValueError, match="not both"):
        Size(nbytes=1, fraction=0.5)


@given(st.integers(0, MAX_BYTES))
def test_bytes_round_trip(nbytes: int) -> None:
    text = format_bytes(nbytes)
    assert parse_size(text) == Size(nbytes=nbytes)
    assert str(Size(nbytes=nbytes)) == text


@given(st.integers(1, 8000), st.sampled_from("KMGTP"), st.sampled_from([("iB", 1024), ("B", 1000)]))
def test_whole_units_round_trip_in_value(number: int, letter: str, unit: tuple[str, int]) -> None:
    nbytes = number * unit[1] ** ("KMGTP".index(letter) + 1)
    assert parse_size(f"{number}{letter}{unit[0]}").nbytes == nbytes
    assert len(format_bytes(nbytes)) <= len(f"{nbytes}B")


@given(st.decimals(0, 8000, places=3), st.sampled_from("KMGTP"))
def test_decimal_sizes_drop_parts_of_a_byte(number: Decimal, letter: str) -> None:
    exact = Fraction(number) * 1024 ** ("KMGTP".index(letter) + 1)
    assert parse_size(f"{number}{letter}iB").nbytes == math.floor(exact)


@given(st.floats(0, 1))
def test_percentages_round_trip(fraction: float) -> None:
    assert parse_percent(format_percent(fraction)) == fraction
    assert parse_size(str(Size(fraction=fraction))) == Size(fraction=fraction)


@given(st.floats(0, 1), st.integers(0, 2**60))
def test_fraction_resolves_within_its_total(fraction: float, total_bytes: int) -> None:
    resolved = Size(fraction=fraction).resolve(total_bytes)
    assert resolved is not None
    assert resolved <= Fraction(repr(fraction)) * total_bytes < resolved + 1


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    for kind in KINDS.values():
        with suppress(RefusedError):
            kind.show(kind.read(text))


READ = [
    ("monitor.address", "ipc", "ipc"),
    ("monitor.address", "tcp://127.0.0.1:*", "tcp://127.0.0.1:*"),
    ("monitor.address", "tcp://[::1]:5555", "tcp://[::1]:5555"),
    ("monitor.address", "tcp://trainer.example:65534", "tcp://trainer.example:65534"),
    ("monitor.rate_hz", "2", 2.0),
    ("budget", "auto", Size()),
    ("budget", "AUTO", Size()),
    ("budget", "80%", Size(fraction=0.8)),
    ("budget", "12.5 %", Size(fraction=0.125)),
    ("budget", "100%", Size(fraction=1.0)),
    ("budget", 1 << 20, Size(nbytes=1 << 20)),
    ("budget", str(1 << 20), Size(nbytes=1 << 20)),
    ("budget", "4KiB", Size(nbytes=4096)),
    ("budget", Size(nbytes=4096), Size(nbytes=4096)),
    ("page_bytes", "4KiB", 4096),
    ("page_bytes", 4096, 4096),
    ("page_bytes", "1GiB", GI),
    ("min_paged_bytes", 0, 0),
    ("min_paged_bytes", "1B", 1),
    ("depth", "8", 8),
    ("depth", 1, 1),
    ("low_watermark", "0.5%", 0.005),
    ("low_watermark", "99.9%", 0.999),
    ("interval_s", "1e-3", 0.001),
    ("interval_s", 2, 2.0),
    ("spill_dir", None, None),
    ("spill_dir", Path("a"), Path("a")),
    ("direct_io", "on", "on"),
    *(("pager", text, True) for text in ("1", "true", "True", "yes", "YES", "on", " on ")),
    *(("pager", text, False) for text in ("0", "false", "no", "off", "OFF")),
    ("pager", True, True),
]


@pytest.mark.parametrize(("name", "value_given", "value"), READ)
def test_value_is_read(name: str, value_given: object, value: object) -> None:
    read = KINDS[name].read(value_given)
    assert read == value
    assert type(read) is type(value) or isinstance(read, Path)


REFUSED = [
    ("budget", 16, "unit is missing", ("16GiB", "16GB")),
    ("budget", "16", "unit is missing", ("16GiB", "16GB")),
    ("budget", (1 << 20) - 1, "unit is missing", ("1048575GiB", "1048575GB")),
    ("budget", "16G", "two readings", ("16GiB", "16GB")),
    ("budget", 0, "out of range", ()),
    ("budget", -5, "out of range", ()),
    ("budget", 2**63, "out of range", ()),
    ("budget", "0%", "out of range", ()),
    ("budget", "100.1%", "out of range", ()),
    ("budget", True, "not a size", ()),
    ("budget", 1.6e10, "not a size", ()),
    ("budget", None, "not a size", ()),
    ("budget", [16], "not a size", ()),
    ("budget", Size(nbytes=-1), "out of range", ()),
    ("page_bytes", "3MiB", "power of two", ("2MiB", "4MiB")),
    ("page_bytes", "5000B", "power of two", ("4KiB", "8KiB")),
    ("page_bytes", "2KiB", "out of range", ()),
    ("page_bytes", "2GiB", "out of range", ()),
    ("page_bytes", 2, "unit is missing", ("2MiB", "2MB")),
    ("page_bytes", "10%", "number of bytes", ()),
    ("page_bytes", "auto", "number of bytes", ()),
    ("min_paged_bytes", 64, "unit is missing", ("64KiB", "64KB")),
    ("min_paged_bytes", "2TiB", "out of range", ()),
    ("depth", 0, "out of range", ()),
    ("depth", -1, "out of range", ()),
    ("depth", (1 << 20) + 1, "out of range", ()),
    ("depth", 1.5, "whole number", ()),
    ("depth", "8.0", "whole number", ()),
    ("depth", True, "whole number", ()),
    ("depth", "9" * 5000, "whole number", ()),
    ("low_watermark", "0%", "out of range", ()),
    ("low_watermark", "100%", "out of range", ()),
    ("low_watermark", 8, "% is missing", ("8%",)),
    ("low_watermark", "8", "% is missing", ("8%",)),
    ("low_watermark", 0.08, "% is missing", ("0.08%", "8%")),
    ("low_watermark", -0.08, "not a percentage", ()),
    ("low_watermark", math.nan, "not a percentage", ()),
    ("low_watermark", "8GiB", "not a percentage", ()),
    ("low_watermark", True, "not a percentage", ()),
    ("interval_s", 0, "out of range", ()),
    ("interval_s", -1.0, "out of range", ()),
    ("interval_s", math.nan, "out of range", ()),
    ("interval_s", "inf", "out of range", ()),
    ("interval_s", 3600.1, "out of range", ()),
    ("interval_s", 10**400, "not a number", ()),
    ("interval_s", "soon", "not a number", ()),
    ("interval_s", True, "not a number", ()),
    ("pager", "maybe", "neither", ()),
    ("pager", "flase", "neither", ("false",)),
    ("pager", 1, "neither", ()),
    ("policy", "LRU", "not a choice", ("lru",)),
    ("policy", "next-use", "not a choice", ("next_use",)),
    ("policy", "nextuse", "not a choice", ("next_use",)),
    ("policy", "xyz", "not a choice", ()),
    ("policy", 3, "not a choice", ()),
    ("direct_io", True, "not a choice", ("on",)),
    ("direct_io", False, "not a choice", ("off",)),
    ("on_pager_failure", "warning", "not a choice", ("warn",)),
    ("preset", True, "not a choice", ()),
    ("preset", "leen", "not a choice", ("lean",)),
    ("monitor.address", "", "no address", ()),
    ("monitor.address", "IPC", "no address", ("ipc",)),
    ("monitor.address", "tcp://127.0.0.1", "no address", ()),
    ("monitor.address", "tcp://user@host:1", "no address", ()),
    ("monitor.address", "tcp://host:65535", "no such pair of ports", ()),
    ("monitor.address", "tcp://host:0", "no such pair of ports", ()),
    ("monitor.rate_hz", 0, "out of range", ()),
    ("monitor.rate_hz", 51, "out of range", ()),
    ("spill_dir", 3, "not a path", ()),
    ("spill_dir", "", "not a path", ()),
    ("spill_dir", b"/tmp", "not a path", ()),
    ("spill_dir", "a\0b", "not a path", ()),
    ("spill_dir", "~no_such_user_here/x", "home directory", ()),
]


@pytest.mark.parametrize(("name", "value_given", "why", "hints"), REFUSED)
def test_value_is_refused(name: str, value_given: object, why: str, hints: tuple[str, ...]) -> None:
    with pytest.raises(RefusedError, match=why) as caught:
        KINDS[name].read(value_given)
    assert caught.value.hints == hints


@pytest.mark.parametrize("name", [name for name in KINDS if not name.endswith("_dir")])
def test_defaults_and_presets_are_allowed_and_show_as_they_are_read(name: str) -> None:
    default = operator.attrgetter(name)(Settings())
    for value in [default, *(values[name] for values in PRESETS.values() if name in values)]:
        assert KINDS[name].read(KINDS[name].show(value)) == value
