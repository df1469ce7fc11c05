"""The control socket: what a client sends to a recorder, and what a recorder, or whatever is in its place, answers."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from mirrortool.errors import NotComparableError
from mirrortool.record import controlsocket
from mirrortool.record.controlsocket import ControlSocket
from mirrortool.record.mark import mark
from tests.fuzz import jsontexts

MODULES = ("mirrortool.record.controlsocket",)
BYTES_MAX = 2048
TOKENS = (b'{"request": "status"}\n', b'"mark"', b'"name"', b'"error"', b'"exit_code"', b"1e400", b"[[[[[[[[", b"\n")


class NotASocket:
    """A peer that sends what it was given, in pieces, and reads everything."""

    def __init__(self, data: bytes, piece: int) -> None:
        self._data, self._at, self._piece = data, 0, piece
        self.sent: list[bytes] = []

    def __enter__(self) -> NotASocket:
        return self

    def __exit__(self, *exc: object) -> None:
        return

    def recv(self, length: int) -> bytes:
        data = self._data[self._at : self._at + min(length, self._piece)]
        self._at += len(data)
        return data

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0

    def connect(self, _path: str) -> None:
        return


def fuzz_one(data: bytes) -> None:
    if data:
        peer = NotASocket(data[1:], (1 << 16, 1, 9, 100)[data[0] >> 1 & 3])
        if data[0] & 1:
            _ask(peer, is_mark=bool(data[0] & 8))
        else:
            _serve(peer)


def _serve(peer: NotASocket) -> None:
    served = ControlSocket.__new__(ControlSocket)
    served._handlers = {"status": lambda _: {"state": "recording"}, "mark": _mark}
    waiting = iter([(peer, "peer"), None])
    served._listener = SimpleNamespace(accept=lambda: next(waiting))  # type: ignore[assignment]
    served._run()
    for answer in peer.sent:
        assert answer.endswith(b"\n") and isinstance(json.loads(answer), dict)


def _mark(request: Mapping[str, Any]) -> Mapping[str, object]:
    if request.get("name") == "later":
        raise NotComparableError("not yet")
    return {"lsn": 1, "chain": "0"}


def _ask(peer: NotASocket, is_mark: bool) -> None:
    whole = controlsocket.socket
    controlsocket.socket = SimpleNamespace(  # type: ignore[assignment]
        socket=lambda *_: peer, AF_UNIX=socket.AF_UNIX, SOCK_STREAM=socket.SOCK_STREAM
    )
    try:
        if is_mark:
            mark("/nowhere", "nightly")
        else:
            answer = controlsocket.ask("/nowhere", {"request": "status"})
            assert answer is None or isinstance(answer, dict)
    finally:
        controlsocket.socket = whole


def seeds() -> Iterator[bytes]:
    for way in (b"\0", b"\2", b"\4"):
        yield (
            way
            + b'{"request": "status"}\n{"request": "mark", "name": "nightly"}\n{"request": "mark", "name": "later"}\n'
        )
    yield b'\0{"request": 5}\nnothing\n'
    yield b'\1{"lsn": 812, "chain": "0011"}\n'
    yield b'\x09{"lsn": 812, "chain": "0011"}\n'
    yield b'\3{"error": "the journal is full", "exit_code": 3}\n'


def mutate(data: bytes, bytes_max: int, chance: random.Random, libfuzzer: Callable[[bytes, int], bytes]) -> bytes:
    if not data or chance.randrange(3) == 0:
        return bytes(libfuzzer(data, bytes_max))
    lines = data[1:].split(b"\n")
    at = chance.randrange(len(lines))
    lines[at] = jsontexts.mutate(lines[at], chance) if chance.randrange(64) else jsontexts.nested(chance)
    return data[:1] + b"\n".join(lines)
