"""Parts that make up an extent are known to do so, whatever their order; a write begins anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mirrortool.store.zeroedparts import EXTENTS_MAX, ZeroedParts


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7), st.integers(1, 8), st.booleans()), max_size=40))
def test_an_extent_is_whole_when_all_its_pages_are_zeros(steps: list[tuple[int, int, int, bool]]) -> None:
    parts, model = ZeroedParts(), dict[int, set[int]]()
    for extent, start, count, is_write in steps:
        if is_write:
            parts.forget(extent)
            model.pop(extent, None)
            continue
        pages = range(start, min(8, start + count))
        model[extent] = model.get(extent, set()) | set(pages)
        is_whole = parts.add(extent, pages, 8)
        assert is_whole == (model[extent] == set(range(8)))
        if is_whole:
            parts.forget(extent)
            del model[extent]
        assert bool(parts) == bool(model)
    parts.clear()
    assert not parts


def test_what_is_noted_is_bounded_and_never_wrong() -> None:
    parts = ZeroedParts()
    for extent in range(EXTENTS_MAX):
        assert not parts.add(extent, range(4), 8)
    assert not parts.add(EXTENTS_MAX, range(4), 8)
    assert not parts.add(0, range(4, 8), 8), "what was forgotten is not made up"
    for page in range(0, 600, 2):
        assert not parts.add(7, range(page, page + 1), 600)
    assert not parts.add(7, range(1, 599), 600)
    assert parts.add(7, range(600), 600)
