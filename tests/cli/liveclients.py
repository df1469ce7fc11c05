"""Clients of a live recording that a command serves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mirrortool.nbd.protocol import Command
from mirrortool.sockets.addresses import UnixAddress
from tests.fakes.live import LiveRecorder
from tests.nbd.wire import Client


@contextlib.contextmanager
def client_of(live: LiveRecorder, name: str = "disk") -> Iterator[Client]:
    with Client(UnixAddress(str(live.socket))) as client:
        client.go(name)
        yield client


def put(client: Client, offset: int, data: bytes, flags: int = 0) -> int:
    """Write; the error."""
    return client.do(Command.WRITE, offset, len(data), flags, data).error


def get(client: Client, offset: int, length: int) -> bytes:
    assert client.do(Command.READ, offset, length).error == 0
    return client.receive(length)
