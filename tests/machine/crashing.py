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

    @precondition(runs)
    @rule(promise=st.sampled_from(["flush", "fua", "mark", "write back", "checkpoint"]), seed=SEEDS)
    def crash_after_a_promise(self, promise: str, seed: int) -> None:
        """What was promised last is what a missing sync loses."""
        self.cut_in = 0
        self.write_much(seed, 2)
        if promise == "flush":
            self.flush()
        elif promise == "fua":
            self.write("a", 0.5, 700, seed, False, True)
        elif promise == "mark":
            self.mark("wednesday")
        else:
            self.write_back(checkpoint=promise == "checkpoint")
        self.crash_now(True, seed)

    @precondition(runs)
    @rule(calls=st.integers(1, 12), checkpoint=st.booleans(), seed=SEEDS)
    def crash_in_a_write_back(self, calls: int, checkpoint: bool, seed: int) -> None:
        """Volumes are written, and perhaps nothing of that is durable."""
        self.cut_in = 0
        self.write_much(seed, 4)
        self.crash_soon(calls, True, seed)
        self.write_back(checkpoint=checkpoint)

    @rule(calls=st.integers(1, 25), loses_power=st.booleans(), seed=SEEDS)
    def crash_soon(self, calls: int, loses_power: bool, seed: int) -> None:
        """At the n-th changing call of what follows."""
        self.cut_in, self.loses_power, self.chance = calls, loses_power, random.Random(seed)
