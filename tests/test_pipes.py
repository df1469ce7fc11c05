"""A link's pipes and sockets: what is said of them holds with real ones, full, empty, closed and half closed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from mirrortool import pipes
from mirrortool.errors import HostError

Ends = tuple[int, int]


@pytest.fixture(params=["pipe", "socket"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Descriptors to read from and to write to."""
    if request.param == "pipe":
        pair = os.pipe()
    else:
        reading, writing = socket.socketpair()
        pair = reading.detach(), writing.detach()
    yield pair
    for descriptor in pair:
        try:
            os.close(descriptor)
        except OSError:
            continue  # the test closed it


def fill(descriptor: int) -> int:
    """Write until no more goes in; returns the bytes."""
    pipes.unblock(descriptor)
    chunk, count = bytes(1 << 16), 0
    while not (rest := pipes.write_pipe(descriptor, [chunk])):
        count += len(chunk)
    return count + len(chunk) - sum(map(len, rest))


def test_it_is_readable_once_bytes_are_there_or_it_ended(ends: Ends) -> None:
    reading, writing = ends
    assert not pipes.wait_readable(reading, 0)
    assert pipes.write_pipe(writing, [b"a", b"bc"]) == []
    assert pipes.wait_readable(reading, 0)
    room = bytearray(10)
    assert pipes.read_pipe(reading, memoryview(room)) == 3
    assert room[:3] == b"abc"
    assert not pipes.wait_readable(reading, 0)
    os.close(writing)
    assert pipes.wait_readable(reading, 0)
    assert pipes.read_pipe(reading, memoryview(room)) == 0


def test_what_does_not_go_in_is_returned_and_goes_in_later(ends: Ends) -> None:
    reading, writing = ends
    filled = fill(writing)
    assert not pipes.wait_writable(writing, 0)
    assert list(map(bytes, pipes.write_pipe(writing, [b"more", b"still"]))) == [b"more", b"still"]
    got, room = 0, memoryview(bytearray(1 << 20))
    while pipes.wait_readable(reading, 0):
        got += pipes.read_pipe(reading, room)
    assert got == filled
    assert pipes.wait_writable(writing, 0)


def test_a_writer_that_went_is_known_before_its_bytes_are_read(ends: Ends) -> None:
    reading, writing = ends
    pipes.write_pipe(writing, [b"last"])
    assert pipes.has_writer(reading)
    os.close(writing)
    assert not pipes.has_writer(reading)
    room = bytearray(10)
    assert pipes.read_pipe(reading, memoryview(room)) == 4


def test_writing_to_nobody_is_an_error_of_the_host(ends: Ends) -> None:
    reading, writing = ends
    os.close(reading)
    assert pipes.wait_writable(writing, 0)
    with pytest.raises(HostError, match="send"):
        pipes.write_pipe(writing, [b"x"])


def test_a_pipe_is_widened_as_far_as_the_system_allows() -> None:
    reading, writing = os.pipe()
    try:
        pipes.widen_pipe(writing, 1 << 18)
        assert fill(writing) >= 1 << 18
        pipes.widen_pipe(writing, 1 << 30)  # more than anybody may have
    finally:
        os.close(reading)
        os.close(writing)


def test_a_socket_is_not_widened_and_no_error() -> None:
    reading, writing = socket.socketpair()
    with reading, writing:
        pipes.widen_pipe(writing.fileno(), 1 << 18)
