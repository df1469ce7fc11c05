"""A one-way link, without replies: a pipe to a tape, a file, or a program of the user's own.

What is sent counts as acknowledged; the receiver finds out itself what it has already.
"""

from __future__ import annotations

from collections.abc import Callable

from mirrortool.errors import LinkError, NoSpaceError
from mirrortool.ship.messagestream import Stream
from mirrortool.ship.protocol import Message


class OneWayLink:
    """A link into a descriptor, which stays open."""

    is_one_way = True

    def __init__(self, sink: int) -> None:
        self._stream = Stream(-1, sink)

    def send(self, message: Message, meanwhile: Callable[[], None]) -> None:
        """Send a message.

        Raises:
            NoSpaceError: standard output is a file, and there is no room for it.
            LinkError: no process reads the pipe any more.
        """
        try:
            self._stream.send(message, meanwhile)
        except LinkError as error:
            if isinstance(full := error.__cause__, NoSpaceError):
                raise NoSpaceError(full.what, where="standard output", remedy=full.remedy) from error
            raise

    def receive(self, seconds: float) -> Message | None:
        return None

    def flush(self) -> None:
        return

    def close(self) -> None:
        return
