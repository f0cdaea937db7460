"""nvcc's PTX of the CUDA source, interpreted, against steps of the host: equal to the bit. And breaks of it are seen.

`PTX=all .venv/bin/python -m pytest tests/native/test_ptx.py tests/emulated_gpu/test_ptx_steps.py --timeout 0` runs
every row for every GPU, and breaks each selector, mask and vector access by itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
from native.builds import GPUS, ROOT, CudaCode
from native.ptx_runs import count, ptx_of, rises, run

ALL = os.environ.get("PTX") == "all"
STEP_TEST = ROOT / "tests/native/step_device_test.cpp"

pytestmark = pytest.mark.timeout(600)


class Variant(NamedTuple):
    gpu: str
    approximate: str = "exactly"
    """where approximate instructions are, of the unit in the last place that they may be off"""
    order: str = ""
    """a seed: which warps and lanes go first, and when lanes part, is drawn"""


def variants() -> list[Variant]:
    if ALL:
        return [*map(Variant._make, product(GPUS, ("exactly", "below", "above", "drawn"), ("", "1", "2")))]
    return [Variant("sm_80"), Variant("sm_90", "drawn", "1")]


def groups() -> list[str]:
    """Of step_device_test: those that run kernels."""
    found = re.findall(r'\{"(\w+)", test_\w+\}', STEP_TEST.read_text())
    assert "rule" in found
    return [group for group in found if group != "tasks"]


def step_test(interpreter: Path, ptx: Path, group: str, variant: Variant) -> str:
    """What a group that fails says; empty: it passes."""
    program = interpreter / "ptx_step_test"
    done = run(program, ptx, group, approximate=variant.approximate, order=variant.order)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    assert done.returncode == 1 or f"{group} passed" in done.stdout
    return done.stderr


@pytest.mark.parametrize("variant", variants(), ids="-".join)
def test_nvccs_code_gives_the_hosts_bits(variant: Variant, interpreter: Path, cuda_code: CudaCode) -> None:
    ptx = ptx_of(cuda_code, variant.gpu)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = list(pool.map(lambda group: step_test(interpreter, ptx, group, variant), groups()))
    assert not any(said), "".join(said)


# ---- what is broken is seen ----


class Break(NamedTuple):
    what: str
    """a pattern, whose first match is replaced, or every one"""
    by: str
    error: str
    group: str = "rule"
    order: str = ""
    approximate: str = "exactly"
    everywhere: bool = False


ROWS_DIFFER = r"element \d+ is"
BAD_BARRIER = "nobody wrote|no barrier between"
BAR_SYNC, BAR_WARP = r"bar\.sync\s+0;", r"bar\.warp\.sync\s+-1;"
# Before what follows: a predicate that holds in the fourth lane, or in the first warp.
LANE = "{ .reg .b32 %lane; .reg .pred %odd; mov.u32 %lane, %tid.x; setp.eq.s32 %odd, %lane, 3; "
WARP = "{ .reg .b32 %thread; .reg .pred %odd; mov.u32 %thread, %tid.x; setp.lt.s32 %odd, %thread, 32; "
OTHER_BARRIER = "@%odd bra $other; bar.sync 0; bra $past; $other: bar.sync 0; $past: }"

SELECTORS = {
    "selector of codes": Break(
        r"(mov\.[bu]32\s+%r\d+, )21520;", r"\g<1>21521;", f"{ROWS_DIFFER}|outside of the arrays"
    ),
    "selector of rows": Break(r"(mov\.[bu]32\s+%r\d+, )21812;", r"\g<1>21796;", f"{ROWS_DIFFER}|outside of the arrays"),
}
MASKS = {
    "mask of a reduction": Break(r"(redux\.sync\.[^;]*, )[^,;]+;", r"\g<1>0x7fffffff;", "the mask lacks a lane"),
    "mask of a shuffle": Break(r"(shfl\.sync\.[^;]*, )[^,;]+;", r"\g<1>0xfffffffe;", "the mask lacks a lane"),
    "mask of a barrier": Break(BAR_WARP, "bar.warp.sync 0xffff;", "the mask lacks a lane"),
    "mask that differs": Break(
        BAR_WARP,
        LANE + "or.b32 %lane, %lane, 0xffffff00; bar.warp.sync %lane; }",
        "its mask is not that of other lanes",
    ),
    "mask of a lane that is gone": Break(
        BAR_WARP, LANE + "@%odd exit; bar.warp.sync -1; }", "the mask names a lane that has ended"
    ),
    "no barrier of a warp": Break(BAR_WARP, "", ROWS_DIFFER, "many", order="1", everywhere=True),
    "distance of a shuffle": Break(r"(shfl\.sync\.bfly\.b32\s+\S+ \S+ )[^,]+,", r"\g<1>8,", ROWS_DIFFER),
}
ACCESSES = {
    "alignment of a load": Break(r"(ld\.global\.v4\.[uf]32\s[^;]*\[%rd\d+)[^\]]*\]", r"\g<1>+4]", "not aligned to 16"),
    "alignment of a pair": Break(r"(ld\.global\.v2\.[uf]32\s[^;]*\[%rd\d+)[^\]]*\]", r"\g<1>+4]", "not aligned to 8"),
    "alignment of a store": Break(r"(st\.global\.v4\.[uf]32\s+\[%rd\d+)[^\]]*\]", r"\g<1>+8]", "not aligned to 16"),
    "alignment in shared memory": Break(
        r"(st\.shared\.v4\.[uf]32\s+\[%r\d+)[^\]]*\]", r"\g<1>+4]", "not aligned to 16"
    ),
    "null": Break(r"(ld\.global\.v4\.[uf]32\s[^;]*\[)[^\]]*\]", r"\g<1>16]", "a null address"),
    "end of shared memory": Break(
        r"(st\.shared\.f32\s+\[%r\d+)\+1024\]", r"\g<1>+65536]", "outside of the arrays of shared memory"
    ),
    "nobody wrote": Break(r"st\.shared\.v4\.[uf]32\s[^;]*;", "", "shared memory that nobody wrote"),
    "no barrier": Break(BAR_SYNC, "", BAD_BARRIER, everywhere=True),
    "no barrier, in another order": Break(BAR_SYNC, "", BAD_BARRIER, order="1", everywhere=True),
    "a barrier that a lane has left": Break(
        BAR_SYNC, LANE + "@%odd exit; bar.sync 0; }", "a barrier that other lanes have ended without"
    ),
    "another barrier for a lane": Break(
        BAR_SYNC, LANE + OTHER_BARRIER, "lanes wait for each other in different places"
    ),
    "a barrier that a warp has left": Break(
        BAR_SYNC, WARP + "@%odd ret; bar.sync 0; }", "a barrier that other warps have ended without"
    ),
    "another barrier for a warp": Break(BAR_SYNC, WARP + OTHER_BARRIER, "another warp is at another barrier"),
}
NUMBERS = {
    "a root that is approximate": Break(
        r"sqrt\.rn\.f32", "sqrt.approx.ftz.f32", ROWS_DIFFER, approximate="above", everywhere=True
    ),
    "a product and a sum that are fused": Break(
        r"mul\.rn\.f32\s+(%\w+), (%\w+), (%\w+);\s+add\.rn\.f32\s+(%\w+), (%\w+), \1;",
        r"fma.rn.f32 \4, \2, \3, \5;",
        ROWS_DIFFER,
        everywhere=True,
    ),
}
NOT_KNOWN = {
    "an instruction": Break(r"mul\.rn\.f32", "mul.rz.f32", r"instruction mul\.rz\.f32 is not known"),
    "a qualifier": Break(r"ld\.global\.v4", "ld.volatile.global.v4", r"instruction ld\.volatile\S+ is not known"),
    "a register": Break(r"%tid\.x", "%ntid.x", r"operand %ntid\.x is not known"),
    "a directive": Break(r"\.reg \.pred", ".local .pred", "directive is not known"),
    "a loop that does not end": Break(r"(\$L__BB\d+_\d+):", r"\1: bra \1;", "a loop does not end"),
}
BREAKS = {**SELECTORS, **MASKS, **ACCESSES, **NUMBERS, **NOT_KNOWN}


@pytest.mark.parametrize("gpu", GPUS if ALL else ["sm_90"])
@pytest.mark.parametrize("name", BREAKS)
def test_a_break_is_seen(name: str, gpu: str, interpreter: Path, cuda_code: CudaCode, tmp_path: Path) -> None:
    one = BREAKS[name]
    broken, count = re.subn(one.what, one.by, ptx_of(cuda_code, gpu).read_text(), count=0 if one.everywhere else 1)
    assert count > 0
    ptx = tmp_path / "broken.ptx"
    ptx.write_text(broken)
    said = step_test(interpreter, ptx, one.group, Variant(gpu, one.approximate, one.order))
    assert re.search(one.error, said), said


def shifted(access: re.Match[str]) -> str:
    """By one of its numbers."""
    return f"{access[1]}+{int(access[3] or 0) + int(access[2]) // 8}]"


EACH: dict[str, tuple[str, str | Callable[[re.Match[str]], str]]] = {
    "selector": (r"(prmt\.b32\s[^;]*, )[^,;]+;", r"\g<1>0;"),
    "mask": (r"((?:redux|shfl|bar\.warp)\.?sync[^;]*\s)[^;,\s]+;", r"\g<1>0x7fffffff;"),
    "access": (r"((?:ld|st)\.(?:global|shared)(?:\.nc)?\.v\d\.\w(\d+)\s[^;]*?\[[^\]+]+)(?:\+(\d+))?\]", shifted),
}


@pytest.mark.skipif(not ALL, reason="takes long: PTX=all runs it")
@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("name", EACH)
def test_each_break_is_seen(name: str, gpu: str, interpreter: Path, cuda_code: CudaCode, tmp_path: Path) -> None:
    what, by = EACH[name]
    text = ptx_of(cuda_code, gpu).read_text()
    in_order = sorted(groups(), key=lambda group: group not in ("rule", "ranges"))
    costs = count(interpreter, ptx_of(cuda_code, gpu), every_kind=True)

    def is_seen(site: re.Match[str]) -> bool:
        ptx = tmp_path / f"{site.start()}.ptx"
        ptx.write_text(text[: site.start()] + re.sub(what, by, site[0]) + text[site.end() :])
        # A wrong guess at what is doubtful is settled: the same bits, at a higher cost.
        seen = any(step_test(interpreter, ptx, group, Variant(gpu)) for group in in_order) or bool(
            rises(costs, count(interpreter, ptx, every_kind=True))
        )
        ptx.unlink()
        return seen

    sites = [*re.finditer(what, text)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        seen = list(pool.map(is_seen, sites))
    unseen = [
        f"line {text.count(chr(10), 0, site.start()) + 1}: {site[0]}"
        for site, is_it in zip(sites, seen, strict=True)
        if not is_it
    ]
    assert sites
    assert not unseen, f"{len(unseen)} of {len(sites)}\n" + "\n".join(unseen)
