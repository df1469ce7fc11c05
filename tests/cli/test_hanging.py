"""A recorder that hangs lets nobody else hang: status, log and mark say so after a few seconds."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool import clock
from mirrortool.cli.main import main
from mirrortool.errors import LockedError
from mirrortool.record import controlsocket
from mirrortool.status import journal_status
from tests.fakes.live import LiveRecorder
from tests.fakes.volumes import make_old
from tests.fakes.waiting import in_thread, join, wait_until

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveRecorder]:
    monkeypatch.chdir(tmp_path)
    Path("v.img").write_bytes(b"1" * 100_000)
    make_old("v.img")
    assert main(["init", "-q", "J", "v=v.img"]) == main(["record", "-q", "J"]) == 0
    with LiveRecorder(tmp_path / "J") as recorder:
        yield recorder


def test_a_recorder_that_is_stopped_is_said_to_hang(
    live: LiveRecorder, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert controlsocket.ANSWER_SECONDS == 5.0
    monkeypatch.setattr(controlsocket, "ANSWER_SECONDS", 0.3)
    assert main(["status", "J"]) == 0
    pid = live.process.pid
    assert f"recorded by process {pid} since 20" in capsys.readouterr().out
    live.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        began = clock.monotonic()
        said = f"a recorder, process {pid}, holds the journal and does not answer"
        assert main(["status", "J", "--json"]) == LockedError.exit_code
        printed = capsys.readouterr()
        found = json.loads(printed.out)
        assert (found["at_work"], found["worker"]["pid"], found["recorder"]) == (True, pid, None)
        assert found["problems"][0]["exit_code"] == 22 and said in printed.err
        assert main(["mark", "J", "here"]) == LockedError.exit_code
        assert f"{said}; whether it makes the mark is not known" in capsys.readouterr().err
        assert main(["log", "J"]) == 0
        printed = capsys.readouterr()
        assert said in printed.err and printed.out.startswith("LSN")
        assert clock.monotonic() - began < 10
        wait_ns = clock.now_ns() + 40 * 10**9
        monkeypatch.setattr(clock, "now_ns", lambda: wait_ns)
        silent = journal_status("J").silent_seconds
        assert silent is not None and silent > 30, "its lock excuses nothing"
    finally:
        live.process.send_signal(signal.SIGCONT)
    monkeypatch.undo()


def test_an_answer_that_comes_byte_by_byte_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controlsocket, "ANSWER_SECONDS", 0.2)
    over = threading.Event()

    def dribble(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer, contextlib.suppress(OSError):
            while not over.wait(0.02):
                peer.sendall(b" ")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen()
        thread = in_thread(lambda: dribble(listener))
        with pytest.raises(LockedError, match="a recorder holds the journal and does not answer"):
            controlsocket.ask(str(tmp_path), {"request": "status"})
        over.set()
        join(thread)
