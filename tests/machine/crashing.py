"""Kill: everything at once, or at a call of what is done next; with the power, or without."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from tests.machine.site import SEEDS, Site, precondition, rule, runs


class Crashing(Site):
    @precondition(runs)
    @rule()
    def kill_recorder(self) -> None:
        """What comes next meets a journal as kill -9 leaves it."""
        self.kill()

    @rule(loses_power=st.booleans(), seed=SEEDS)
    def crash_now(self, loses_power: bool, seed: int) -> None:
        self.chance = random.Random(seed)
        self.crash(loses_power)

    @rule(calls=st.integers(1, 25), loses_power=st.booleans(), seed=SEEDS)
    def crash_soon(self, calls: int, loses_power: bool, seed: int) -> None:
        """At the n-th changing call of what follows."""
        self.cut_in, self.loses_power, self.chance = calls, loses_power, random.Random(seed)
