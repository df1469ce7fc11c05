"""Reads pages out of frames whose place is known, and proves each by its sum.

Rule: no byte is given out that does not have the sum that the journal gave it. What has another is looked for in the
frame once more, so that the error says what a reader of the whole journal would say.
Bound: FILES_MAX open files, DECODED_BYTES of payloads that were compressed, and one more for each thread; of large ones
only one thread at a time makes one. On disk what decodedfile.py says.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import lz4.block

from mirrortool.checksum import page_sums
from mirrortool.files import File
from mirrortool.journal import format as layout
from mirrortool.points.cache import Cache
from mirrortool.points.decodedfile import DecodedFile

FILES_MAX = 256
DECODED_BYTES = 64 << 20
LARGE_BYTES = 2 << 20
PAGES_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """Where a frame's pages are.

    Attributes:
        key: of its file: the first LSN of a journal file; 0 for the base.
        offset: of the frame.
        payload_at: of its payload.
        stored: bytes of the payload as it is stored.
        count: pages.
    """

    key: int
    offset: int
    payload_at: int
    stored: int
    codec: int
    count: int


class DamagedPagesError(Exception):
    """Pages that do not have their sums, or cannot be decoded."""


class FrameReader:
    """Reads pages of frames, from any thread."""

    def __init__(self, page_size: int, open_file: Callable[[int], File], directory: Callable[[], str]) -> None:
        """
        Args:
            open_file: opens the file of a key; what is in it is durable by then.
            directory: makes, at the first call, the one for temporary files.
        """
        self.page_size = page_size
        self._kept = DecodedFile(directory)
        self._files = _OpenFiles(open_file)
        self._decoded: Cache[bytes] = Cache(DECODED_BYTES)
        # _large is held while a large payload is decoded; nothing else is locked meanwhile but the table of open files.
        self._large = threading.Lock()

    def close(self) -> None:
        self._kept.close()
        self._files.close()

    def read(self, frame: StoredFrame, number: int, views: Sequence[memoryview], sums: bytes) -> None:
        """Fill pages with those of a frame from one on.

        Args:
            number: of the first, in the frame.
            sums: packed, of these pages.
        Raises:
            DamagedPagesError: one does not have its sum.
        """
        size = self.page_size
        if frame.codec == layout.CODEC_RAW:
            if frame.stored != frame.count * size:
                raise DamagedPagesError
            with self._files.use(frame.key) as file:
                for start in range(0, len(views), PAGES_AT_ONCE):
                    part = views[start : start + PAGES_AT_ONCE]
                    file.pread_into(part, frame.payload_at + (number + start) * size)
        elif self._read_kept(frame, number, views, sums):
            return
        else:
            payload = memoryview(self._decoded.get((frame.key, frame.offset), lambda: self._decode(frame)))
            for place, view in enumerate(views, number):
                view[:] = payload[place * size : (place + 1) * size]
        if page_sums(views, size) != sums:
            raise DamagedPagesError

    def _read_kept(self, frame: StoredFrame, number: int, views: Sequence[memoryview], sums: bytes) -> bool:
        """Whether pages could be read from the file of payloads, as they must be."""
        key, size = (frame.key, frame.offset), self.page_size
        if self._decoded.has(key):
            return False
        for start in range(0, len(views), PAGES_AT_ONCE):
            if not self._kept.read(key, (number + start) * size, views[start : start + PAGES_AT_ONCE]):
                return False
        return page_sums(views, size) == sums

    def raw(self, key: int, offset: int, length: int) -> bytes:
        """Bytes of a file, fewer at its end."""
        with self._files.use(key) as file:
            return file.pread(length, offset)

    def _decode(self, frame: StoredFrame) -> tuple[bytes, int]:
        length = frame.count * self.page_size
        if length <= LARGE_BYTES:
            return self._decompress(frame, length), length
        with self._large:
            return self._decompress(frame, length), length

    def _decompress(self, frame: StoredFrame, length: int) -> bytes:
        stored = self.raw(frame.key, frame.payload_at, frame.stored)
        try:
            payload: bytes = lz4.block.decompress(stored, uncompressed_size=length)
        except lz4.block.LZ4BlockError:
            raise DamagedPagesError from None
        if len(payload) != length:
            raise DamagedPagesError
        self._kept.add((frame.key, frame.offset), payload)
        return payload


class _OpenFiles:
    """The files used last, open; one that is in use stays so."""

    def __init__(self, open_file: Callable[[int], File]) -> None:
        self._open_file = open_file
        # _lock protects _opened, and is held while a file is opened or closed. No other lock is taken under it.
        self._lock = threading.Lock()
        self._opened: OrderedDict[int, _Used] = OrderedDict()

    def close(self) -> None:
        with self._lock:
            while self._opened:
                self._opened.popitem()[1].file.close()

    @contextmanager
    def use(self, key: int) -> Iterator[File]:
        with self._lock:
            used = self._opened.get(key)
            if used is None:
                self._make_room()
                used = self._opened[key] = _Used(self._open_file(key))
            self._opened.move_to_end(key)
            used.users += 1
        try:
            yield used.file
        finally:
            with self._lock:
                used.users -= 1

    def _make_room(self) -> None:
        idle = [key for key, used in self._opened.items() if not used.users]
        for key in idle[: max(0, len(self._opened) - FILES_MAX + 1)]:
            self._opened.pop(key).file.close()


@dataclass(slots=True)
class _Used:
    file: File
    users: int = 0
