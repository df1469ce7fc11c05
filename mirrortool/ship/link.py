"""The link of a session to its receiver: what a session needs of it, and one over descriptors.

A StreamLink has a thread of its own, the listener, that receives replies, so that the session may wait for the
journal, or for a full pipe, without missing one. It ends when the link is closed, broken, or silent for too long; then
`abort` makes every wait of the session fail.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from mirrortool import clock
from mirrortool.errors import LinkError
from mirrortool.ship.messagestream import SILENCE_SECONDS, Stream
from mirrortool.ship.protocol import Message, MessageKind

REPLIES_MAX = 1024
_WAIT_SECONDS = 0.5


class Link(Protocol):
    """A connection with one receiver; used by the session's thread."""

    is_one_way: bool
    """No replies come."""

    def send(self, message: Message, meanwhile: Callable[[], None]) -> None:
        """Send a message; may wait for the receiver.

        Args:
            meanwhile: called now and then while it waits; an error in it ends the link.
        Raises:
            LinkError: the link is broken.
        """

    def receive(self, seconds: float) -> Message | None:
        """The next reply; None if there is none within the time.

        Raises:
            LinkError: the link is broken, and every reply was received.
        """

    def flush(self) -> None:
        """Nothing more is sent for now: the receiver makes durable what it has."""

    def close(self) -> None:
        """End the connection."""


class StreamLink:
    """A link over a stream."""

    is_one_way = False

    def __init__(
        self, stream: Stream, on_reply: Callable[[], None], *, silence_seconds: float = SILENCE_SECONDS
    ) -> None:
        """Begin to listen.

        Args:
            on_reply: called in the listener's thread when there is something to receive.
        """
        self._stream = stream
        stream.never_block()
        self._on_reply = on_reply
        self._silence_seconds = silence_seconds
        # From the listener to the session, in order; when it is full the receiver waits. The listener's error
        # is the last thing in it.
        self._replies: queue.Queue[Message | LinkError] = queue.Queue(REPLIES_MAX)
        self._broken: LinkError | None = None
        # Set by `close`; the listener checks it every _WAIT_SECONDS.
        self._closing = threading.Event()
        self._listener = threading.Thread(target=self._listen, name="mirrortool-ship-listener", daemon=True)
        self._listener.start()

    def send(self, message: Message, meanwhile: Callable[[], None]) -> None:
        try:
            self._stream.send(message, meanwhile)
        except LinkError as error:
            raise self._explained(error) from None

    def receive(self, seconds: float) -> Message | None:
        if self._broken:
            raise self._broken
        try:
            found = self._replies.get(timeout=seconds) if seconds > 0 else self._replies.get_nowait()
        except queue.Empty:
            return None
        if isinstance(found, LinkError):
            self._broken = self._explained(found)
            raise self._broken
        return found

    def flush(self) -> None:
        return

    def close(self) -> None:
        self._closing.set()
        self.abort()
        self._listener.join()

    def abort(self) -> None:
        """Make every call that blocks, and every later one, fail; from any thread."""

    def _explained(self, error: LinkError) -> LinkError:
        """The error, with more of its cause if that is known."""
        return error

    def _listen(self) -> None:
        try:
            while not self._closing.is_set():
                reply = self._stream.receive(_WAIT_SECONDS)
                if reply:
                    self._put(reply)
                elif clock.monotonic() - self._stream.heard_at > self._silence_seconds:
                    raise LinkError(f"nothing was heard for {self._silence_seconds:.0f} seconds")
        except LinkError as error:
            self._put(error)
            self.abort()

    def _put(self, found: Message | LinkError) -> None:
        if isinstance(found, Message) and found.kind == MessageKind.ALIVE:
            return
        while not self._closing.is_set():
            with suppress(queue.Full):
                self._replies.put(found, timeout=_WAIT_SECONDS)
                self._on_reply()
                return
