"""A local link, to a copy in a directory of this host: its receiver runs in the session's thread, without a stream.

Frames are checked once, as they are read from the journal, and written from the same memory.
Rule: a full disk is a state, not an error: the frames that did not fit are kept, and tried again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from mirrortool import clock
from mirrortool.errors import LinkError, MirrortoolError, NoSpaceError
from mirrortool.ship.protocol import Message, MessageKind
from mirrortool.ship.receiver import Receiver, problem, refusal

_RETRY_SECONDS = 1.0


class LocalLink:
    """A link to a directory."""

    is_one_way = False

    def __init__(self, path: str) -> None:
        self._receiver = Receiver(path)
        # In the order in which the receiver gave them; used by one session.
        self._replies: deque[Message] = deque()
        self._held: Message | None = None
        self._tried_at = 0.0
        self._is_closed = False

    def send(self, message: Message, meanwhile: Callable[[], None]) -> None:
        if self._is_closed:
            raise LinkError("the receiver has ended")
        if self._held is None:
            self._handle(message)
        else:
            assert message.kind not in (MessageKind.DATA, MessageKind.PART), (
                "while frames wait for room, no others are sent"
            )

    def receive(self, seconds: float) -> Message | None:
        if self._held and clock.monotonic() - self._tried_at >= _RETRY_SECONDS:
            self._handle(self._held)
        return self._replies.popleft() if self._replies else None

    def flush(self) -> None:
        if not self._is_closed:
            self._do(self._receiver.make_durable)

    def close(self) -> None:
        self._is_closed = True
        self._receiver.close()

    def _handle(self, message: Message) -> None:
        self._tried_at = clock.monotonic()
        try:
            self._do(lambda: self._receiver.handle(message))
        except NoSpaceError as error:
            if message.kind not in (MessageKind.DATA, MessageKind.PART):
                self._refuse(error)
                return
            if self._held is None:
                self._replies.append(problem(error))
            self._held = message
            return
        if self._held:
            self._held = None
            self._replies.append(problem(None))

    def _do(self, work: Callable[[], list[Message]]) -> None:
        try:
            self._replies.extend(work())
        except NoSpaceError:
            raise
        except MirrortoolError as error:
            self._refuse(error)

    def _refuse(self, error: MirrortoolError) -> None:
        self._is_closed = True
        self._replies.append(refusal(error))
