"""What a kernel's machine code costs: the way that a warp goes round its loop when nothing unusual happens."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from functools import cached_property

LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][\w.]*)\s*([^;]*);", re.MULTILINE)
# At half the rate of float32 arithmetic on sm_80 to sm_100: integers, logic, bytes, minima, comparisons, conversions.
HALF_RATE = re.compile(
    r"IADD|VIADD|LEA|LOP3|PLOP3|PRMT|SHF|SEL|FSEL|FMNMX|VIMNMX|VIADDMNMX|IMNMX|ISETP|FSETP|F2FP|MOV|POPC|BMSK|SGXT|VHMNMX"
)


@dataclass(frozen=True)
class Instruction:
    address: int
    predicate: str
    name: str
    operands: str

    @property
    def is_half_rate(self) -> bool:
        return bool(HALF_RATE.match(self.name))


@dataclass
class Block:
    """Instructions that are executed together, and the addresses that may follow."""

    instructions: list[Instruction]
    next: list[int] = field(default_factory=list)


def target(instruction: Instruction) -> int:
    return int(re.findall(r"0x[0-9a-f]+", instruction.operands)[-1], 16)


class Code:
    """The instructions of one kernel, as `cuobjdump -sass` lists them."""

    def __init__(self, text: str) -> None:
        found = [(int(at, 16), predicate, name, rest) for at, predicate, name, rest in LINE.findall(text)]
        self.instructions = [Instruction(*one) for one in found]

    @cached_property
    def blocks(self) -> dict[int, Block]:
        jumps = ("BRA", "BSSY", "BSYNC", "EXIT", "RET", "BREAK")
        starts = {self.instructions[0].address}
        for one, after in zip(self.instructions, [*self.instructions[1:], None], strict=True):
            if one.name.startswith(jumps) and after is not None:
                starts.add(after.address)
            if one.name.startswith(("BRA", "BSSY")):
                starts.add(target(one))
        blocks: dict[int, Block] = {}
        for one in self.instructions:
            if one.address in starts:
                block = blocks[one.address] = Block([])
            block.instructions.append(one)
        self._connect(blocks)
        return blocks

    def _connect(self, blocks: dict[int, Block]) -> None:
        """A BSYNC goes to where the BSSY before it on the way says."""
        order = sorted(blocks)
        after = dict(itertools.pairwise(order))
        ways: list[tuple[int, dict[str, int]]] = [(order[0], {})]
        seen = set()
        while ways:
            at, meeting = ways.pop()
            key = (at, tuple(sorted(meeting.items())))
            if key in seen or at not in blocks:
                continue
            seen.add(key)
            last = blocks[at].instructions[-1]
            following = [after[at]] if at in after else []
            barrier = re.match(r"B\d+", last.operands)
            if last.name.startswith("BSSY") and barrier:
                meeting = {**meeting, barrier[0]: target(last)}
            elif last.name.startswith("BSYNC") and barrier:
                following = [meeting[barrier[0]]] if not last.predicate else [*following, meeting[barrier[0]]]
                meeting = {name: place for name, place in meeting.items() if name != barrier[0]}
            elif last.name.startswith("BRA") and ".DIV" not in last.name:  # which a warp takes that is not together
                is_sure = not last.predicate and not re.match(r"!?U?P\d", last.operands) and "ANY" not in last.name
                following = [target(last)] if is_sure else [*following, target(last)]
            elif last.name.startswith(("EXIT", "RET")) and not last.predicate:
                following = []
            for place in following:
                if place not in blocks[at].next:
                    blocks[at].next.append(place)
                ways.append((place, meeting))

    @cached_property
    def back_edges(self) -> list[tuple[int, int]]:
        """(from, to) where `to` is on the way that a walk through the code took to `from`."""
        found, done, path = [], set(), [(min(self.blocks), iter(self.blocks[min(self.blocks)].next))]
        on_path = {path[0][0]}
        while path:
            at, following = path[-1]
            step = next(following, None)
            if step is None:
                path.pop()
                on_path.discard(at)
                done.add(at)
            elif step in on_path:
                found.append((at, step))
            elif step not in done:
                on_path.add(step)
                path.append((step, iter(self.blocks[step].next)))
        return found

    def way(self, begin: int, end: int, wanted: dict[str, int]) -> list[Instruction] | None:
        """The shortest way from one block to the end of another that has so many of each name, or more."""
        back = set(self.back_edges)
        best: dict[int, dict[tuple[int, ...], list[Instruction]]] = {}
        for at in self._order(begin, back):
            own = self.blocks[at].instructions
            counts = [sum(one.name.startswith(name) for one in own) for name in wanted]
            rests = [best[step] for step in self.blocks[at].next if (at, step) not in back and step in best]
            found = best[at] = {}
            for rest in [{(0,) * len(wanted): []}] if at == end else rests:
                for have, way in rest.items():
                    sums = zip(counts, have, wanted.values(), strict=True)
                    key = tuple(min(one + other, most) for one, other, most in sums)
                    if key not in found or len(own) + len(way) < len(found[key]):
                        found[key] = own + way
        return best[begin].get(tuple(wanted.values()))

    def _order(self, begin: int, back: set[tuple[int, int]]) -> list[int]:
        """Blocks, each behind all that may follow it."""
        order: list[int] = []
        seen = {begin}
        path = [(begin, iter(self.blocks[begin].next))]
        while path:
            at, following = path[-1]
            step = next(following, None)
            if step is None:
                order.append(at)
                path.pop()
            elif step not in seen and (at, step) not in back:
                seen.add(step)
                path.append((step, iter(self.blocks[step].next)))
        return order

    def round(self, wanted: dict[str, int]) -> list[Instruction]:
        """The instructions of the shortest round of a loop that has so many of each name.

        Raises:
            LookupError: no loop has.
        """
        ways = [self.way(begin, end, wanted) for end, begin in self.back_edges]
        found = [way for way in ways if way is not None]
        if not found:
            raise LookupError(f"no loop has {wanted}")
        return min(found, key=len)
