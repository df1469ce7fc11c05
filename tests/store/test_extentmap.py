"""The map of extents is a dictionary, but small."""

from __future__ import annotations

import random
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from mirrortool.store.extentmap import NO_PLACE, ExtentMap

_EXTENTS = st.one_of(st.integers(0, 300), st.integers(0, (1 << 46) - 1))


@given(st.lists(st.tuples(_EXTENTS, st.integers(0, 1 << 61)), max_size=60), _EXTENTS, _EXTENTS)
def test_it_is_a_dictionary(steps: list[tuple[int, int]], first: int, end: int) -> None:
    found, model = ExtentMap(), dict[int, int]()
    for extent, place in steps:
        if place != NO_PLACE:
            found.put(extent, place)
            model[extent] = place
        elif model.pop(extent, None):
            found.remove(extent)
        assert len(found) == len(model)
    assert {extent: found.get(extent) for extent, _ in steps} == {extent: model.get(extent, 0) for extent, _ in steps}
    for low, high in ((first, end), (0, 1 << 46), (100, 200)):
        assert list(found.each(low, high)) == sorted((e, p) for e, p in model.items() if low <= e < high)


def test_memory_is_in_proportion_to_the_extents_wherever_they_lie() -> None:
    """A kilobyte each where they lie far apart, and some bytes where they do not."""
    chance = random.Random(1)
    for extents, most in (([chance.randrange(1 << 46) for _ in range(10_000)], 1000), (range(100_000), 16)):
        tracemalloc.start()
        found = ExtentMap()
        for extent in extents:
            found.put(extent, 7)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert size < most * len(found)
        for extent in extents:
            found.remove(extent)
        assert len(found) == 0 and not list(found.each(0, 1 << 46))
