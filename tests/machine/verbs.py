"""All verbs together, and how many of their examples are run."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.changing import Changing
from tests.machine.committing import Committing
from tests.machine.crashing import Crashing
from tests.machine.damaging import Damaging
from tests.machine.keeping import Keeping
from tests.machine.promoting import Promoting
from tests.machine.replaying import Replaying
from tests.machine.shipping import Ships
from tests.machine.verifying import Verifying

STEPS = 40


class Machine(Changing, Committing, Crashing, Damaging, Keeping, Promoting, Replaying, Ships, Verifying):
    """A site with all verbs."""


def run(examples: int, seed: int, *, shrinks: bool = False) -> Counter[str]:
    """Run this many examples, with one seed always the same; returns how often each thing was done in them.

    Args:
        shrinks: look for the least that fails; that takes minutes.
    """
    Machine.done.clear()
    chosen = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, *([Phase.shrink] if shrinks else [])],
    )
    seeded(seed)(Machine)
    run_state_machine_as_test(Machine, settings=chosen)
    return Machine.done
