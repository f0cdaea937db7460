"""How much more state fits now than at the worst moment of an iteration.

Memory is short at the peak of forward and backward; when the step comes, activations are gone. An iteration is seen as
moments: moment 0 begins with the end of a step, and each moment that `Arena.pass_moment` counts ends one. The room at a
moment is what the state can have then: the memory that is free, and the memory that the state has.

    extra(moment) = min(the room from here to the end of the step, the room of the next iteration) - the least room

Pages that are there for the step have to leave again before the next iteration needs their room. So the next iteration
counts with what can be evicted until then:

    room of the next iteration = min over its times t of (room(t) + t * half the measured speed of eviction)

All rooms are those of the last iterations. Where nothing is known, nothing is extra.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from pagedopt.pager.budget import ITERATIONS

__all__ = ["Phases"]

ENOUGH: Final = 2
"""Iterations to see before anything is extra."""

SAFE: Final = 0.5
"""Of the measured speed of eviction: the share that is counted on."""


@dataclass
class Iteration:
    """What was seen in one iteration.

    Attributes:
        number: its number.
        start_s: when it began.
        rooms: the least room at each moment, in bytes.
        falls: (seconds since its start, room), each where the room was less than ever before in it.
    """

    number: int
    start_s: float
    rooms: list[int] = field(default_factory=list)
    falls: list[tuple[float, int]] = field(default_factory=list)

    def see(self, moment: int, now_s: float, room_bytes: int) -> None:
        """Note the room. Moments that nobody looked at have the room of the next one."""
        while len(self.rooms) <= moment:
            self.rooms.append(room_bytes)
        self.rooms[moment] = min(self.rooms[moment], room_bytes)
        if not self.falls or room_bytes < self.falls[-1][1]:
            self.falls.append((now_s - self.start_s, room_bytes))

    @property
    def least_bytes(self) -> int:
        """The least room of all."""
        return self.falls[-1][1]


class Phases:
    """The last iterations, and what they say of this moment."""

    def __init__(self) -> None:
        self._iterations: deque[Iteration] = deque(maxlen=ITERATIONS)
        self._moment = 0

    @property
    def are_known(self) -> bool:
        """Whether the last iterations had moments."""
        return any(len(iteration.rooms) > 1 for iteration in self._iterations)

    def see(self, iteration: int, moment: int, now_s: float, room_bytes: int) -> None:
        """Note what is so now.

        Args:
            iteration: the number of the iteration.
            moment: moments that it has passed.
            now_s: the time, in seconds from anywhere.
            room_bytes: memory that is free and memory that the state has.
        """
        if not self._iterations or self._iterations[-1].number != iteration:
            self._iterations.append(Iteration(iteration, now_s))
        self._iterations[-1].see(moment, now_s, room_bytes)
        self._moment = moment

    def extra_bytes(self, speed: float) -> int:
        """What the state may have now beyond what it may have all the time.

        Args:
            speed: bytes evicted a second.
        """
        if self._moment == 0 or not self._iterations:
            return 0
        *complete, current = self._iterations
        alike = [iteration for iteration in complete if len(iteration.rooms) > self._moment]
        if len(alike) < ENOUGH:
            return 0
        rest = min(min(iteration.rooms[self._moment :]) for iteration in [*alike, current])
        following = min(
            room + int(SAFE * speed * since_s) for iteration in complete for since_s, room in iteration.falls
        )
        least = min(iteration.least_bytes for iteration in self._iterations)
        return max(0, min(rest, following) - least)

    def interval_s(self, longest_s: float) -> float:
        """How often to look, so that an iteration is seen some fifty times.

        Args:
            longest_s: the longest time between two looks.
        """
        starts = [iteration.start_s for iteration in self._iterations]
        if not self.are_known or len(starts) < ENOUGH:
            return longest_s
        return min(longest_s, max(0.005, (starts[-1] - starts[0]) / (len(starts) - 1) / 50))
