"""Times the first windows of a replay, and changes the engine's plan between them as planner.py says.

Nothing is written to be timed: a window is timed as it is written, and for those that are timed it is drained, and made
durable if O_DIRECT is a choice. The first are short, so that a store that waits costs little before that is known.

Owned by the delegator's thread, but for `choice`, which any thread may read.
"""

from __future__ import annotations

from dataclasses import replace

from mirrortool import clock
from mirrortool.errors import ExhaustedError
from mirrortool.replay.engine import Plan, ReplayEngine
from mirrortool.replay.planner import Choice, Trial, Wanted, choose
from mirrortool.store.interface import Store

SHORT_WINDOW_BYTES = 1 << 20
COMPARED_WINDOW_BYTES = 4 << 20
"""Enough to see what making it durable costs, and not much of a replay if the slower way turns out to be slow."""


def open_engine_plan(wanted: Wanted, store: Store) -> Choice:
    """The plan to begin with.

    Raises:
        UnusableVolumeError: O_DIRECT is wanted and cannot be had.
    """
    first = choose(wanted, (), can_be_direct=False)
    store.write_direct(first.plan.io == "direct")
    return first


class Tuner:
    """The plan of one replay."""

    def __init__(self, engine: ReplayEngine, store: Store, wanted: Wanted, first: Choice) -> None:
        self._engine = engine
        self._store = store
        self._wanted = wanted
        self._trials: list[Trial] = []
        self._current = self._choice = first
        self._can_be_direct = wanted.io is None and not first.is_final and store.find_why_not_direct() is None
        self._started = 0.0

    @property
    def choice(self) -> Choice:
        """What is used now, or from the next window on."""
        return self._choice

    def window_bytes(self, most: int) -> int:
        """How long the next window is to be."""
        if self._choice.is_final:
            return most
        return min(most, SHORT_WINDOW_BYTES if self._choice.is_short else COMPARED_WINDOW_BYTES)

    def begin_window(self) -> None:
        """Before a window is handed out: everything before it may still be in flight."""
        if self._choice is not self._current:
            self._change()
        self._started = clock.monotonic()

    def end_window(self, payload_bytes: int) -> None:
        """After a window was handed out."""
        if self._current.is_final or not payload_bytes:
            return
        self._engine.wait_drained()
        written = clock.monotonic()
        if self._can_be_direct:
            self._store.sync()
        trial = Trial(
            self._current.plan,
            self._current.is_short,
            payload_bytes,
            written - self._started,
            clock.monotonic() - written if self._can_be_direct else 0.0,
            self._engine.pop_times(),
        )
        self._trials.append(trial)
        self._choice = choose(self._wanted, self._trials, can_be_direct=self._can_be_direct)

    def _change(self) -> None:
        """One path, whatever changes: drained, the store told, and new groups."""
        old, new = self._current.plan, self._choice
        self._engine.wait_drained()
        self._store.write_direct(new.plan.io == "direct")
        try:
            self._engine.change(new.plan, timed=not new.is_final)
        except ExhaustedError:
            kept: Plan = replace(old, io=new.plan.io)
            self._engine.change(kept, timed=False)
            self._choice = Choice(kept, f"{new.reason}, but the system has no more threads", is_final=True)
        self._current = self._choice
