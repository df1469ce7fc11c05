"""A connection to a server: many requests in flight, from many threads.

Callers send, one at a time, and wait for their answers; a thread of the connection receives all of them, and is also
the one that notices when none come. A connection that is lost stays lost: nothing is sent again.

Rule: a connection is *over* when nothing that was sent on it can be carried out any more: every request was answered,
or the server has ended it. Only then may another one write there, or a late request would land over newer data. Until
then it only listens.
Rule: so a connection with unanswered requests is not ended from here before the server was given the time to answer.
Bound: UNANSWERED_MAX requests; what callers hold of them.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator, Sequence
from itertools import count, islice

from mirrortool import clock
from mirrortool.errors import MirrortoolError, ServerError
from mirrortool.nbd import protocol as nbd
from mirrortool.nbd.channel import EndOfStreamError
from mirrortool.nbd.clientchannel import BUFFERS_MAX, ClientChannel
from mirrortool.nbd.clienthandshake import Agreed
from mirrortool.nbd.clientreplies import NbdRequest, ReplyReader
from mirrortool.nbd.protocol import Command, ProtocolError

UNANSWERED_MAX = 512
ANSWER_SECONDS = 120.0
"""With requests unanswered, and none answered for that long, the server is taken for dead."""
FLUSH_SECONDS = 1800.0
"""The same while a FLUSH is among them: a slow disk may have much to write, and says nothing meanwhile."""
OVER_SECONDS = 10.0
"""How long a connection that is given up is waited for until it is over."""
GOODBYE_SECONDS = 1.0
_SEND_BYTES = 1 << 20
_SEND_REQUESTS = 64


class Call:
    """Requests that a caller waits for together.

    Attributes:
        failed: the first of them that the server refused.
    """

    __slots__ = ("_left", "_over", "failed")

    def __init__(self, number: int) -> None:
        # Only the connection's thread counts; the caller waits at _over.
        self._left = number
        self._over = threading.Event()
        self.failed: NbdRequest | None = None

    def answered(self, request: NbdRequest) -> None:
        """For the connection's thread."""
        if request.error and self.failed is None:
            self.failed = request
        self._left -= 1
        if not self._left:
            self._over.set()

    def give_up(self) -> None:
        """For the connection's thread: no more answers come."""
        self._over.set()

    def wait(self) -> bool:
        """Wait for all answers; whether they came."""
        self._over.wait()
        return not self._left


class ClientConnection:
    """One connection. `start` begins it; `call`, `begin` and `finish` are for any thread."""

    def __init__(self, channel: ClientChannel, agreed: Agreed, where: object) -> None:
        self.agreed = agreed
        self._channel = channel
        self._where = where
        self._replies = ReplyReader(is_structured=agreed.is_structured, context_id=agreed.context_id)
        self._cookies = count(1)
        # Held while requests are put in _calls and sent, so that each goes out whole; a sender that waits for room
        # holds it, too. Inside it only _room is taken. Ends with the connection: sends fail, and waits end.
        self._sending = threading.Lock()
        # Guards _is_waiting and _calls: that a thread waits for answers to come, of whatever call, and the calls that
        # wait for their own.
        self._room = threading.Condition(threading.Lock())
        self._is_waiting = False
        self._calls: set[Call] = set()
        self._lost: ServerError | None = None  # set once, by the connection's thread; the first reason
        self._is_ended = threading.Event()  # the server has ended the connection, or the channel is dead
        self._answered_at = clock.monotonic()  # or when the first of those that are unanswered was sent
        self._is_mute = False  # guarded by _sending: a send failed in the middle, so nothing may follow it
        self._thread = threading.Thread(target=self._receive, name="mirrortool-nbd", daemon=True)

    def start(self) -> None:
        """From now on it is used."""
        self._channel.no_deadline(min(5.0, ANSWER_SECONDS / 4), ANSWER_SECONDS)
        self._thread.start()

    @property
    def unanswered(self) -> int:
        """How many requests are; from any thread."""
        return len(self._replies.unanswered)

    @property
    def is_over(self) -> bool:
        """Whether nothing that was sent can be carried out any more."""
        return self._is_ended.is_set() or not self._replies.unanswered

    def call(self, requests: Sequence[NbdRequest], call: Call) -> None:
        """Send requests and wait for the answers.

        Raises:
            ServerError: the connection is lost.
        """
        self.begin(requests, call)
        self.finish(call)

    def begin(self, requests: Sequence[NbdRequest], call: Call) -> None:
        """Send requests, whose `on_done` is the call's; `finish` must follow.

        Raises:
            ServerError: the connection is lost; some of them may have been sent.
        """
        with self._room:
            self._require()
            self._calls.add(call)
        todo = iter(requests)
        with self._sending:
            while not self._is_mute and (part := list(islice(todo, _SEND_REQUESTS))):
                self._wait_for_room(len(part))
                try:
                    self._send(part)
                except OSError:
                    self._is_mute = True  # the thread that receives finds out why, and ends the calls

    def finish(self, call: Call) -> None:
        """Wait for the answers.

        Raises:
            ServerError: the connection is lost.
        """
        is_answered = call.wait()
        with self._room:
            self._calls.discard(call)
        if not is_answered:
            self._require()
            raise AssertionError("a call ends with its answers, or with the connection")

    def close(self, until: float) -> bool:
        """End the connection, or, where requests are unanswered, wait until it is over; whether it is.

        Args:
            until: as clock.monotonic has it; it is not waited for longer.
        """
        with self._room:
            while not self.is_over and (remaining := until - clock.monotonic()) > 0:
                self._is_waiting = True
                self._room.wait(remaining)
        if not self.is_over:
            return False
        self._say_goodbye()
        return True

    def abandon(self) -> None:
        """End it although it is not over."""
        self._channel.abort()
        self._thread.join(GOODBYE_SECONDS)
        self._channel.close()

    def _say_goodbye(self) -> None:
        if not self._is_ended.is_set():
            with self._sending, contextlib.suppress(OSError):
                if not self._is_mute:
                    self._channel.send([_header(NbdRequest(Command.DISC, 0, 0, lambda _: None), 0)])
            self._channel.finish_sending()
            self._is_ended.wait(GOODBYE_SECONDS)
        self.abandon()

    def _require(self) -> None:
        if self._lost:
            raise ServerError(self._lost.what, where=self._lost.where, remedy=self._lost.remedy)

    def _wait_for_room(self, number: int) -> None:
        with self._room:
            while len(self._replies.unanswered) + number > UNANSWERED_MAX and not self._lost:
                self._is_waiting = True
                self._room.wait()
            self._require()

    def _send(self, requests: Sequence[NbdRequest]) -> None:
        """Send a few requests, each with its data, in as few calls as that needs."""
        unanswered = self._replies.unanswered
        if not unanswered:
            self._answered_at = clock.monotonic()
        buffers: list[bytes | memoryview] = []
        waiting = 0
        for request in requests:
            cookie = next(self._cookies)
            unanswered[cookie] = request
            parts: list[bytes | memoryview] = [_header(request, cookie), *request.data]
            for buffer in parts:
                if len(buffers) == BUFFERS_MAX or waiting + len(buffer) > _SEND_BYTES:
                    if buffers:
                        self._channel.send(buffers)
                    buffers, waiting = [], 0
                buffers.append(buffer)
                waiting += len(buffer)
            request.data = ()
        self._channel.send(buffers)

    def _receive(self) -> None:
        try:
            self._receive_answers()
        except BaseException as error:  # of the connection's thread nobody else hears
            self._lose(error)
        finally:
            self._is_ended.set()
            self._make_room()

    def _receive_answers(self) -> None:
        """Receive until the server ends the connection; after it is lost only to learn when it is over."""
        replies = self._replies
        while True:
            try:
                got = self._channel.receive_into(replies.target())
            except TimeoutError:
                self._look_at_clock()
                continue
            if not got:
                raise EndOfStreamError
            before = replies.answered
            try:
                replies.received(got)
            except ProtocolError as error:
                self._lose(error)
                self._channel.finish_sending()
                self._skip_all()
                raise EndOfStreamError from None
            if replies.answered != before:
                self._answered_at = clock.monotonic()
                if self._is_waiting:
                    self._make_room()
            elif self._lost is None:
                self._look_at_clock()

    def _skip_all(self) -> None:
        """What comes cannot be read any more: drop it until the server ends the connection."""
        view = memoryview(bytearray(64 << 10))
        while True:
            try:
                if not self._channel.receive_into(view):
                    return
            except TimeoutError:
                continue

    def _look_at_clock(self) -> None:
        waited = clock.monotonic() - self._answered_at
        if not self._replies.unanswered or waited <= ANSWER_SECONDS:
            return
        # A copy, as senders add to it.
        is_flushing = any(each.command == Command.FLUSH for each in list(self._replies.unanswered.values()))
        if not is_flushing or waited > FLUSH_SECONDS:
            self._lose(TimeoutError())

    def _make_room(self) -> None:
        with self._room:
            self._is_waiting = False
            self._room.notify_all()

    def _lose(self, error: BaseException) -> None:
        """The connection is lost: every call ends with the reason."""
        with self._room:
            if self._lost is None:
                self._lost = self._why_lost(error)
            self._replies.discard()
            for call in self._calls:
                call.give_up()
            self._room.notify_all()

    def _why_lost(self, error: BaseException) -> ServerError:
        what, remedy = why_lost(error)
        return ServerError(what, where=self._where, remedy=remedy)


def why_lost(error: BaseException) -> tuple[str, str]:
    """What went wrong with a connection, and the remedy."""
    again = "run the command again when the server is back"
    if isinstance(error, MirrortoolError):
        return error.what, error.remedy or again
    if isinstance(error, ProtocolError):
        return f"the server does not keep to the NBD protocol: {error}", "use another server, or another version of it"
    if isinstance(error, (EndOfStreamError, ConnectionResetError, BrokenPipeError)):
        return "the server has ended the connection", again
    if isinstance(error, TimeoutError):
        return "the server does not answer", "end its connection at the server, or restart that; then run this again"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS failed: {error.verify_message}", "check the certificates, and the name that the URI has"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}", "check the certificates on both sides"
    if isinstance(error, OSError):
        return f"the connection failed: {error.strerror or error}", again
    return f"unexpected {type(error).__name__}: {error}", "report this"


def each_at_most(offset: int, length: int, most: int) -> Iterator[tuple[int, int]]:
    """A range of bytes as ranges of `most` bytes: (offset, length) each."""
    for start in range(offset, offset + length, most):
        yield start, min(most, offset + length - start)


def _header(request: NbdRequest, cookie: int) -> bytes:
    cookie_bytes = cookie.to_bytes(8, "big")
    return nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, request.command, cookie_bytes, request.offset, request.length)
