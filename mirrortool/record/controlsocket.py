"""The control socket of a running recorder, for other processes: `JOURNAL/control.sock`, for its own user alone.

A client sends JSON objects, one a line, and gets one for each (mirrortool-journal(5), "control.sock"):

    {"request": "status"}                   what `Recorder.statistics` and the NBD server's say
    {"request": "mark", "name": "nightly"}  {"lsn": 812, "chain": "..."}, when the mark is durable
    anything else, or what fails            {"error": "...", "exit_code": 3}

One thread serves one client at a time; a client that says nothing for CLIENT_SECONDS is disconnected.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mirrortool import clock, files
from mirrortool.errors import EXIT_CODE_MAX, HostError, LockedError, MirrortoolError
from mirrortool.lockholder import Worker, find_worker
from mirrortool.sockets.addresses import UNIX_PATH_BYTES_MAX, UnixAddress
from mirrortool.sockets.listener import Listener, SocketAccess

CLIENT_SECONDS = 5.0
ANSWER_SECONDS = 5.0
"""A client waits no longer: a recorder that hangs must not make the client hang that asks for its status."""
LINE_BYTES_MAX = 64 << 10

Answer = Mapping[str, object]
Handler = Callable[[Mapping[str, Any]], Answer]


class ControlSocket:
    """Listens inside its `with` block."""

    def __init__(self, journal_path: str, handlers: Mapping[str, Handler]) -> None:
        """Listen.

        Args:
            handlers: by request; called in the socket's thread, with the request's object.
        Raises:
            MirrortoolError: the socket cannot be made.
        """
        self._handlers = handlers
        with contextlib.ExitStack() as opening:
            address = opening.enter_context(_address(journal_path))
            self._listener = Listener(address, SocketAccess())
            self._opened = opening.pop_all()
        self._thread = threading.Thread(target=self._run, name="mirrortool-control", daemon=True)

    def __enter__(self) -> ControlSocket:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.stop()
        self._thread.join()
        self._listener.close()
        self._opened.close()

    def _run(self) -> None:
        while True:
            try:
                accepted = self._listener.accept()
            except OSError:  # such as no descriptors left; the client will ask again
                continue
            if accepted is None:
                return
            with accepted[0] as client, contextlib.suppress(OSError):
                client.settimeout(CLIENT_SECONDS)
                for line in _lines(client):
                    client.sendall(json.dumps(self._answer(line)).encode() + b"\n")

    def _answer(self, line: bytes) -> Answer:
        try:
            request = json.loads(line)
            handler = self._handlers[request["request"]]
        except (ValueError, LookupError, TypeError, RecursionError):
            return {"error": "no request that a recorder knows", "exit_code": 2}
        try:
            return handler(request)
        except MirrortoolError as error:
            return {"error": str(error), "exit_code": error.exit_code}


def ask(journal_path: str, request: Mapping[str, object]) -> dict[str, Any] | None:
    """Ask the recorder of a journal; None if none is running, or it has no control socket, or none for this user.

    Raises:
        LockedError: one is running, and does not answer.
        MirrortoolError: it refuses, with the exit code that it gives.
    """
    with contextlib.suppress(OSError, ValueError, RecursionError), _address(journal_path) as address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            try:
                server.settimeout(ANSWER_SECONDS)
                server.connect(address.path)
                server.sendall(json.dumps(request).encode() + b"\n")
                answer = json.loads(next(_lines(server, clock.monotonic() + ANSWER_SECONDS), b""))
            except TimeoutError:
                raise _no_answer(journal_path) from None
        if not isinstance(answer, dict):  # whatever listens there is not a recorder
            return None
        if "error" in answer:
            raise _refused(str(answer["error"]), answer.get("exit_code"))
        return answer
    return None


def _no_answer(journal_path: str) -> LockedError:
    worker: Worker | None = None
    with contextlib.suppress(HostError):
        worker = find_worker(files.join(journal_path, "lock"))
    holder = f"a recorder, process {worker.pid}," if worker and worker.pid else "a recorder"
    return LockedError(
        f"{holder} holds the journal and does not answer",
        where=journal_path,
        remedy="it was stopped (SIGSTOP), or its disk hangs: look at the process and at the kernel's log",
    )


def _refused(what: str, exit_code: object) -> _RefusedRequest:
    """A refusal; with an exit code that no error of ours has, it ends as if the journal were in use, which it is."""
    if not isinstance(exit_code, int) or not 1 <= exit_code <= EXIT_CODE_MAX:
        exit_code = LockedError.exit_code
    return _RefusedRequest(what, exit_code)


class _RefusedRequest(MirrortoolError):
    """The recorder refused a request."""

    def __init__(self, what: str, exit_code: int) -> None:
        super().__init__(what)
        self.exit_code = exit_code


@contextlib.contextmanager
def _address(journal_path: str) -> Iterator[UnixAddress]:
    """Where the socket is; through the directory's descriptor if the path is too long for a socket's address."""
    path = files.join(journal_path, "control.sock")
    if len(files.path_bytes(path)) <= UNIX_PATH_BYTES_MAX:
        yield UnixAddress(path)
        return
    with files.open_file(journal_path) as directory:
        yield UnixAddress(f"/proc/self/fd/{directory.fileno()}/control.sock")


def _lines(peer: socket.socket, until: float | None = None) -> Iterator[bytes]:
    """What a peer sends, by the line, until it stops or a line is too long.

    Args:
        until: by when all must have come, on the monotonic clock.
    """
    begun = b""
    while len(begun) <= LINE_BYTES_MAX:
        line, newline, remainder = begun.partition(b"\n")
        if newline:
            begun = remainder
            yield line
            continue
        if until is not None:
            peer.settimeout(max(0.001, until - clock.monotonic()))
        received = peer.recv(LINE_BYTES_MAX)
        if not received:
            return
        begun += received
