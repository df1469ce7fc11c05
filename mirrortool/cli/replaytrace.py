"""`replay --trace`: a JSON line for each unit, as its task finishes it."""

from __future__ import annotations

import json
import threading
from contextlib import nullcontext, suppress

from mirrortool import files
from mirrortool.cli.outputfiles import check_output
from mirrortool.errors import HostError
from mirrortool.replay.writeunit import WriteUnit

_BUFFER_BYTES = 1 << 16
_LINE_BEGINS = b'{"lsn": '


class TraceFile:
    """A file of trace lines, written by all tasks; `with` writes the last of them."""

    def __init__(self, path: str) -> None:
        """Open the file; its content stays until `begin`.

        Raises:
            AccessError: the file is not an earlier trace, so it must not be overwritten.
        """
        check_output(path, "a trace", _LINE_BEGINS)
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

    def write(self, unit: WriteUnit, group: int, task: int, how: str) -> None:
        """Add a line; an Observer of the groups."""
        footprint = unit.footprint
        line = {
            "lsn": unit.lsn,
            "first_page": footprint.first,
            "last_page": footprint.end - 1,
            "bytes": unit.payload_bytes,
            "group": group,
            "task": task,
            "how": how,
        }
        with self._lock:
            self._buffer += json.dumps(line).encode() + b"\n"
            if len(self._buffer) >= _BUFFER_BYTES:
                self._flush()

    def _flush(self) -> None:
        self._file.pwrite(self._buffer, self._offset)
        self._offset += len(self._buffer)
        self._buffer = bytearray()
