"""`replay --trace`: a JSON line for each record of the replay."""

from __future__ import annotations

import threading
from contextlib import nullcontext, suppress

from mirrortool import files
from mirrortool.cli.outputfiles import check_output
from mirrortool.errors import HostError
from mirrortool.replay.tracing import Started, TraceRecord, UnitRun
from mirrortool.trace.jsonlines import LINE_BEGINS, encode

_BUFFER_BYTES = 1 << 16


class TraceFile:
    """A file of trace lines, written by all tasks; `with` writes the last of them.

    A file that is made is removed again if the replay is refused.
    """

    def __init__(self, path: str) -> None:
        """Open the file; its content stays until `begin`.

        Raises:
            AccessError: the file is not an earlier trace, so it must not be overwritten.
        """
        check_output(path, "a trace", LINE_BEGINS)
        self._must_go = not files.exists(path)  # until `begin`
        self._file = files.open_file(path, write=True, create=True, mode=0o666)
        # _lock protects what follows; tasks hold it for one line. Bound of the buffer: _BUFFER_BYTES and a line.
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._offset = 0
        self._has_begun = False
        self._is_cut_off = False  # a write failed, so that no more of this replay may follow

    def __enter__(self) -> TraceFile:
        return self

    def begin(self) -> None:
        """Empty the file, when everything else was checked, and write what came before that."""
        self._must_go = False
        with self._lock:
            self._file.truncate(0)
            self._has_begun = True
            self._flush()

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            with suppress(HostError) if kind else nullcontext():  # the first error is the one to report
                if self._has_begun:
                    self._flush()
        finally:
            self._file.close()
            if self._must_go:
                with suppress(HostError):
                    files.remove(self._file.path)

    def write(self, record: TraceRecord) -> None:
        """Add a line; a Tracer.

        Raises:
            HostError: this line or those before it cannot be written, and no further one of its replay is added; the
                next replay may find room again.
        """
        line = encode(record)
        with self._lock:
            if self._is_cut_off and not isinstance(record, Started):
                return
            if self._is_cut_off or len(self._buffer) >= _BUFFER_BYTES:
                self._flush()
            self._buffer += line
            if self._has_begun and not isinstance(
                record, UnitRun
            ):  # so that one that is killed leaves all that was drained
                self._flush()

    def _flush(self) -> None:
        self._is_cut_off = True
        # A copy: an error of the write holds on to what was to be written, and a buffer that is held cannot grow.
        self._file.pwrite(bytes(self._buffer), self._offset)
        self._offset += len(self._buffer)
        self._buffer = bytearray()
        self._is_cut_off = False
