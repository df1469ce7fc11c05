"""Reads and decodes frames in a thread of its own, a bounded amount ahead of who hands them out.

Reading, checking and decompressing release the interpreter for most of their time, so this thread runs beside the
delegator.

Bound: AHEAD_BYTES of payload, or one chunk. Order: that of the journal. Shutdown: `close`, which waits for the thread.
The reader belongs to this thread until then. What it fails with is raised to the consumer, after the frames before.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from mirrortool.errors import CorruptJournalError
from mirrortool.journal.codec import FrameHeader
from mirrortool.journal.format import COLUMN_BYTES
from mirrortool.journal.reader import JournalReader
from mirrortool.operation import Batch

AHEAD_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20
_FRAME_COST_BYTES = 512

DecodedFrame = tuple[FrameHeader, Batch]


class ReadAhead:
    """The frames of a journal up to an LSN. Iterate once, in one thread; `with` ends the thread."""

    def __init__(self, reader: JournalReader, target_lsn: int) -> None:
        self._reader = reader
        self._target_lsn = target_lsn
        # _changed protects everything below, and is notified of every change of it.
        self._changed = threading.Condition()
        self._chunks: deque[tuple[list[DecodedFrame], int]] = deque()  # with their cost in bytes
        self._bytes = 0
        self._error: BaseException | None = None
        self._is_done = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="mirrortool-read", daemon=True)

    def __enter__(self) -> ReadAhead:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def __iter__(self) -> Iterator[DecodedFrame]:
        while (chunk := self._take()) is not None:
            yield from chunk
        if self._error:
            raise self._error

    def _take(self) -> list[DecodedFrame] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._chunks or self._is_done)
            if not self._chunks:
                return None
            chunk, cost = self._chunks.popleft()
            self._bytes -= cost
            self._changed.notify_all()
            return chunk

    def _put(self, chunk: list[DecodedFrame], cost: int) -> bool:
        """Hand a chunk over when there is room; False if nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes + cost <= AHEAD_BYTES or not self._chunks or self._is_closed)
            self._chunks.append((chunk, cost))
            self._bytes += cost
            self._changed.notify_all()
            return not self._is_closed

    def _run(self) -> None:
        error: BaseException | None = None
        chunk: list[DecodedFrame] = []
        cost = 0
        try:
            for frame in self._frames():
                chunk.append(frame)
                batch = frame[1]
                cost += len(batch.payload) + len(batch.sums) + COLUMN_BYTES * len(batch) + _FRAME_COST_BYTES
                if cost >= _CHUNK_BYTES:
                    if not self._put(chunk, cost):
                        return
                    chunk, cost = [], 0
        except BaseException as failure:  # raised to the consumer
            error = failure
        self._put(chunk, cost)
        with self._changed:
            self._error, self._is_done = error, True
            self._changed.notify_all()

    def _frames(self) -> Iterator[DecodedFrame]:
        reader = self._reader
        while reader.position.lsn < self._target_lsn:
            header = reader.next_header()
            if header is None:
                raise CorruptJournalError(
                    f"ends at LSN {reader.position.lsn}, before LSN {self._target_lsn}", where=reader.journal.path
                )
            yield header, reader.batch()
