"""Stops an operation before each of its file operations; then what was not synced is lost, in the ways that show most.

The worst a disk may do, so that a sync that is missing shows, or comes too late: what an operation promised when it
ended is there, and what was stopped can be begun again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.fakes.disk import Call, Disk, Fault, PowerCut, cut_at, faulty, no_fault


class Killed(BaseException):
    """The process ends, and the machine keeps running: what was written stays in the cache."""


def kill_at(number: int) -> Fault:
    """Kill before the changing call with this number, once."""

    def fault(call: Call) -> None:
        if call.number == number:
            raise Killed

    return fault


EACH_CALL = pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.soak)], ids=["some", "each"])
"""In the ordinary suite of seven calls one is stopped before; with each of them the mutants of syncs.py are found."""
WAYS = (Disk.lose_all, Disk.lose_all_but_newest)
"""What a cut leaves of what was not synced: nothing, and what has come too early."""


def lose_everywhere(
    prepare: Callable[[], None],
    act: Callable[[], object],
    check: Callable[[bool], None],
    *,
    least: int,
    step: int = 1,
    ways: Sequence[Callable[[Disk], None]] = WAYS,
    **options: Any,
) -> None:
    """Cut the power before each call of `act`, and at last after it.

    Args:
        check: is told whether `act` had ended.
        least: calls that it must make, else the test shows nothing.
        step: of this many calls one is cut before.
        ways: what is left then of what was not synced.
        options: of the disk.
    """
    for lose in ways:
        for number in itertools.count(1, step):
            prepare()
            with faulty(cut_at(number), **options) as system:
                try:
                    act()
                    has_ended = True
                except PowerCut:
                    has_ended = False
                lose(system.disk)
            check(has_ended)
            if has_ended:
                assert number > least, number
                break


def kill_everywhere(
    prepare: Callable[[], None],
    act: Callable[[], object],
    check: Callable[[], None],
    *,
    least: int,
    step: int = 1,
    **options: Any,
) -> None:
    """Kill `act` before each of its calls; the next one ends, and then what was not synced is lost."""
    for number in itertools.count(1, step):
        prepare()
        with faulty(kill_at(number), **options) as system:
            try:
                act()
                was_killed = False
            except Killed:
                was_killed = True
                act()
            system.disk.lose_all()
        check()
        if not was_killed:
            assert number > least, number
            return


def lose_after(act: Callable[[], object], **options: Any) -> None:
    """Cut the power after `act`; nothing that was not synced is left."""
    with faulty(no_fault, **options) as system:
        act()
        system.disk.lose_all()
