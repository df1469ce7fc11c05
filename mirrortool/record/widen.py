"""Widens what clients change, bytes at any offset, to operations on whole pages.

A page that a change covers in part is read, as the newest change before left it, and written whole.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

from mirrortool.change import Change
from mirrortool.checksum import page_sums, unpack_sums
from mirrortool.files import Buffer
from mirrortool.journal.codec import Stored, compress
from mirrortool.operation import Batch, Kind
from mirrortool.volume import Volume

ReadPage = Callable[[int], Buffer]


class Widened:
    """Changes of one volume as one frame, and what that leaves in its pages.

    Attributes:
        batch, stored: the frame.
        pages: page numbers in the order in which they change; one may come twice.
        sums: of each of these.
        content: of each page, after all changes.
    """

    __slots__ = (
        "_counts", "_firsts", "_hole", "_kept", "_kinds", "_packed", "_page_size", "_payload", "_read", "_start",
        "batch", "content", "pages", "stored", "sums",
    )  # fmt: skip

    def __init__(self, changes: Sequence[Change], volume: Volume, page_size: int, hole: Buffer, read: ReadPage) -> None:
        """Widen the changes, in order.

        Args:
            hole: stands in `content` for a page whose space is freed.
            read: a whole page as it is before all of these.
        """
        self._page_size = page_size
        self._start = volume.start
        self._hole, self._read = hole, read
        self._kinds = bytearray()
        self._firsts, self._counts = array("Q"), array("Q")
        self._packed: list[bytes] = []
        self._payload: list[Buffer] = []
        self._kept: Buffer = b""
        self.pages: list[int] = []
        self.sums: list[int] = []
        self.content: dict[int, Buffer] = {}
        for change in changes:
            self._add(change)
        payload = self._payload[0] if len(self._payload) == 1 else b"".join(self._payload)
        packed = self._packed[0] if len(self._packed) == 1 else b"".join(self._packed)
        self.batch = Batch(bytes(self._kinds), self._firsts, self._counts, packed, payload)
        self.stored: Stored = compress(self.batch.payload)

    def _add(self, change: Change) -> None:
        size = self._page_size
        start, end = change.offset, change.offset + change.length
        head, tail = start % size, end % size
        if not head and not tail:
            self._whole((self._start + start) // size, change.length // size, change)
            return
        first, last = start // size, (end - 1) // size
        first_page = self._start // size
        if first == last or head:
            self._part(first_page + first, change, first * size)
            first += 1
        whole_end = last + 1 if not tail else last
        if first < whole_end:
            self._whole(first_page + first, whole_end - first, _inside(change, first * size, whole_end * size))
        if tail and first <= last:
            self._part(first_page + last, change, last * size)

    def _part(self, page: int, change: Change, page_offset: int) -> None:
        """Change some of a page that begins at `page_offset` in its volume."""
        size = self._page_size
        start, end = max(change.offset, page_offset), min(change.offset + change.length, page_offset + size)
        known = self.content.get(page)
        whole = bytearray(known if known is not None else self._read(page))
        if change.data is None:
            whole[start - page_offset : end - page_offset] = bytes(end - start)
        else:
            data = memoryview(change.data)[start - change.offset : end - change.offset]
            whole[start - page_offset : end - page_offset] = data
        self._write(page, 1, memoryview(whole))

    def _whole(self, page: int, count: int, change: Change) -> None:
        if change.data is not None:
            self._write(page, count, change.data)
            return
        self._operation(Kind.ZERO, page, count)
        self.pages += range(page, page + count)
        self.sums += [0] * count
        self.content.update(dict.fromkeys(range(page, page + count), self._zeros(change)))

    def _write(self, page: int, count: int, data: Buffer) -> None:
        size = self._page_size
        if count == 1:
            self.content[page] = data
            self.pages.append(page)
            packed = page_sums((data,), size)
        else:
            view = memoryview(data)
            views = [view[i : i + size] for i in range(0, count * size, size)]
            numbers = range(page, page + count)
            self.content.update(zip(numbers, views, strict=True))
            self.pages += numbers
            packed = page_sums(views, size)
        self.sums += unpack_sums(packed)
        self._packed.append(packed)
        self._payload.append(data)
        self._operation(Kind.WRITE, page, count)

    def _operation(self, kind: Kind, page: int, count: int) -> None:
        self._kinds.append(kind)
        self._firsts.append(page)
        self._counts.append(count)

    def _zeros(self, change: Change) -> Buffer:
        """A page of zeros: `hole`, or another object if their space is to be kept."""
        if not change.keep_allocated:
            return self._hole
        self._kept = self._kept or bytes(self._page_size)
        return self._kept


def _inside(change: Change, start: int, end: int) -> Change:
    """The part of a change between two offsets that lie inside it."""
    data = change.data
    if data is not None:
        data = memoryview(data)[start - change.offset : end - change.offset]
    return Change(start, end - start, data, change.keep_allocated)


def needs_reading(changes: Sequence[Change], page_size: int) -> bool:
    """Whether some page is changed in part."""
    ends = 0
    for change in changes:
        ends |= change.offset | change.length
    return bool(ends % page_size)
