"""The process that uses a journal, copy or mirror: the holder of a lock file writes into it what it does.

Rule: the lock says whether there is such a process, the bytes say which one. The bytes count only while the file is
locked exclusively, and only if the process that they name runs in this boot, can be seen from here, and was started
when they say: so what a killed process left is not believed of another. A holder erases the bytes before it releases
the lock.
Rule: a holder that was killed may have replaced a small file and not made its new name durable. The next holder reads
the new file, and relies on it; so what lies beside the lock is made durable first.

Version 0.1.0 writes nothing into the file; then it is known that a process runs, but not which one.
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
        since_ns: when it acquired the lock; None if that is not known.
    """

    doing: str | None = None
    pid: int | None = None
    since_ns: int | None = None


def hold(path: str, what: str, doing: str) -> File:
    """Open a lock file, create it if it does not exist, and hold its lock until the returned file is closed.

    Args:
        doing: what this process says that it does; see Worker.
    Raises:
        LockedError: another process holds it; the message says that `what` is in use.
    """
    file = files.open_locked(path, what)
    try:
        files.sync_name(path)
        if file.length() <= _NOTE_BYTES:  # else the name leads to a file that is not ours, and must not be written
            file.scribble(json.dumps(_introduction(doing)).encode().ljust(_NOTE_BYTES))
    except BaseException:
        file.close()
        raise
    return file


def hold_beside(directory: str, name: str, doing: str) -> File:
    """Hold `DIRECTORY/NAME.lock`, which stops no other work: it says that a process is running, also between its turns.

    Raises:
        LockedError: another process holds it.
        HostError: the directory does not exist, or cannot be written.
    """
    return hold(beside(directory, name), f"the place of the {name}", doing)


def beside(directory: str, name: str) -> str:
    """The path of the lock file that `hold_beside` holds."""
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
    """The process that holds a lock file; None if none does.

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
    """The process that the bytes of a held lock file name; one with nothing known if they cannot be believed."""
    try:
        values = json.loads(note)
        doing, pid, since_ns = str(values["doing"]), int(values["pid"]), int(values["since_ns"])
        claimed = values["started"], values["boot_id"], values["namespace"]
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):  # JSON has infinite numbers
        return Worker()
    started = hostinfo.start_of_process(pid)
    is_known = started is not None and claimed == (started, hostinfo.boot_id(), hostinfo.pid_namespace())
    return Worker(doing, pid, since_ns) if is_known else Worker()
