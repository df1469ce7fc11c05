"""Messages over two descriptors: pipes to and from a process, or a socket.

Sent by one thread, received by one, which may be another. Whatever goes wrong is a LinkError.
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
"""Who has said nothing for so long says that he is alive."""
SILENCE_SECONDS = 30.0
"""Who hears nothing for so long gives the link up, unless he was told another time."""
_BLOCKED_SECONDS = 0.25
_SHOWN_BYTES = 200


class Stream:
    """A connection with the other side.

    Attributes:
        heard_at, said_at: when bytes came, and when a message was sent, last; by the monotonic clock.
    """

    def __init__(self, source: int, sink: int) -> None:
        """Receive from `source`, send to `sink`; neither is closed here. -1: that way nothing goes."""
        self._source, self._sink = source, sink
        self._decoder = Decoder()
        self.heard_at = self.said_at = clock.monotonic()
        for descriptor in (source, sink):
            if descriptor >= 0:
                pipes.widen_pipe(descriptor, PIPE_BYTES)

    def never_block(self) -> None:
        """From now on `send` calls `meanwhile` while the other side does not take what is sent."""
        pipes.unblock(self._sink)

    def send(self, message: Message, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Send a message; waits while the other side does not take it."""
        rest: Sequence[Buffer] = encode(message)
        while rest:
            try:
                rest = pipes.write_pipe(self._sink, rest)
            except HostError as error:
                raise LinkError(f"the other side is gone: {error.what}") from error
            if rest and not pipes.wait_writable(self._sink, _BLOCKED_SECONDS):
                meanwhile()
        self.said_at = clock.monotonic()

    def receive(self, seconds: float) -> Message | None:
        """The next message; None if it does not begin to come, or stops coming, within so many seconds.

        Raises:
            ForeignBytesError: what comes first is none of ours.
            LinkError: the other side has ended, or what it sent makes no sense.
        """
        ends = clock.monotonic() + seconds
        while pipes.wait_readable(self._source, ends - clock.monotonic()):
            try:
                message = self._decoder.took(self._read())
            except ForeignBytesError as error:
                raise ForeignBytesError(error.data + self._more()) from None
            if message:
                return message
        return None

    @property
    def has_ended(self) -> bool:
        """Whether the other side sends no more, though what it sent may not have been received yet."""
        return not pipes.has_writer(self._source)

    def _more(self) -> bytes:
        """Some of what comes next, for people."""
        rest = memoryview(bytearray(_SHOWN_BYTES))
        got, ends = 0, clock.monotonic() + _BLOCKED_SECONDS
        with suppress(HostError):
            while got < len(rest) and pipes.wait_readable(self._source, ends - clock.monotonic()):
                count = pipes.read_pipe(self._source, rest[got:])
                if not count:
                    break
                got += count
        return bytes(rest[:got])

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
