"""The receiver process, the far end of a link: a receiver on standard input and output, until the sender ends.

Rule: a full disk is a state. The sender is told, and the same frames are tried again until there is room; it is
an error only where no replies can be sent.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from mirrortool import clock
from mirrortool.errors import LinkError, MirrortoolError, NoSpaceError
from mirrortool.journal.position import Position
from mirrortool.ship.messagestream import ALIVE_SECONDS, SILENCE_SECONDS, Stream
from mirrortool.ship.protocol import Message, MessageKind
from mirrortool.ship.receiver import Receiver, problem, refusal

_WAIT_SECONDS = 0.5
_RETRY_SECONDS = 1.0


class ReceiverProcess:
    """Serves a connection that the sender opened. `run` by one thread; `stop` is for any other."""

    def __init__(
        self, path: str, stream: Stream, *, silence_seconds: float = SILENCE_SECONDS, group: int | None = None
    ) -> None:
        """Prepare.

        Args:
            group: the number of a group that may read a new copy; by default no other user may.
        """
        self._receiver = Receiver(path, group)
        self._stream = stream
        self._silence_seconds = silence_seconds
        self._may_answer = False  # before its first message, the other end may be anything
        # Set by `stop` only; ends every wait.
        self._ending = threading.Event()

    @property
    def position(self) -> Position:
        """The end of what the copy has."""
        return self._receiver.position

    @property
    def has_begun(self) -> bool:
        """Whether there is a copy that the sender has agreed to."""
        return self._receiver.has_copy

    @property
    def is_finished(self) -> bool:
        """Whether the sender said that it is done."""
        return self._receiver.is_finished

    @property
    def follows(self) -> bool:
        """Whether the sender continues until it is stopped."""
        return self._receiver.follows

    @property
    def is_one_way(self) -> bool:
        return self._receiver.is_one_way

    def stop(self) -> None:
        """End soon, with everything that arrived whole durable."""
        self._ending.set()

    def run(self) -> None:
        """Receive until the sender is done, or until `stop`.

        Raises:
            MirrortoolError: why it ended before; the sender was told.
        """
        try:
            while not (self._ending.is_set() or self._receiver.is_finished):
                self._step()
        except MirrortoolError as error:
            if self._may_answer and not self._receiver.is_one_way:
                with suppress(LinkError):
                    self._stream.send(refusal(error))
            raise
        finally:
            self._receiver.close()

    def _step(self) -> None:
        message = self._stream.receive(0)
        if message is None:
            self._say(self._receiver.make_durable())  # before waiting
            message = self._stream.receive(_WAIT_SECONDS)
        if message:
            self._may_answer = True
            self._handle(message)
        elif clock.monotonic() - self._stream.heard_at > self._silence_seconds and not self._receiver.is_one_way:
            raise LinkError(f"the sender was silent for {self._silence_seconds:.0f} seconds")
        self._keep_alive()

    def _handle(self, message: Message) -> None:
        told_at = None
        while not self._ending.is_set():
            try:
                replies = self._receiver.handle(message)
                break
            except NoSpaceError as error:
                if (
                    message.kind not in (MessageKind.DATA, MessageKind.PART)
                    or self._receiver.is_one_way
                    or self._stream.has_ended
                ):
                    raise  # the sender would not hear that there is room again
                if told_at is None or clock.monotonic() - told_at >= ALIVE_SECONDS:
                    self._say([*self._receiver.make_durable(), problem(error)])
                    told_at = clock.monotonic()
                self._ending.wait(_RETRY_SECONDS)
        else:
            return
        self._say([problem(None), *replies] if told_at is not None else replies)

    def _keep_alive(self) -> None:
        is_quiet = clock.monotonic() - self._stream.said_at >= ALIVE_SECONDS
        if is_quiet and self._may_answer and not self._receiver.is_one_way:
            self._stream.send(Message(MessageKind.ALIVE, {}))

    def _say(self, replies: list[Message]) -> None:
        for reply in replies:
            self._stream.send(reply)
