"""The initial scan: reads a volume into the journal for the first time while clients write to it.

Each piece is read without the recorder's lock. Pages that clients wrote meanwhile, or that wait to be written, are left
out: the journal has them. Of the others those are journaled, as captured, that differ from the sums of the table. When
all volumes are done, commits are states of the primary; until then they say that they are incomplete.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from mirrortool import clock
from mirrortool.errors import HostError
from mirrortool.record.recorder import Recorder
from mirrortool.record.volumeside import COMMIT_SECONDS
from mirrortool.store.parallelread import PieceReader, pieces

CLIENTS_SHARE = 2.0
"""While clients write, the scan pauses after each piece for this many times the seconds that the piece took."""


class InitialScanProgress(NamedTuple):
    """Pages of all volumes that an initial scan reads."""

    pages_done: int
    pages_total: int


class InitialScan:
    """An initial scan of the volumes that need one. `run` is called in a thread of its own; `stop` ends it soon.

    Attributes:
        problem: why it makes no progress; None if it does.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._names = [volume.name for volume in recorder.volumes if volume.name in recorder.incomplete]
        self._stopping = threading.Event()
        volumes = recorder.volumes
        self._pages_total = sum(volumes.page_count(volumes[name]) for name in self._names)
        self._pages_done = 0
        self.problem: HostError | None = None

    def progress(self) -> InitialScanProgress:
        """How much is read; from any thread."""
        return InitialScanProgress(self._pages_done, self._pages_total)

    def stop(self) -> None:
        """End it soon; the next recorder begins it again, and skips what it finds in the journal."""
        self._stopping.set()

    def run(self) -> None:
        """Scan.

        Raises:
            MirrortoolError: the recorder has failed. What fails otherwise is tried again every second.
        """
        done = 0
        # What is captured is never redone, so a power cut must not remove from a volume what the journal has of it.
        self._recorder.sync_volumes()
        for name in self._names:
            self._scan(name, done)
            if self._stopping.is_set():
                return
            self._recorder.complete(name)
            done += self._recorder.volumes.page_count(self._recorder.volumes[name])
            self._pages_done = done

    def _scan(self, name: str, done: int) -> None:
        recorder = self._recorder
        volume = recorder.volumes[name]
        first = recorder.volumes.first_page(volume)
        reader = PieceReader(recorder.store, recorder.page_size)
        for page, count in pieces(recorder.store, recorder.table, volume):
            began, operations = clock.monotonic(), recorder.operations
            while not self._stopping.is_set() and not self._capture(reader, page, count):
                self._stopping.wait(COMMIT_SECONDS)
            if recorder.operations != operations:  # clients write: most of the time is for them
                self._stopping.wait(CLIENTS_SHARE * (clock.monotonic() - began))
            if self._stopping.is_set():
                return
            self._pages_done = done + page + count - first

    def _capture(self, reader: PieceReader, page: int, count: int) -> bool:
        """Compare a piece; False if it could not be read, or there was no room for what differs."""
        recorder = self._recorder
        recorder.capture.watch(page, count)
        try:
            reader.read(page, count)
            data = bytes(reader.buffer[: count * recorder.page_size])
            recorder.capture.capture_watched(page, data, reader.sums(count))
        except HostError as error:
            if recorder.failure:
                raise
            self.problem = error
            return False
        finally:
            recorder.capture.unwatch()
        self.problem = None
        return True
