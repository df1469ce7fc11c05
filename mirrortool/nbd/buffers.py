"""Buffers of a connection: what it has received and not read yet, and what it has answered and not sent yet.

Both belong to the connection's thread and reuse their memory. What the inbox gives out is copied, so an export may keep
it: a page pins a page, not everything that was received with it, and copying 4 KiB costs less than touching
4 KiB of fresh memory. Only what is too large to wait for in the inbox is received into memory of its own.
"""

from __future__ import annotations

from mirrortool import files
from mirrortool.files import Buffer
from mirrortool.nbd.channel import Channel

INBOX_BYTES = 256 << 10
WAITED_BYTES_MAX = 64 << 10
"""A payload up to this is waited for in the inbox; a larger one is received directly into the memory where it stays."""
OUTBOX_BYTES = 64 << 10
OUTBOX_BYTES_KEPT_MAX = (1 << 20) + 512
"""The outbox grows with the replies; memory for a larger one than this is freed when it has been sent."""


UNTOUCHED_BYTES_MIN = 1 << 20


def _memory_for(length: int) -> bytearray | memoryview:
    """Zeros. A large buffer uses memory only as it is filled: a client may announce what never comes."""
    return bytearray(length) if length < UNTOUCHED_BYTES_MIN else files.aligned_buffer(length)


class Inbox:
    """Bytes received, between `start` and `end` of `buffer`; the parser moves `start`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.buffer = bytearray(INBOX_BYTES)
        self.view = memoryview(self.buffer)
        self.start = 0
        self.end = 0

    def receive(self) -> bool:
        """Wait for more, and add all that has arrived; False when the client is gone."""
        if self.start:
            kept = self.end - self.start
            self.view[:kept] = self.view[self.start : self.end]
            self.start, self.end = 0, kept
        got = self._channel.receive_into(self.view[self.end :])
        self.end += got
        return got > 0

    def read(self, length: int) -> Buffer:
        """The next `length` bytes, in memory of their own; waits for those that have not come yet.

        Raises:
            EndOfStreamError: the client is gone before that.
        """
        start, self.start = self.start, self.start + length
        if self.start <= self.end:
            return bytes(self.view[start : self.start])
        data = _memory_for(length)
        received = self.end - start
        with memoryview(data) as whole:
            whole[:received] = self.view[start : self.end]
            self.start = self.end = 0
            self._channel.receive_exactly(whole[received:])
        return data

    def skip(self, length: int) -> None:
        """Skip the next `length` bytes; waits for those that have not come yet."""
        received = min(length, self.end - self.start)
        self.start += received
        self._channel.skip(length - received)


class Outbox:
    """Replies in the order in which they will be sent, all with one call."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._view = memoryview(bytearray(OUTBOX_BYTES))
        self._used = 0

    def put(self, reply: bytes) -> None:
        """Add a reply; sends those before it first if they fill the memory."""
        self.reserve(len(reply))[:] = reply

    def reserve(self, length: int) -> memoryview:
        """Room for a reply of `length` bytes, to be filled before the next call."""
        if self._used + length > len(self._view):
            self.send()
            if length > len(self._view):
                self._view = memoryview(_memory_for(length))
        start, self._used = self._used, self._used + length
        return self._view[start : self._used]

    def give_back(self, length: int) -> None:
        """Drop the last `length` bytes that were reserved."""
        self._used -= length

    def send(self) -> None:
        """Send all replies; blocks while the client does not read."""
        if self._used:
            self._channel.send(self._view[: self._used])
            self._used = 0
        if len(self._view) > OUTBOX_BYTES_KEPT_MAX:
            self._view = memoryview(bytearray(OUTBOX_BYTES))
