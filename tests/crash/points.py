"""A crash at a changing call of an activity, and what must be left: the frame for test_every_call.py.

The activity runs from the start up to its k-th changing call, on files of its own; there the power fails, and of what
was not durable one state survives. Another kernel starts, and the activity is done again with the commands' own code,
as a person would do it; the power may fail once more meanwhile. Then its promises are checked against plain bytes.

Which states of what was not durable: where few operations were, every state there can be, one run for each; elsewhere
the oldest, the newest, and some by chance. A run is the same each time, but for threads of a replay: where it turns out
to be another one, the states of the point count as sampled.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

from mirrortool import hostinfo
from tests.fakes.disk import PowerCut, cut_at, faulty, no_fault
from tests.fakes.disknodes import ANY_ORDER, Reality
from tests.fakes.disksurvivors import Chooser, Enumerated, Oldest, Sampled
from tests.fakes.journals import memory_directory, shrink_pieces
from tests.fakes.recorders import small_scale
from tests.fakes.volumes import small_journal_files

_THOROUGH = 8
"""Where one state is tried at each call, one of this many is checked in all ways."""
FEW = 3
"""Of this many operations that are not durable every subset is tried."""


class Activity(Protocol):
    """What loses its power. Made in an empty directory, with all that it needs, which is durable.

    Attributes:
        elsewhere: what is below this path is another machine's, which keeps its power; None if nothing is.
        is_thorough: whether `check` also proves what costs much.
    """

    elsewhere: str | None
    is_thorough: bool

    def act(self) -> None:
        """A few dozen to a few hundred changing calls, the same each time."""

    def drop(self) -> None:
        """Let go of what a killed process would; changes nothing."""

    def recover(self) -> None:
        """Look at what is left, and complete the activity."""

    def check(self) -> None:
        """All promises, of what is complete."""

    def close(self) -> None:
        """Give back what was open all the time: a soak makes thousands."""


Making = Callable[[Path, pytest.MonkeyPatch], Activity]


class Newest:
    """All that was done, though nobody synced it."""

    def turn(self) -> None:
        pass

    def is_in_order(self) -> bool:
        return False

    def keeps(self) -> bool:
        return True

    def version(self, _low: int, high: int) -> int:
        return high

    def size(self, _low: int, high: int) -> int:
        return high


@dataclass
class Tally:
    """What was tried.

    Attributes:
        points: of each activity, the calls before which the power failed.
        complete: points of which every state that may survive was tried.
        enumerated, sampled: states.
        overflows: points with few operations, but more states than were tried.
        differing: points at which runs were not the same.
        second_cuts: recoveries that lost their power, too.
    """

    points: int = 0
    complete: int = 0
    enumerated: int = 0
    sampled: int = 0
    overflows: int = 0
    differing: int = 0
    second_cuts: int = 0
    began: float = field(default_factory=time.process_time)

    def add(self, other: Tally) -> None:
        for each in fields(self):
            if each.name != "began":
                setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def __str__(self) -> str:
        return (
            f"{self.points} crash points, {self.enumerated + self.sampled} recoveries: {self.enumerated} of states "
            f"that were enumerated, all there are at {self.complete} points ({self.overflows} with too many, "
            f"{self.differing} that differed), {self.sampled} sampled; {self.second_cuts} cut again; "
            f"{time.process_time() - self.began:.0f} s of processor time"
        )


@dataclass(frozen=True)
class Effort:
    """How much is tried at a point.

    Attributes:
        states_max: of an enumeration; 0 tries none.
        samples: states by chance, beside the oldest and the newest.
        is_rotating: of oldest, newest and a sample only one, in turn.
        again: of this many recoveries one loses its power; 0: none.
    """

    states_max: int = 0
    samples: int = 1
    is_rotating: bool = False
    again: int = 0


class Points:
    """The crash points of one activity."""

    def __init__(
        self, making: Making, effort: Effort, tally: Tally, reality: Reality = ANY_ORDER, seed: int = 0
    ) -> None:
        self._making, self._effort, self._tally, self._reality = making, effort, tally, reality
        self._chance = random.Random(f"points {seed}")
        self._seed = seed

    def run(self, first: int = 1, step: int = 1) -> int:
        """Crash at each call from this one on, and once after the last; returns the number of that.

        Args:
            step: of this many calls, at one.
        """
        for number in itertools.count(first, step):
            if self._at(number):
                return number
        raise AssertionError

    def uncut(self) -> Activity:
        """What has acted with the power on; its files are gone."""
        with _machine(self._seed) as (place, patch), closing(self._making(place, patch)) as activity:
            with faulty(no_fault, activity.elsewhere):
                activity.act()
            activity.drop()
        return activity

    def _at(self, number: int) -> bool:
        """All that is tried at one call; whether the activity ended before."""
        tally, effort = self._tally, self._effort
        tally.points += 1
        if effort.is_rotating:
            choosers: list[Chooser] = [Oldest(), Newest(), Sampled(random.Random(f"{number} {self._seed}"))]
            tally.sampled += 1
            return self._crash(number, partial(_that, choosers[tally.points % 3]))
        enumerated = Enumerated()
        was_few, is_done = False, False

        def first(is_few: bool) -> Chooser:
            nonlocal was_few
            was_few = is_few and effort.states_max > 0
            return enumerated if was_few else Oldest()

        is_done = self._crash(number, first)
        if was_few:
            tally.enumerated += 1
            if self._enumerate(number, enumerated):
                tally.complete += 1
                return is_done
        else:
            tally.sampled += 1
        chances = [random.Random(f"{number} {n} {self._seed}") for n in range(effort.samples)]
        others: list[Chooser] = [Newest(), *map(Sampled, chances)]
        for other in others:
            self._crash(number, partial(_that, other))
            tally.sampled += 1
        return is_done

    def _enumerate(self, number: int, enumerated: Enumerated) -> bool:
        """One state after another; whether those were all."""
        for _ in range(self._effort.states_max - 1):
            if not enumerated.advance():
                return True
            self._crash(number, lambda _few: enumerated)
            if enumerated.has_differed:
                self._tally.differing += 1
                return False
            self._tally.enumerated += 1
        if not enumerated.advance():
            return True
        self._tally.overflows += 1
        return False

    def _crash(self, number: int, choose: Callable[[bool], Chooser]) -> bool:
        """One run; whether the activity ended before that call."""
        again = self._effort.again and self._chance.randrange(self._effort.again) == 0
        second = self._chance.randrange(1, 40) if again else 0
        with _machine(self._seed) as (place, patch), closing(self._making(place, patch)) as activity:
            activity.is_thorough = not self._effort.is_rotating or self._tally.points % _THOROUGH == 0
            is_done = True
            with faulty(cut_at(number), activity.elsewhere, reality=self._reality) as system:
                try:
                    activity.act()
                except PowerCut:
                    is_done = False
                finally:
                    activity.drop()
                state = system.disk.state
                survivors = state.decided_by(choose(state.operation_count() <= FEW))
                state.cut(survivors)
            patch.setattr(hostinfo, "boot_id", lambda: "boot-2")
            if second:
                self._tally.second_cuts += 1
                self._cut_recovery(activity, second)
                patch.setattr(hostinfo, "boot_id", lambda: "boot-3")
            try:
                activity.recover()
                activity.check()
            except Exception as error:
                error.add_note(f"call {number} of {system.calls[-1:]}, seed {self._seed}, second cut {second}")
                error.add_note(f"lost: {described(survivors)}")
                raise
            finally:
                activity.drop()
        return is_done

    def _cut_recovery(self, activity: Activity, number: int) -> None:
        with faulty(cut_at(number), activity.elsewhere, reality=self._reality) as system:
            try:
                activity.recover()
            except PowerCut:
                pass
            finally:
                activity.drop()
            system.disk.cut_power(self._chance)


def described(survivors: Any) -> list[str]:
    """For the reader of a failure."""
    names = [f"{change.entries[0][1]!r} of {change.entries[0][0].link}" for change in survivors.lost]
    return [*names, *(f"{node.number}: {len(content)} bytes" for node, content in survivors.contents.items())]


def _that(chooser: Chooser, _is_few: bool) -> Chooser:
    return chooser


class _Machine:
    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> tuple[Path, pytest.MonkeyPatch]:
        self._directory = memory_directory()
        self._patch = pytest.MonkeyPatch()
        place = self._directory.__enter__()
        shrink_pieces(self._patch)
        small_scale(self._patch)
        small_journal_files(self._patch, 3000)
        self._patch.setattr(hostinfo, "boot_id", lambda: "boot-1")
        return place, self._patch

    def __exit__(self, *exc: object) -> None:
        self._patch.undo()
        self._directory.__exit__(None, None, None)


_machine = _Machine
