"""Exports one volume of a state; pages that are zeros are not written.

Every page was compared with its sum when it was read (state.py).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from mirrortool.address import adjacent_runs
from mirrortool.checksum import unpack_sums
from mirrortool.serve.exportfile import ExportTarget
from mirrortool.serve.state import ShownState
from mirrortool.store.parallelread import PIECE_BYTES, THREADS, PieceReader, Run, for_each_piece
from mirrortool.volume import Volume


@dataclass(frozen=True, slots=True)
class ExportProgress:
    """An export at one moment, in bytes of the volume.

    Attributes:
        done, total: how far it is.
        written: of data; the rest is zeros.
        is_finishing: all is written, and made durable now.
    """

    done: int
    total: int
    written: int
    is_finishing: bool = False


class ExportCancelled(Exception):
    """`cancel` was called."""


class ExportVolume:
    """An export; state and target belong to the caller, who finishes or abandons the latter."""

    def __init__(self, state: ShownState, volume: Volume, target: ExportTarget) -> None:
        self._state, self._volume, self._target = state, volume, target
        self._page_size = state.reader.page_size
        self._first = state.reader.volumes.first_page(volume)
        self._is_cancelled = self._is_finishing = False
        # Protects the two; several threads write.
        self._lock = threading.Lock()
        self._done = self._written = 0

    def cancel(self) -> None:
        """Stop soon; from any thread."""
        self._is_cancelled = True

    def progress(self) -> ExportProgress:
        """How far it is; from any thread."""
        return ExportProgress(self._done, self._volume.size, self._written, self._is_finishing)

    def run(self) -> ExportProgress:
        """Write the whole volume.

        Raises:
            ExportCancelled: after `cancel`.
            MirrortoolError: a page cannot be read, or does not have its sum; or the target does not take it.
        """
        threads = 1 if self._target.is_ordered else THREADS
        for_each_piece(self._state.reader, self._page_size, self._pieces(), self._write, threads)
        if self._is_cancelled:  # also where nothing was to be written
            raise ExportCancelled
        self._done, self._is_finishing = self._volume.size, True
        self._target.finish()
        self._is_finishing = False
        return self.progress()

    def _pieces(self) -> Iterator[Run]:
        step = PIECE_BYTES // self._page_size
        count = self._state.reader.volumes.page_count(self._volume)
        for first, number in self._state.reader.data_runs(self._first, count):
            for page in range(first, first + number, step):
                yield page, min(step, first + number - page)

    def _write(self, reader: PieceReader, page: int, count: int) -> None:
        if self._is_cancelled:
            raise ExportCancelled
        sums = reader.sums(count)
        written = 0
        for place, number in adjacent_runs(place for place, each in enumerate(unpack_sums(sums)) if each):
            offset = (page + place - self._first) * self._page_size
            length = min(number * self._page_size, self._volume.size - offset)
            start = place * self._page_size
            self._target.write(offset, reader.buffer[start : start + length])
            written += length
        with self._lock:
            self._written += written
            end = (page + count - self._first) * self._page_size
            self._done = min(max(self._done, end), self._volume.size)
