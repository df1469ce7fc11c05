"""Pipes and the sockets of a link, by descriptor: waiting for them, reading and writing without blocking.

Errors leave as HostError (errors.host_error).
Not here: the sockets of NBD clients (nbd/channel.py), and what any byte means.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
from collections.abc import Sequence

from mirrortool.errors import host_error
from mirrortool.files import Buffer, remainder_of


def wait_readable(descriptor: int, seconds: float) -> bool:
    """Whether a pipe or socket has bytes, or has ended, within this many seconds."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def has_writer(descriptor: int) -> bool:
    """Whether somebody can still write into a pipe or socket that we read; what was written before does not matter."""
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    return not poll.poll(0)


def read_pipe(descriptor: int, view: memoryview) -> int:
    """Put what is there in a pipe or socket, or else the next that comes, at the start of `view`; 0 at its end."""
    try:
        return os.readv(descriptor, [view])
    except OSError as error:
        raise host_error(error, None, "read what arrives") from error


def write_pipe(descriptor: int, buffers: Sequence[Buffer]) -> Sequence[Buffer]:
    """Write what a pipe or socket takes now, or, if it blocks, all; returns the remainder."""
    try:
        written = os.writev(descriptor, buffers)
    except BlockingIOError:
        return buffers
    except OSError as error:
        raise host_error(error, None, "send") from error
    return remainder_of([memoryview(buffer) for buffer in buffers], written)


def wait_writable(descriptor: int, seconds: float) -> bool:
    """Whether a pipe or socket takes bytes, or has no reader, within this many seconds."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))


def unblock(descriptor: int) -> None:
    """Let no write to a pipe or socket wait by itself."""
    os.set_blocking(descriptor, False)


def widen_pipe(descriptor: int, length: int) -> None:
    """Let a pipe hold this many bytes, as far as the system allows it."""
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, length)
