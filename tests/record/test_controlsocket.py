"""The control socket: a running recorder marks and answers, and survives whoever talks to it."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from mirrortool.errors import LockedError, MirrortoolError, NotComparableError, UsageError
from mirrortool.journal.commits import Until, find_commit
from mirrortool.nbd.server import Server
from mirrortool.record import controlsocket
from mirrortool.record.controlsocket import LINE_BYTES_MAX, ControlSocket, ask
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.liverecording import LiveRecording
from mirrortool.record.mark import mark
from mirrortool.record.recorder import Recorder
from tests.fakes.recorders import based, check_everywhere, small_scale
from tests.fakes.volumes import PAGE, Primary, make_primary, pattern

PATIENCE_SECONDS = 60
"""Only a test that fails waits this long."""


@pytest.fixture
def primary(directory: str, monkeypatch: pytest.MonkeyPatch) -> Primary:
    small_scale(monkeypatch)
    return based(make_primary(directory, {"a": pattern(1, 30 * PAGE)}))


class Running:
    """A live recording that runs in a thread; `with` stops it."""

    def __init__(self, primary: Primary) -> None:
        self.primary, self._ready = primary, threading.Event()
        self.recorder = Recorder(primary.journal_path)
        address = f"unix:{primary.directory}/nbd.sock"
        make_server = partial(Server, addresses=[address], on_event=lambda _: None)
        self.recording = LiveRecording(self.recorder, make_server, lambda _: None, lambda _: self._ready.set())
        self._thread = threading.Thread(target=self.recording.run, daemon=True)

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._ready.wait(PATIENCE_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self.recording.stop()
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()

    @property
    def path(self) -> str:
        return os.path.join(self.primary.journal_path, "control.sock")

    def talk(self, data: bytes) -> bytes:
        """Send something and hang up one's side; everything that comes back."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE_SECONDS)
            client.connect(self.path)
            received = b""
            try:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                while more := client.recv(65536):
                    received += more
            except (BrokenPipeError, ConnectionResetError):
                pass
            return received


@pytest.fixture
def running(primary: Primary) -> Iterator[Running]:
    with Running(primary) as running:
        yield running


def test_a_mark_is_durable_when_it_is_answered(running: Running) -> None:
    running.recorder.write("a", 0, b"before the mark")
    position = mark(running.primary.journal_path, "nightly")
    assert running.recorder.statistics().durable_lsn >= position.lsn
    found = find_commit(running.primary.journal, Until(mark="nightly"))
    assert found is not None and found.position == position


def test_a_client_that_says_nothing_keeps_no_other_waiting_for_long(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controlsocket, "CLIENT_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(running.path)
        assert mark(running.primary.journal_path, "nightly").lsn


@pytest.mark.parametrize("name", ["", "1x", "a b", "x" * 65, None, 5, ["x"], {}])
def test_what_is_no_name_is_refused_and_not_in_the_journal(running: Running, name: Any) -> None:
    head = running.recorder.statistics().head_lsn
    for request in ({"request": "mark", "name": name}, {"request": "mark"}):
        with pytest.raises(MirrortoolError) as refused:
            ask(running.primary.journal_path, request)
        assert refused.value.exit_code == UsageError.exit_code
    assert running.recorder.statistics().head_lsn == head


def test_an_incomplete_base_cannot_be_marked(directory: str) -> None:
    primary = make_primary(directory, {"a": pattern(1, 30 * PAGE)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InitialScan, "run", lambda _: None)
        with Running(primary), pytest.raises(MirrortoolError) as refused:
            mark(primary.journal_path, "nightly")
    assert refused.value.exit_code == NotComparableError.exit_code


def test_status_says_how_it_stands(running: Running) -> None:
    running.recorder.write("a", 0, b"x", fua=True)
    answer = ask(running.primary.journal_path, {"request": "status"})
    assert answer is not None
    statistics = running.recorder.statistics()
    assert answer["durable_lsn"] == statistics.durable_lsn == answer["head_lsn"]
    assert answer["incomplete"] == [] and answer["problem"] == ""
    assert json.loads(json.dumps(answer)) == answer


GARBAGE = [
    b"\n",
    b"\0\xff\xfe\n",
    b"{\n",
    b"[]\n",
    b"5\n",
    b'"mark"\n',
    b"null\n",
    b'{"request": null}\n',
    b'{"request": ["mark"]}\n',
    b'{"request": {"mark": 1}}\n',
    b'{"request": "stop"}\n',
    b"[" * 60000 + b"\n",
    b'{"request": ' + b"9" * 5000 + b"}\n",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_answered_with_an_error_and_harms_nobody(running: Running, garbage: bytes) -> None:
    answer = json.loads(running.talk(garbage))
    assert answer["exit_code"] == 2
    assert ask(running.primary.journal_path, {"request": "status"})


@pytest.mark.parametrize("data", [b"", b"no newline", b"x" * (LINE_BYTES_MAX + 2), b"y" * 5 * LINE_BYTES_MAX + b"\n"])
def test_what_is_no_line_is_not_answered(running: Running, data: bytes) -> None:
    assert running.talk(data) == b""
    assert ask(running.primary.journal_path, {"request": "status"})


def test_several_lines_of_one_client_are_answered_in_order(running: Running) -> None:
    answers = running.talk(b'{"request": "status"}\n{"request": "no"}\n{"request": "mark", "name": "m"}\n').splitlines()
    first, second, third = map(json.loads, answers)
    assert "head_lsn" in first and second["exit_code"] == 2 and third["lsn"] > first["head_lsn"]


def test_the_socket_is_its_owners_alone(running: Running) -> None:
    facts = os.stat(running.path)
    assert stat.S_ISSOCK(facts.st_mode) and stat.S_IMODE(facts.st_mode) == 0o600


def test_the_socket_is_gone_after_a_clean_stop(primary: Primary) -> None:
    with Running(primary) as running:
        assert os.path.exists(running.path)
    assert not os.path.exists(running.path)
    assert ask(primary.journal_path, {"request": "status"}) is None
    check_everywhere(primary, primary.contents())


def test_a_long_path_is_no_obstacle(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small_scale(monkeypatch)
    deep = os.path.join(directory, "d" * 100, "e" * 100)
    os.makedirs(deep)
    primary = based(make_primary(deep, {"a": 9 * PAGE}))
    recorder = Recorder(primary.journal_path)
    with recorder, ControlSocket(primary.journal_path, {"status": lambda _: {"lsn": 7}}):
        assert len(primary.journal_path) > 200
        assert stat.S_ISSOCK(os.stat(os.path.join(primary.journal_path, "control.sock")).st_mode)
        assert ask(primary.journal_path, {"request": "status"}) == {"lsn": 7}
    assert not os.path.exists(os.path.join(primary.journal_path, "control.sock"))


class Impostor:
    """Listens where a recorder would, and answers one client with the given bytes."""

    def __init__(self, journal_path: str, answer: bytes) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(os.path.join(journal_path, "control.sock"))
        self._server.listen()
        self._answer = answer
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Impostor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(PATIENCE_SECONDS)
        self._server.close()

    def _run(self) -> None:
        client = self._server.accept()[0]
        with client:
            client.recv(1000)
            client.sendall(self._answer + b"\n")


@pytest.mark.parametrize("answer", [b"[" * 5000, b"5", b"[]", b'["error"]', b"", b"null", b"\xff"])
def test_what_is_no_answer_is_as_if_nobody_listened(primary: Primary, answer: bytes) -> None:
    with Impostor(primary.journal_path, answer):
        assert ask(primary.journal_path, {"request": "status"}) in (None, {})


@pytest.mark.parametrize(
    "code", ["", ', "exit_code": 1e400', ', "exit_code": "x"', ', "exit_code": 0', ', "exit_code": 256']
)
def test_a_refusal_without_an_exit_code_of_ours_is_still_one(primary: Primary, code: str) -> None:
    with (
        Impostor(primary.journal_path, f'{{"error": "no room"{code}}}'.encode()),
        pytest.raises(MirrortoolError) as caught,
    ):
        ask(primary.journal_path, {"request": "mark"})
    assert (caught.value.what, caught.value.exit_code) == ("no room", LockedError.exit_code)


@pytest.mark.parametrize("answer", [b"{}", b'{"lsn": 5}', b'{"lsn": 1e400, "chain": "0"}', b'{"lsn": 5, "chain": 5}'])
def test_a_mark_of_which_the_answer_is_not_valid_may_have_been_made(primary: Primary, answer: bytes) -> None:
    with Impostor(primary.journal_path, answer), pytest.raises(LockedError, match="answers is not valid") as caught:
        mark(primary.journal_path, "nightly")
    assert "whether it makes the mark is not known" in str(caught.value)


KILLED = """
import os, signal, sys
from mirrortool.record.controlsocket import ControlSocket
from mirrortool.record.recorder import Recorder
recorder = Recorder(sys.argv[1])
with ControlSocket(sys.argv[1], {}):
    recorder.write("a", 0, b"acknowledged", fua=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_socket_of_a_killed_recorder_is_replaced(primary: Primary) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, primary.journal_path], capture_output=True)
    assert done.returncode == -9, done
    assert os.path.exists(os.path.join(primary.journal_path, "control.sock"))
    assert ask(primary.journal_path, {"request": "status"}) is None
    mark(primary.journal_path, "between")  # acquires the lock itself, and redoes first
    assert primary.contents()["a"].startswith(b"acknowledged")
    with Running(primary):
        assert ask(primary.journal_path, {"request": "status"})
        mark(primary.journal_path, "again")
    check_everywhere(primary, primary.contents())


def test_without_a_recorder_mark_gets_the_lock_and_with_one_that_has_no_control_socket_it_is_refused(
    primary: Primary,
) -> None:
    mark(primary.journal_path, "idle")
    with Recorder(primary.journal_path, background=False), pytest.raises(LockedError):
        mark(primary.journal_path, "locked")


def test_a_recording_without_a_server_gives_the_recorder_back(primary: Primary) -> None:
    make_server = partial(Server, addresses=["nonsense"], on_event=lambda _: None)
    with pytest.raises(UsageError):
        LiveRecording(Recorder(primary.journal_path), make_server, lambda _: None, lambda _: None)
    with Recorder(primary.journal_path) as again:  # nobody holds its locks
        assert again.redone == 0
