"""A window for reading forward through a file: reads large pieces, and hands out small ones.

Bound: DATA_BYTES of memory, whatever is asked for. What is handed out is a copy, so it pins nothing.
"""

from __future__ import annotations

from mirrortool.files import File

HEADER_BYTES = 16 << 10
DATA_BYTES = 4 << 20


class Window:
    """A part of a file in memory. For one thread."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._buffer = memoryview(bytearray(DATA_BYTES))
        self._start = self._end = 0

    def header(self, offset: int, length: int) -> bytes:
        """Some bytes, fewer at the end of the file; a miss reads little, as a check of a log skips its data."""
        return self._read(offset, length, HEADER_BYTES)

    def data(self, offset: int, length: int) -> bytes:
        """Some bytes, fewer at the end of the file; a miss reads what follows, too."""
        return self._read(offset, length, DATA_BYTES)

    def _read(self, offset: int, length: int, ahead: int) -> bytes:
        assert length <= ahead <= DATA_BYTES
        if not self._start <= offset <= offset + length <= self._end:
            self._start = offset
            self._end = offset + self._file.pread_into([self._buffer[:ahead]], offset)
        first = offset - self._start
        return bytes(self._buffer[first : min(first + length, self._end - self._start)])
