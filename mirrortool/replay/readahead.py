"""Reads and decodes frames in a thread of its own, a bounded amount ahead of who hands them out.

Reading, checking and decompressing release the interpreter for most of their time, so this thread runs beside the
delegator. Which frames there are, and how they are waited for, is the course's to say (framesource.py).

Rule: who takes frames is told when there are none at the moment, after the last of them: once at first, then every
REST_SECONDS.
Bound: AHEAD_BYTES of payload, or one chunk. Order: that of the journal. Shutdown: `stop`, from any thread, and the end
of `with`, which waits for the thread. The reader belongs to this thread until then. What it fails with is raised to the
consumer, after the frames before.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from mirrortool.journal import format as layout
from mirrortool.ratelimit import Pace
from mirrortool.replay.framesource import Course, DecodedFrame

AHEAD_BYTES = 16 << 20
REST_SECONDS = 1.0
PACE_SECONDS = 0.25
"""Who may only read so fast pauses for at least so long, and reads at once what is due after it."""
_CHUNK_BYTES = 1 << 20
_FRAME_COST_BYTES = 512
_Chunk = list[DecodedFrame]


class ReadAhead:
    """The frames of a course. Iterate once, in one thread: a frame, or None for none at the moment."""

    def __init__(self, course: Course, pace: Pace) -> None:
        """Read nothing yet.

        Args:
            pace: how many bytes of the journal may be read a second.
        """
        self._course = course
        self._pace = pace
        # _changed protects everything below, and is notified of every change of it.
        self._changed = threading.Condition()
        self._chunks: deque[tuple[_Chunk, int]] = deque()  # with their cost in bytes
        self._bytes = 0
        self._error: BaseException | None = None
        self._is_resting = False  # whether the thread waits, and all that it has read is in _chunks
        self._is_told = False  # whether the consumer knows that
        self._is_done = False
        self._is_stopped = False
        # The chunk that is being filled, and its cost: the thread's own.
        self._chunk: _Chunk = []
        self._cost = 0
        self._thread = threading.Thread(target=self._run, name="mirrortool-read", daemon=True)

    def __enter__(self) -> ReadAhead:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._thread.join()

    def stop(self) -> None:
        """End the iteration soon; from any thread, and also before it began."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self._course.stop()

    def __iter__(self) -> Iterator[DecodedFrame | None]:
        while (chunk := self._take()) is not None:
            if chunk:
                yield from chunk
            else:
                yield None
        if self._error:
            raise self._error

    def _take(self) -> _Chunk | None:
        """The next frames; none while the thread rests; None at the end."""
        with self._changed:
            while not self._chunks:
                if self._is_done or self._is_stopped:
                    return None
                if self._is_resting and not self._is_told:
                    self._is_told = True
                    return []
                if not self._changed.wait(REST_SECONDS if self._is_resting else None) and self._is_resting:
                    return []
            if self._is_stopped:
                return None
            chunk, cost = self._chunks.popleft()
            self._bytes -= cost
            self._changed.notify_all()
            return chunk

    def _put(self) -> None:
        """Hand over what was collected, when there is room."""
        if not self._chunk:
            return
        cost = self._cost
        with self._changed:
            self._changed.wait_for(lambda: self._bytes + cost <= AHEAD_BYTES or not self._chunks or self._is_stopped)
            self._chunks.append((self._chunk, cost))
            self._bytes += cost
            self._chunk, self._cost = [], 0
            self._changed.notify_all()

    def _rest(self) -> None:
        """Nothing more for now."""
        self._put()
        with self._changed:
            self._is_resting, self._is_told = True, False
            self._changed.notify_all()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            while not self._is_stopped and (frame := self._course.next_frame(self._rest)) is not None:
                self._is_resting = False
                self._collect(frame)
                self._keep_pace(layout.FRAME_HEADER.size + frame[0].body_bytes)
        except BaseException as failure:  # raised to the consumer
            error = failure
        self._put()
        with self._changed:
            self._error, self._is_done = error, True
            self._changed.notify_all()

    def _collect(self, frame: DecodedFrame) -> None:
        batch = frame[1]
        self._chunk.append(frame)
        self._cost += len(batch.payload) + len(batch.sums) + layout.COLUMN_BYTES * len(batch) + _FRAME_COST_BYTES
        if self._cost >= _CHUNK_BYTES:
            self._put()

    def _keep_pace(self, length: int) -> None:
        seconds = self._pace.consume(length)
        if seconds < PACE_SECONDS:
            return
        self._rest()
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped, seconds)
        self._is_resting = False
