"""Another user of this host, for tests that run as root: what he can do with files."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


def as_other_user(action: Callable[[], Any], groups: Iterable[int] = ()) -> Any:
    """What `action` returns, which JSON can hold, when a process of another user's does it.

    Nothing is imported there: the tests may lie where only root can read.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads; the child calls only the system
        child = os.fork()
    if not child:
        try:
            os.setgroups(list(groups))
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(writer, json.dumps(action()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as result:
        answer = result.read()
    os.waitpid(child, 0)
    assert answer, "the other user's process failed"
    return json.loads(answer)


def can_open(path: Path, *, write: bool = False) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR if write else os.O_RDONLY))
    except PermissionError:
        return False
    return True


def can_lock(path: Path, *, exclusive: bool) -> bool:
    """Whether this process can lock a file against others, as fcntl(2) has it; the lock is given back."""
    try:
        descriptor = os.open(path, os.O_RDWR if exclusive else os.O_RDONLY)
    except PermissionError:
        return False
    try:
        kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(descriptor)
    return True
