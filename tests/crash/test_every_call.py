"""The power fails before every changing call of every activity; then the next command completes it, nothing lost.

The ordinary suite leaves one state at each call: the oldest, the newest, or one by chance; of activities that cost
much, at one call of two to five. All of it, with what each kind of file system may leave, and every state where few
operations were not durable; it prints what it did:

    pytest -s -m soak tests/crash/test_every_call.py
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.activities import ACTIVITIES
from tests.crash.points import Effort, Points, Tally
from tests.fakes.disknodes import ANY_ORDER, JOURNALED, Reality

REALITIES = {"any order": ANY_ORDER, "journaled": JOURNALED, "split renames": Reality(split_renames=True)}


STEPS = {
    "base": 3, "detached": 2, "follow": 5, "labels": 3, "promote": 5, "receive": 5, "receive a base": 2, "record": 2,
    "replay": 4, "resize": 2, "send": 5, "spanned": 7,
}  # fmt: skip
"""Of those that cost much, in the ordinary suite."""


@pytest.mark.parametrize("name", ACTIVITIES)
def test_a_power_cut_before_any_call(name: str) -> None:
    tally, step = Tally(), STEPS.get(name, 1)
    calls = Points(ACTIVITIES[name], Effort(is_rotating=True), tally).run(step=step)
    assert tally.points == tally.sampled == 1 + (calls - 1) // step
    assert calls > 10


@pytest.fixture(scope="module")
def total() -> Iterator[Tally]:
    tally = Tally()
    yield tally
    print(f"\nall: {tally}")


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("reality", REALITIES)
@pytest.mark.parametrize("name", ACTIVITIES)
def test_soak_every_state_that_a_power_cut_may_leave(name: str, reality: str, total: Tally) -> None:
    tally = Tally()
    Points(ACTIVITIES[name], Effort(states_max=64, samples=2, again=4), tally, REALITIES[reality], seed=1).run()
    print(f"\n{name}, {reality}: {tally}")
    total.add(tally)
