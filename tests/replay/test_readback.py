"""Whatever was written is read back from the device, whichever way its pages lie, before a checkpoint names it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortool.address import VOLUME_ALIGNMENT
from mirrortool.checksum import page_sums
from mirrortool.errors import InputOutputError
from mirrortool.replay.readback import check_written
from mirrortool.store import parallelread

PAGE = 512
STEP = VOLUME_ALIGNMENT // PAGE


def content_of(page):
    return page.to_bytes(8, "big") * (PAGE // 8)


class PatternStore:
    """A store in which each page holds its own number, but for the bad ones. Notes what is read."""

    def __init__(self, bad=()):
        self.bad = set(bad)
        self.reads = []
        self.dropped = False

    def drop_caches(self):
        self.dropped = True

    def read_into(self, page, buffers):
        assert self.dropped, "read from the cache"
        length = sum(map(len, buffers))
        count = length // PAGE
        assert count * PAGE == length
        assert page // STEP == (page + count - 1) // STEP, "a read crosses from one volume to the next"
        self.reads.append((page, count))
        data = b"".join(bytes(PAGE) if p in self.bad else content_of(p) for p in range(page, page + count))
        for buffer in buffers:
            buffer[:] = data[: len(buffer)]
            data = data[len(buffer) :]


def sums_of(pages):
    return {page: int.from_bytes(page_sums([content_of(page)], PAGE), "big") for page in pages}


def check(store, sums, overtaken=()):
    check_written(store, PAGE, sums, set(overtaken).__contains__)


NEAR_BORDERS = st.builds(
    lambda volume, place: volume * STEP + place, st.integers(0, 3), st.one_of(st.integers(0, 60), st.integers(-60, -1))
).filter(lambda page: page > 0)
PAGES = st.sets(st.one_of(NEAR_BORDERS, st.integers(1, 5000)), min_size=1, max_size=60)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Spans of at most 16 pages."""
    monkeypatch.setattr(parallelread, "PIECE_BYTES", 16 * PAGE)
    monkeypatch.setattr("mirrortool.replay.readback.PIECE_BYTES", 16 * PAGE)


@given(pages=PAGES)
def test_every_page_is_read_and_none_across_volumes(pages):
    store = PatternStore()
    check(store, sums_of(pages))
    read = [page for first, count in store.reads for page in range(first, first + count)]
    assert pages <= set(read)
    assert len(read) == len(set(read)), "read twice"
    assert all(count <= 16 for _, count in store.reads)


@given(pages=PAGES, data=st.data())
def test_one_lost_page_is_found_and_named(pages, data):
    bad = data.draw(st.sampled_from(sorted(pages)))
    with pytest.raises(InputOutputError, match=f"{bad:#x} "):
        check(PatternStore([bad]), sums_of(pages))


def test_a_gap_between_pages_may_hold_anything():
    store = PatternStore(bad=[11, 12])
    check(store, sums_of([10, 13]))
    assert store.reads == [(10, 4)], "a small gap is read over, not compared"


def test_pages_that_are_far_apart_are_read_apart():
    store = PatternStore()
    check(store, sums_of([10, 500]))
    assert sorted(store.reads) == [(10, 1), (500, 1)]


def test_nothing_written_is_nothing_to_read():
    store = PatternStore()
    check(store, {})
    assert not store.reads


@given(pages=PAGES, data=st.data())
def test_a_page_that_is_being_written_again_may_hold_something_newer(pages, data):
    """The next window is on its way while a checkpoint is made; what it overtakes is read back by the next one."""
    overtaken = data.draw(st.sets(st.sampled_from(sorted(pages))))
    check(PatternStore(overtaken), sums_of(pages), overtaken)
    others = pages - overtaken
    if others:
        bad = data.draw(st.sampled_from(sorted(others)))
        with pytest.raises(InputOutputError, match=f"{bad:#x} "):
            check(PatternStore([*overtaken, bad]), sums_of(pages), overtaken)
