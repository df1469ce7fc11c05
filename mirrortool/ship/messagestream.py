"""A stream of messages over two descriptors: pipes to and from a process, or a socket.

Sent by one thread, received by one, which may be another. Every failure is a LinkError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from mirrortool import clock, pipes
from mirrortool.errors import HostError, LinkError
from mirrortool.files import Buffer
from mirrortool.ship.protocol import Decoder, ForeignBytesError, Message, encode

PIPE_BYTES = 1 << 20
ALIVE_SECONDS = 10.0
"""A side that has sent nothing for this time sends ALIVE."""
SILENCE_SECONDS = 30.0
"""A side that receives nothing for this time ends the link, unless another time was given."""
_BLOCKED_SECONDS = 0.25
_SHOWN_BYTES = 200


class Stream:
    """A connection with the other side.

    Attributes:
        heard_at, said_at: when bytes came, and when a message was sent, last; on the monotonic clock.
    """

    def __init__(self, source: int, sink: int) -> None:
        """Receive from `source`, send to `sink`; neither is closed here. -1: nothing goes that way."""
        self._source, self._sink = source, sink
        self._decoder = Decoder()
        self.heard_at = self.said_at = clock.monotonic()
        for descriptor in (source, sink):
            if descriptor >= 0:
                pipes.widen_pipe(descriptor, PIPE_BYTES)

    def never_block(self) -> None:
        """From now on `send` calls `meanwhile` while the other side does not read."""
        pipes.unblock(self._sink)

    def send(self, message: Message, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Send a message; waits while the other side does not read."""
        unsent: Sequence[Buffer] = encode(message)
        while unsent:
            try:
                unsent = pipes.write_pipe(self._sink, unsent)
            except HostError as error:
                raise LinkError(f"the other side is gone: {error.what}") from error
            if unsent and not pipes.wait_writable(self._sink, _BLOCKED_SECONDS):
                meanwhile()
        self.said_at = clock.monotonic()

    def receive(self, seconds: float) -> Message | None:
        """The next message; None if it does not begin to come, or stops coming, within the time.

        Raises:
            ForeignBytesError: the first bytes are not of a message.
            LinkError: the other side has ended, or what it sent is not valid.
        """
        ends = clock.monotonic() + seconds
        while pipes.wait_readable(self._source, ends - clock.monotonic()):
            try:
                message = self._decoder.received(self._read())
            except ForeignBytesError as error:
                raise ForeignBytesError(error.data + self._more()) from None
            if message:
                return message
        return None

    @property
    def has_ended(self) -> bool:
        """Whether the other side has ended; what it sent before may not have been received yet."""
        return not pipes.has_writer(self._source)

    def _more(self) -> bytes:
        """Some of what comes next, for people."""
        shown = memoryview(bytearray(_SHOWN_BYTES))
        got, ends = 0, clock.monotonic() + _BLOCKED_SECONDS
        with suppress(HostError):
            while got < len(shown) and pipes.wait_readable(self._source, ends - clock.monotonic()):
                count = pipes.read_pipe(self._source, shown[got:])
                if not count:
                    break
                got += count
        return bytes(shown[:got])

    def _read(self) -> int:
        try:
            count = pipes.read_pipe(self._source, self._decoder.room())
        except HostError as error:
            raise LinkError(f"the other side is gone: {error.what}") from error
        if not count:
            where = "" if self._decoder.is_between else " in the middle of a message"
            raise LinkError(f"the other side ended{where}")
        self.heard_at = clock.monotonic()
        return count
