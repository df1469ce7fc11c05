"""The process that uses a journal, copy or mirror: what the holder of a lock file says of itself in that file.

Rule: the lock says whether there is one, the bytes say which. They count only while the file is locked exclusively, and
only if the process that they name runs in this boot, can be seen from here, and was started when they say: so nothing
that a process left when it was killed passes for another. A holder that releases the lock wipes them first.

A holder of version 0.1.0 says nothing; then it is known that a process runs, and not which.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from mirrortool import clock, files, hostinfo
from mirrortool.files import File

_NOTE_BYTES = 256


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that holds a lock.

    Attributes:
        doing: `record`, `scan`, `mark`, `receive`, `ship`, `replay`, `follow` or `promote`; None if that is not known.
        pid: None if that is not known.
        since_ns: when it took the lock; None if that is not known.
    """

    doing: str | None = None
    pid: int | None = None
    since_ns: int | None = None


def hold(path: str, what: str, doing: str) -> File:
    """Open a lock file, made if it is not there, and hold its lock until the returned file is closed.

    Args:
        doing: what this process says that it does; see Worker.
    Raises:
        LockedError: somebody else holds it; the message says that `what` is in use.
    """
    file = files.open_locked(path, what)
    if file.length() > _NOTE_BYTES:  # by another name somebody else's file: it can be locked, but not written
        return file
    file.scribble(json.dumps(_introduction(doing)).encode().ljust(_NOTE_BYTES))
    return file


def hold_beside(directory: str, name: str, doing: str) -> File:
    """Hold `DIRECTORY/NAME.lock`, which keeps nobody from anything: it says that a process is there between its turns.

    Raises:
        LockedError: another one is, too.
        HostError: there is no such directory, or it cannot be written.
    """
    return hold(beside(directory, name), f"the place of the {name}", doing)


def beside(directory: str, name: str) -> str:
    """Where the lock file is that `hold_beside` holds."""
    return files.join(directory, f"{name}.lock")


def _introduction(doing: str) -> dict[str, object]:
    pid = hostinfo.process_id()
    return {
        "doing": doing,
        "pid": pid,
        "since_ns": clock.now_ns(),
        "started": hostinfo.start_of_process(pid),
        "boot_id": hostinfo.boot_id(),
        "namespace": hostinfo.pid_namespace(),
    }


def find_worker(path: str) -> Worker | None:
    """The holder of a lock file; None if there is none.

    Raises:
        AccessError: this user may not ask.
    """
    if not files.exists(path):
        return None
    with files.open_file(path, follow=False) as file:
        if not file.is_locked():
            return None
        return _introduced(file.pread(_NOTE_BYTES, 0))


def _introduced(note: bytes) -> Worker:
    """The process that the bytes of a held lock speak of, if they can be believed."""
    try:
        values = json.loads(note)
        doing, pid, since_ns = str(values["doing"]), int(values["pid"]), int(values["since_ns"])
        claimed = values["started"], values["boot_id"], values["namespace"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return Worker()
    started = hostinfo.start_of_process(pid)
    is_known = started is not None and claimed == (started, hostinfo.boot_id(), hostinfo.pid_namespace())
    return Worker(doing, pid, since_ns) if is_known else Worker()
