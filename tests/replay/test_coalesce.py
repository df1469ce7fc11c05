"""A window becomes units whose result is that of serial replay, each inside one group's range."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool.address import pages_in
from mirrortool.checksum import page_sums, unpack_sums
from mirrortool.lsn import NO_LSN
from mirrortool.operation import BatchBuilder, CommitKind, Kind
from mirrortool.replay import coalesce
from mirrortool.replay.coalesce import Inline, Stretch, stretches, to_single_units, to_units
from mirrortool.replay.ranges import Interleaved, Parts

PAGE = 512
PAGES = 40
INLINE_PAGES = 6


@pytest.fixture(autouse=True)
def small_inline(monkeypatch):
    monkeypatch.setattr(coalesce, "INLINE_ZERO_BYTES", INLINE_PAGES * PAGE)


def data_of(number, count):
    """Pages that no other operation writes."""
    return b"".join((number * 1000 + i).to_bytes(4, "little") * (PAGE // 4) for i in range(1, count + 1))


@st.composite
def windows(draw, pages=PAGES, resizes=True, longest=9):
    """Batches, and their operations (kind, page, count, data) one by one."""
    operations = []
    kinds = [Kind.WRITE, Kind.WRITE, Kind.ZERO, *([Kind.RESIZE] if resizes else [])]
    for number in range(draw(st.integers(0, 25))):
        kind = draw(st.sampled_from(kinds)) if number else Kind.WRITE
        if kind == Kind.RESIZE:
            operations.append((kind, 0, draw(st.integers(pages // 2, pages)) * PAGE, b""))
            continue
        page = draw(st.integers(0, pages // 2 - 1))
        count = draw(st.integers(1, min(longest, pages // 2 - page)))
        operations.append((kind, page, count, data_of(number, count) if kind == Kind.WRITE else b""))
    batches, rest = [], operations
    while rest:
        taken = draw(st.integers(1, len(rest)))
        batches.append(batch_of(rest[:taken], commits=draw(st.booleans())))
        rest = rest[taken:]
    return batches, operations


def batch_of(operations, commits=False):
    builder = BatchBuilder(PAGE)
    for kind, page, count, data in operations:
        if kind == Kind.WRITE:
            builder.write(page, data)
        elif kind == Kind.ZERO:
            builder.zero(page, count)
        else:
            builder.resize(page, count)
    if commits:
        builder.commit(CommitKind.FLUSH, 0)
    return builder.build()


class Disk:
    """A disk of PAGES pages that a size cuts."""

    def __init__(self):
        self.content = bytearray(b"\xee" * (PAGES * PAGE))
        self.size = PAGES * PAGE

    def put(self, page, data):
        self.content[page * PAGE : page * PAGE + len(data)] = data

    def zero(self, page, count):
        self.put(page, bytes(count * PAGE))

    def resize(self, size):
        if size < self.size:
            self.content[size:] = bytes(PAGES * PAGE - size)
        self.size = size


def apply_serially(disk, operations):
    for kind, page, count, data in operations:
        if kind == Kind.WRITE:
            disk.put(page, data)
        elif kind == Kind.ZERO:
            disk.zero(page, count)
        else:
            disk.resize(count)


def apply_units(disk, units):
    for unit in units:
        for page, count in unit.zeros:
            disk.zero(page, count)
        for page, buffers in runs_of(unit):
            disk.put(page, b"".join(buffers))


def runs_of(unit):
    return [(page, buffers) for page, buffers, *_ in unit.runs]


def units_of(stretch, ranges, unit_pages):
    if not stretch.sums:
        return []  # nothing is delegated then
    return list(to_units(stretch.without_overlaps(PAGE), ranges, PAGE, unit_pages))


def singles_of(stretch):
    return list(to_single_units(stretch, Parts([(0, 0), (4, 1)]), PAGE))


@settings(max_examples=150)
@given(
    window=windows(),
    unit_pages=st.sampled_from([1, 2, 5, 512]),
    stripe=st.integers(1, 12),
    groups=st.integers(1, 3),
    seed=st.randoms(use_true_random=False),
)
def test_units_in_any_order_give_serial_replay(window, unit_pages, stripe, groups, seed):
    batches, operations = window
    serial, coalesced = Disk(), Disk()
    apply_serially(serial, operations)
    for part in stretches(batches, PAGE):
        if isinstance(part, Inline):
            apply_serially(coalesced, [(part.kind, part.page, part.count, b"")])
        else:
            units = [unit for _, unit in units_of(part, Interleaved(groups, stripe), unit_pages)]
            seed.shuffle(units)
            apply_units(coalesced, units)
    assert coalesced.content == serial.content


@settings(max_examples=150)
@given(window=windows(resizes=False), unit_pages=st.sampled_from([1, 3, 512]), stripe=st.integers(1, 12))
def test_units_are_disjoint_inside_one_range_and_say_exactly_what_they_touch(window, unit_pages, stripe):
    ranges = Interleaved(3, stripe)
    for part in stretches(window[0], PAGE):
        if isinstance(part, Inline):
            continue
        seen = set()
        for group, unit in units_of(part, ranges, unit_pages):
            runs = [(page, sum(map(len, buffers)) // PAGE) for page, buffers in runs_of(unit)] + unit.zeros
            touched = list(itertools.chain.from_iterable(range(page, page + count) for page, count in runs))
            assert len(touched) == len(set(touched)), "a page is written twice"
            assert sorted(touched) == list(unit.footprint.each_page())
            assert {ranges.group_of(page) for page in touched} == {group}
            assert not seen & set(touched), "two units share a page"
            assert unit.payload_bytes == sum(len(buffer) for _, buffers in runs_of(unit) for buffer in buffers)
            seen |= set(touched)
        assert seen == set(part.sums)


@given(window=windows(resizes=False, longest=5), unit_pages=st.sampled_from([2, 3, 8]))
def test_a_unit_is_bounded(window, unit_pages):
    """It has at most this number of pages, or it is one operation that alone has more."""
    longest = max((count for kind, _, count, _ in window[1] if kind != Kind.RESIZE), default=0)
    for part in stretches(window[0], PAGE):
        if isinstance(part, Stretch):
            for _, unit in units_of(part, Parts([(0, 0)]), unit_pages):
                assert unit.footprint.page_count() <= max(unit_pages, longest)


@given(window=windows())
def test_a_stretch_has_the_newest_sum_of_each_page(window):
    batches, operations = window
    expected = {}
    for kind, page, count, data in operations:
        if kind == Kind.WRITE:
            sums = unpack_sums(page_sums([data[i : i + PAGE] for i in range(0, len(data), PAGE)], PAGE))
            expected.update(zip(range(page, page + count), sums, strict=True))
        elif kind == Kind.ZERO:
            expected.update(dict.fromkeys(range(page, page + count), 0))
        else:
            expected = {number: each for number, each in expected.items() if number < pages_in(count, PAGE)}
    found = {}
    for part in stretches(batches, PAGE):
        if isinstance(part, Stretch):
            found.update(part.sums)
        elif part.kind == Kind.RESIZE:
            found = {number: each for number, each in found.items() if number < pages_in(part.count, PAGE)}
        else:
            found.update(dict.fromkeys(range(part.page, part.page + part.count), 0))
    assert found == expected


def test_ascending_writes_keep_their_buffers_whole():
    """The fast path copies nothing and takes nothing apart."""
    batch = batch_of([(Kind.WRITE, 2, 3, data_of(2, 3)), (Kind.WRITE, 10, 4, data_of(1, 4))])
    (stretch,) = stretches([batch], PAGE)
    ((_, unit),) = units_of(stretch, Parts([(0, 0)]), 512)
    assert [(page, len(buffers)) for page, buffers in runs_of(unit)] == [(2, 1), (10, 1)]
    assert all(buffer.obj is batch.payload for _, buffers in runs_of(unit) for buffer in buffers)


def test_adjacent_pieces_become_one_write():
    batch = batch_of([(Kind.WRITE, page, 1, data_of(page, 1)) for page in (4, 2, 3, 9)])
    (stretch,) = stretches([batch], PAGE)
    ((_, unit),) = units_of(stretch, Parts([(0, 0)]), 512)
    assert [(page, len(buffers)) for page, buffers in runs_of(unit)] == [(2, 3), (9, 1)]


def test_zeros_that_meet_become_one():
    """A large ZERO that another operation overlaps is taken apart into pages, but not given back page by page."""
    batch = batch_of([(Kind.ZERO, 0, 5, b""), (Kind.ZERO, 3, 4, b""), (Kind.ZERO, 20, 1, b"")])
    (stretch,) = stretches([batch], PAGE)
    ((_, unit),) = units_of(stretch, Parts([(0, 0)]), 512)
    assert unit.zeros == [(0, 7), (20, 1)]


@pytest.mark.parametrize(("count", "is_inline"), [(INLINE_PAGES, False), (INLINE_PAGES + 1, True)])
def test_a_zero_above_the_limit_runs_alone(count, is_inline):
    batch = batch_of([(Kind.WRITE, 0, 1, data_of(1, 1)), (Kind.ZERO, 3, count, b""), (Kind.ZERO, 1, 1, b"")])
    parts = list(stretches([batch], PAGE))
    inline = [part for part in parts if isinstance(part, Inline)]
    assert inline == ([Inline(Kind.ZERO, 3, count)] if is_inline else [])
    assert len(parts) == (3 if is_inline else 1)


def test_a_resize_ends_a_stretch():
    batch = batch_of([(Kind.WRITE, 0, 1, data_of(1, 1)), (Kind.RESIZE, 0, 99, b""), (Kind.WRITE, 0, 1, data_of(2, 1))])
    first, resize, second = stretches([batch], PAGE)
    assert resize == Inline(Kind.RESIZE, 0, 99)
    for stretch, number in ((first, 1), (second, 2)):
        ((_, unit),) = units_of(stretch, Parts([(0, 0)]), 512)
        assert [b"".join(buffers) for _, buffers in runs_of(unit)] == [data_of(number, 1)]


def test_each_operation_is_a_unit_with_its_own_lsn():
    """Also after an operation that runs alone, and where a range's border cuts one in two."""
    first = batch_of([(Kind.WRITE, 3, 2, data_of(1, 2)), (Kind.ZERO, 9, 1, b"")], commits=True)
    second = batch_of([(Kind.ZERO, 0, 1, b""), (Kind.RESIZE, 0, 99, b""), (Kind.WRITE, 7, 1, data_of(2, 1))])
    before, resize, after = stretches([first, second], PAGE, [100, 103])
    assert resize == Inline(Kind.RESIZE, 0, 99, 104)
    found = [[(unit.footprint.first, unit.lsn) for _, unit in singles_of(each)] for each in (before, after)]
    assert found == [[(3, 100), (4, 100), (9, 101), (0, 103)], [(7, 105)]]


def test_operations_of_a_base_have_no_lsn_of_their_own():
    batch = batch_of([(Kind.WRITE, 3, 1, data_of(1, 1)), (Kind.RESIZE, 0, 99, b""), (Kind.ZERO, 9, 1, b"")])
    before, resize, after = stretches([batch], PAGE, [NO_LSN])
    lsns = [unit.lsn for each in (before, after) for _, unit in singles_of(each)]
    assert (lsns, resize.lsn) == ([NO_LSN, NO_LSN], NO_LSN)


def test_a_commit_alone_is_nothing_to_do():
    (stretch,) = stretches([batch_of([], commits=True)], PAGE)
    assert not units_of(stretch, Parts([(0, 0)]), 512)


def test_single_operations_stay_single():
    """With a unit of one page, the patent's operations are delegated one by one, whatever their length."""
    operations = [(Kind.WRITE, 0, 3, data_of(1, 3)), (Kind.WRITE, 3, 2, data_of(2, 2)), (Kind.ZERO, 5, 4, b"")]
    (stretch,) = stretches([batch_of(operations)], PAGE)
    units = [unit for _, unit in units_of(stretch, Parts([(0, 0)]), 1)]
    assert [unit.footprint.first for unit in units] == [0, 3, 5]
    assert [unit.footprint.page_count() for unit in units] == [3, 2, 4]
