"""Widening: whole pages that read as if the bytes had been written one after another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mirrortool.change import Change
from mirrortool.checksum import page_sums, unpack_sums
from mirrortool.operation import Kind
from mirrortool.record.widen import Widened, needs_reading
from mirrortool.volume import Volume

PAGE = 512
SIZE = 7 * PAGE + 100
VOLUME = Volume("a", 1 << 48, SIZE)
FIRST = VOLUME.start // PAGE
HOLE = bytes(PAGE)


@st.composite
def a_change(draw: st.DrawFn) -> Change:
    offset = draw(st.integers(0, SIZE - 1) | st.integers(0, 7).map(lambda page: page * PAGE))
    end = draw(st.integers(offset + 1, SIZE) | st.just(SIZE) | st.just(min(SIZE, offset + PAGE)))
    if draw(st.booleans()):
        fill = draw(st.integers(0, 3))
        return Change(offset, end - offset, bytes([fill]) * (end - offset))
    return Change(offset, end - offset, None, draw(st.booleans()))


@given(st.lists(a_change(), min_size=1, max_size=6))
def test_a_frame_gives_the_bytes_that_the_changes_give(changes: list[Change]) -> None:
    before = bytes(i * 7 % 251 for i in range(SIZE)) + bytes(PAGE - 100)
    model = bytearray(before)
    for change in changes:
        data = bytes(change.length) if change.data is None else change.data
        model[change.offset : change.offset + change.length] = data
    read: list[int] = []

    def read_page(page: int) -> bytes:
        read.append(page)
        return before[(page - FIRST) * PAGE :][:PAGE]

    widened = Widened(changes, VOLUME, PAGE, HOLE, read_page)
    assert bool(read) <= needs_reading(changes, PAGE)
    after = bytearray(before)
    for page, content in widened.content.items():
        after[(page - FIRST) * PAGE : (page - FIRST + 1) * PAGE] = content
    assert after == model
    replayed, sums, order = bytearray(before), dict[int, int](), []
    for operation in widened.batch.operations(1):
        data = bytes(operation.count * PAGE) if operation.kind == Kind.ZERO else bytes(operation.data)
        start = (operation.page - FIRST) * PAGE
        replayed[start : start + len(data)] = data
        order += range(operation.page, operation.page + operation.count)
    assert replayed == model
    assert order == widened.pages
    sums = dict(zip(widened.pages, widened.sums, strict=True))
    pages = [bytes(model[(page - FIRST) * PAGE :][:PAGE]) for page in sums]
    assert list(sums.values()) == list(unpack_sums(page_sums(pages, PAGE)))
    for page, content in widened.content.items():
        if content is HOLE:
            start = (page - FIRST) * PAGE
            last = [each for each in changes if each.offset < start + PAGE and each.offset + each.length > start][-1]
            assert last.data is None and not last.keep_allocated


def test_whole_pages_are_not_read() -> None:
    changes = [Change(PAGE, 2 * PAGE, bytes(2 * PAGE)), Change(0, 7 * PAGE, None)]
    assert not needs_reading(changes, PAGE)

    def read(page: int) -> bytes:
        raise AssertionError(page)

    assert set(Widened(changes, VOLUME, PAGE, HOLE, read).content) == set(range(FIRST, FIRST + 7))
