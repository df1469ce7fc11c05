"""Reads and decodes frames in a thread of its own, a bounded amount ahead of the thread that consumes them.

Reading, checking and decompressing release the interpreter for most of their time, so this thread runs beside the
delegator. Which frames come, and how they are waited for, is decided by their source (framesource.py).

Rule: the consumer is told when no frames are ready, after the last of them: once at first, then every
PAUSE_SECONDS.
Bound: AHEAD_BYTES of payload, or one chunk. Order: that of the journal. Shutdown: `stop`, from any thread, and the end
of `with`, which waits for the thread. The reader belongs to this thread until then. What it fails with is raised to the
consumer, after the frames before.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from enum import Enum

from mirrortool.journal import format as layout
from mirrortool.ratelimit import Pace
from mirrortool.replay.framesource import FrameSource
from mirrortool.replay.resync import DecodedFrame

AHEAD_BYTES = 16 << 20
PAUSE_SECONDS = 1.0
PACE_SECONDS = 0.25
"""A thread that must read slowly pauses for at least this long, and then reads at once what is due."""
_CHUNK_BYTES = 1 << 20
_FRAME_COST_BYTES = 512
_Chunk = list[DecodedFrame]


class State(Enum):
    """What the reading thread does.

    from              to        when                                                     changed by
    READING           PAUSED    the source waits for the journal, or the pace allows     the thread
                                nothing now; all that was read is in the chunks
    PAUSED            TOLD      the consumer has had all chunks, and was told            the consumer
    TOLD              PAUSED    the source waits once more                               the thread
    PAUSED, TOLD      READING   a frame came, or the pace allows more                    the thread
    all but STOPPED   ENDED     no further frame will come, or reading failed            the thread
    all               STOPPED   `stop` was called; nothing more is handed to the consumer   any thread
    """

    READING = "reads"
    PAUSED = "waits, and the consumer does not know it yet"
    TOLD = "waits, and the consumer knows it"
    ENDED = "has ended"
    STOPPED = "is to end"


_MAY_FOLLOW = {
    State.READING: {State.PAUSED, State.ENDED, State.STOPPED},
    State.PAUSED: {State.PAUSED, State.TOLD, State.READING, State.ENDED, State.STOPPED},
    State.TOLD: {State.PAUSED, State.READING, State.ENDED, State.STOPPED},
    State.ENDED: {State.STOPPED},
    State.STOPPED: {State.STOPPED},
}


class ReadAhead:
    """The frames of a source. Iterate once, in one thread: a frame, or None for none at the moment."""

    def __init__(self, source: FrameSource, pace: Pace) -> None:
        """Read nothing yet.

        Args:
            pace: how many bytes of the journal may be read a second.
        """
        self._source = source
        self._pace = pace
        # _changed protects everything below, and is notified of every change of it. Only `_enter` changes the state.
        self._changed = threading.Condition()
        self._chunks: deque[tuple[_Chunk, int]] = deque()  # with their cost in bytes
        self._bytes = 0
        self._error: BaseException | None = None
        self._state = State.READING
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
            self._enter(State.STOPPED)
        self._source.stop()

    def __iter__(self) -> Iterator[DecodedFrame | None]:
        while (chunk := self._pop_chunk()) is not None:
            if chunk:
                yield from chunk
            else:
                yield None
        if self._error:
            raise self._error

    def _enter(self, state: State) -> None:
        """Change the state, with the lock; a thread that was stopped stays so."""
        if state in _MAY_FOLLOW[self._state]:
            self._state = state
            self._changed.notify_all()

    def _is_stopped(self) -> bool:
        return self._state is State.STOPPED

    def _pop_chunk(self) -> _Chunk | None:
        """The next frames; an empty list while the thread pauses; None at the end."""
        with self._changed:
            while not self._chunks:
                if self._state in (State.ENDED, State.STOPPED):
                    return None
                if self._state is State.PAUSED:
                    self._enter(State.TOLD)
                    return []
                seconds = PAUSE_SECONDS if self._state is State.TOLD else None
                if not self._changed.wait(seconds) and self._state is State.TOLD:
                    return []
            if self._is_stopped():
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
            self._changed.wait_for(lambda: self._bytes + cost <= AHEAD_BYTES or not self._chunks or self._is_stopped())
            self._chunks.append((self._chunk, cost))
            self._bytes += cost
            self._chunk, self._cost = [], 0
            self._changed.notify_all()

    def _pause(self) -> None:
        """Nothing more for now."""
        self._put()
        with self._changed:
            self._enter(State.PAUSED)

    def _resume(self) -> None:
        # Without the lock for each frame: no other thread leads away from READING but to STOPPED.
        if self._state is not State.READING:
            with self._changed:
                self._enter(State.READING)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            while not self._is_stopped() and (frame := self._source.next_frame(self._pause)) is not None:
                self._resume()
                self._collect(frame)
                self._keep_pace(layout.FRAME_HEADER.size + frame[0].body_bytes)
        except BaseException as failure:  # raised to the consumer
            error = failure
        self._put()
        with self._changed:
            self._error = error
            self._enter(State.ENDED)
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
        self._pause()
        with self._changed:
            self._changed.wait_for(self._is_stopped, seconds)
        self._resume()
