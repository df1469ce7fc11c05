"""A sender and a receiver in this process, joined by a socket pair, with faults between them."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mirrortool.errors import MirrortoolError
from mirrortool.journal.directory import Journal
from mirrortool.ship.destination import Destination
from mirrortool.ship.link import Link, StreamLink
from mirrortool.ship.messagestream import Stream
from mirrortool.ship.protocol import Decoder, Message, MessageKind
from mirrortool.ship.receiverprocess import ReceiverProcess
from mirrortool.ship.sender import Shipment
from mirrortool.ship.shipoptions import ShipOptions


class SocketLink(StreamLink):
    """A link over a socket that the test owns; closing it closes the socket."""

    def __init__(self, ours: socket.socket, on_reply: Callable[[], None], done: Callable[[], None]) -> None:
        self._socket, self._done = ours, done
        super().__init__(Stream(ours.fileno(), ours.fileno()), on_reply)

    def close(self) -> None:
        super().close()
        self._done()
        self._socket.close()

    def abort(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


@dataclass
class Cable:
    """Carries bytes between two sockets, and breaks after a number of bytes in either direction.

    Attributes:
        breaks_at: bytes to the receiver after which it breaks; None for never.
        answers_break_at: the same of bytes to the sender.
        carried: to the receiver, over all connections.
        acknowledged: each position that got through to the sender.
        errors: what ended receivers.
    """

    path: str
    breaks_at: int | None = None
    answers_break_at: int | None = None
    carried: int = 0
    answered: int = 0
    acknowledged: list[dict[str, Any]] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    on_acknowledged: Callable[[dict[str, Any]], None] = lambda _: None

    def connect(self, wake: Callable[[], None]) -> Link:
        """Start a receiver, and a link to it."""
        near, near_end = socket.socketpair()
        far, far_end = socket.socketpair()
        serve = ReceiverProcess(self.path, Stream(far.fileno(), far.fileno()))
        threads = [
            threading.Thread(target=self._serve, args=(serve, far), daemon=True),
            threading.Thread(target=self._carry, args=(near_end, far_end, "to"), daemon=True),
            threading.Thread(target=self._carry, args=(far_end, near_end, "from"), daemon=True),
        ]
        for thread in threads:
            thread.start()

        def done() -> None:
            for end in (near_end, far_end, far):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(20)
                assert not thread.is_alive()
            for end in (near_end, far_end, far):
                end.close()

        return SocketLink(near, wake, done)

    def _serve(self, serve: ReceiverProcess, far: socket.socket) -> None:
        try:
            serve.run()
        except MirrortoolError as error:
            self.errors.append(error)
        except BaseException as error:  # a bug: the test looks
            self.errors.append(error)
        finally:
            with suppress(OSError):
                far.shutdown(socket.SHUT_RDWR)

    def _carry(self, source: socket.socket, target: socket.socket, way: str) -> None:
        decoder = Decoder()
        with suppress(OSError):
            while data := source.recv(65536):
                data = self._let_through(data, way)
                if way == "from":
                    self._look(decoder, data)
                target.sendall(data)
                if self._is_broken(way):
                    break
        both = socket.SHUT_RDWR
        ends = (both, both) if self._is_broken(way) else (socket.SHUT_RD, socket.SHUT_WR)  # what comes back still does
        for each, how in zip((source, target), ends, strict=True):
            with suppress(OSError):
                each.shutdown(how)

    def _let_through(self, data: bytes, way: str) -> bytes:
        limit = self.breaks_at if way == "to" else self.answers_break_at
        done = self.carried if way == "to" else self.answered
        if limit is not None:
            data = data[: max(0, limit - done)]
        if way == "to":
            self.carried += len(data)
        else:
            self.answered += len(data)
        return data

    def _is_broken(self, way: str) -> bool:
        limit, done = (self.breaks_at, self.carried) if way == "to" else (self.answers_break_at, self.answered)
        return limit is not None and done >= limit

    def _look(self, decoder: Decoder, data: bytes) -> None:
        while data:
            room = decoder.room()
            count = min(len(room), len(data))
            room[:count] = data[:count]
            data = data[count:]
            message = decoder.received(count)
            if message and message.kind == MessageKind.ACK:
                self.acknowledged.append(message.values["position"])
                self.on_acknowledged(message.values["position"])


def shipment(journal: Journal | str, cable: Cable, **options: Any) -> Shipment:
    """To the far end of a cable."""
    path = journal if isinstance(journal, str) else journal.path
    where = Destination(f"far:{cable.path}")
    return Shipment(path, where, ShipOptions(**options), cable.connect)


def files_of(path: Path | str) -> dict[str, bytes]:
    """The journal files, by name."""
    return {each.name: each.read_bytes() for each in sorted(Path(path, "files").iterdir())}


def assert_same(journal: Journal | Path | str, copy: Path | str) -> None:
    """The copy's files are the journal's, byte for byte."""
    path = journal.path if isinstance(journal, Journal) else journal
    ours, theirs = files_of(path), files_of(copy)
    assert list(ours) == list(theirs)
    for name in ours:
        assert ours[name] == theirs[name], name


def assert_is_prefix(journal: Journal | Path | str, copy: Path | str) -> None:
    """Every byte of the copy's files is the journal's, from the start of each."""
    if not os.path.isdir(os.path.join(str(copy), "files")):
        return
    path = journal.path if isinstance(journal, Journal) else journal
    ours = files_of(path)
    for name, data in files_of(copy).items():
        assert ours[name][: len(data)] == data, name


def counted(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[None]:
    """A list that becomes longer with each call of a method, which is called all the same."""
    calls: list[None] = []
    real = getattr(owner, name)

    def call(*args: Any, **options: Any) -> Any:
        calls.append(None)
        return real(*args, **options)

    monkeypatch.setattr(owner, name, call)
    return calls


@contextmanager
def running(run: Callable[[], object], stop: Callable[[], None]) -> Iterator[list[BaseException]]:
    """Run in a thread inside the block; afterwards stopped, and its errors are in the list."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            run()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield errors
    finally:
        stop()
        thread.join(30)
        assert not thread.is_alive()


def messages(*each: Message) -> bytes:
    """Messages as one string of bytes."""
    from mirrortool.ship.protocol import encode

    return b"".join(bytes(part) for message in each for part in encode(message))


class FlippingCable(Cable):
    """Flips a bit of one byte on the way to the receiver, and breaks a little later."""

    def __init__(self, path: str, at: int) -> None:
        super().__init__(path)
        self._at = at
        self.breaks_at = at + 400

    def _let_through(self, data: bytes, way: str) -> bytes:
        start = self.carried
        data = super()._let_through(data, way)
        if way == "to" and start <= self._at < start + len(data):
            flipped = bytearray(data)
            flipped[self._at - start] ^= 4
            return bytes(flipped)
        return data
