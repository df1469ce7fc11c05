"""Reads back what was written, past the caches that can be told to forget, and compares it with the journal's sums.

Called between the store's fdatasync and the checkpoint, so that a checkpoint never names a page that the device has not
kept. Pages that are near each other are read with one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import filterfalse

from mirrortool.address import VOLUME_ALIGNMENT
from mirrortool.checksum import pack_sums, page_sums, unpack_sums
from mirrortool.errors import InputOutputError
from mirrortool.store.interface import Store
from mirrortool.store.parallelread import PIECE_BYTES, PieceReader, for_each_piece

_GAP_PAGES = 8
"""Up to this number of unwanted pages are read over: that is cheaper than another call."""


def check_written(store: Store, page_size: int, sums: Mapping[int, int], is_overtaken: Callable[[int], bool]) -> None:
    """Compare pages of the store with their sums, by page.

    Args:
        is_overtaken: whether a page is being written again meanwhile, so that it may hold something newer.
    Raises:
        InputOutputError: a page does not read back as it was written.
    """
    store.drop_caches()
    pages = sorted(sums)
    spans = list(_spans(pages, PIECE_BYTES // page_size, VOLUME_ALIGNMENT // page_size))
    begin_of = {pages[begin]: (begin, end) for begin, end in spans}

    def check(reader: PieceReader, page: int, count: int) -> None:
        begin, end = begin_of[page]
        bad = next(filterfalse(is_overtaken, _differing(reader, pages[begin:end], count, sums)), None)
        if bad is not None:
            raise InputOutputError(
                f"page {bad:#x} does not read back as it was written",
                remedy="the storage loses writes, or the journal's own sums are wrong: mirrortool verify tells which",
            )

    work = ((pages[begin], pages[end - 1] - pages[begin] + 1) for begin, end in spans)
    for_each_piece(store, page_size, work, check)


def _differing(reader: PieceReader, pages: Sequence[int], count: int, sums: Mapping[int, int]) -> list[int]:
    """Which of `pages`, all among the `count` in the buffer, do not have their sums."""
    views = reader.views[:count]
    if len(pages) < count:
        views = [views[page - pages[0]] for page in pages]
    found, wanted = page_sums(views, len(views[0])), [sums[page] for page in pages]
    if found == pack_sums(wanted):
        return []
    return [page for page, has, wants in zip(pages, unpack_sums(found), wanted, strict=True) if has != wants]


def _spans(pages: Sequence[int], most: int, volume_step: int) -> Iterator[tuple[int, int]]:
    """Index ranges of `pages` that are read together: near each other, in one volume, at most `most` pages long."""
    begin = 0
    border = pages[0] - pages[0] % volume_step + volume_step if pages else 0  # a volume may begin there
    for i in range(1, len(pages)):
        page = pages[i]
        if page - pages[i - 1] > _GAP_PAGES or page - pages[begin] >= most or page >= border:
            yield begin, i
            begin, border = i, page - page % volume_step + volume_step
    if pages:
        yield begin, len(pages)
