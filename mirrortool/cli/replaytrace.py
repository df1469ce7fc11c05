"""`replay --trace`: a JSON line for each record of the replay."""

from __future__ import annotations

import threading
from contextlib import nullcontext, suppress

from mirrortool import files
from mirrortool.cli.outputfiles import check_output
from mirrortool.errors import HostError
from mirrortool.replay.tracing import TraceRecord
from mirrortool.trace.jsonlines import LINE_BEGINS, encode

_BUFFER_BYTES = 1 << 16


class TraceFile:
    """A file of trace lines, written by all tasks; `with` writes the last of them."""

    def __init__(self, path: str) -> None:
        """Open the file; its content stays until `begin`.

        Raises:
            AccessError: the file is not an earlier trace, so it must not be overwritten.
        """
        check_output(path, "a trace", LINE_BEGINS)
        self._file = files.open_file(path, write=True, create=True, mode=0o666)
        # _lock protects the buffer and the offset; tasks hold it for one line.
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._offset = 0

    def __enter__(self) -> TraceFile:
        return self

    def begin(self) -> None:
        """Empty the file, when everything else was checked."""
        self._file.truncate(0)

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            with suppress(HostError) if kind else nullcontext():  # the first error is the one to report
                self._flush()
        finally:
            self._file.close()

    def write(self, record: TraceRecord) -> None:
        """Add a line; a Tracer."""
        line = encode(record)
        with self._lock:
            self._buffer += line
            if len(self._buffer) >= _BUFFER_BYTES:
                self._flush()

    def _flush(self) -> None:
        self._file.pwrite(self._buffer, self._offset)
        self._offset += len(self._buffer)
        self._buffer = bytearray()
