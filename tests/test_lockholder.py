"""A running process is known by a lock and by what it says in it; what a dead process left there says nothing."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mirrortool import clock, files, hostinfo, lockholder
from mirrortool.errors import LockedError
from mirrortool.lockholder import Worker, find_worker, hold
from tests.fakes.disk import Call, faulty
from tests.fakes.waiting import wait_until

# Holds the lock until the test kills it; the sleep only bounds what a failed test leaves running.
HOLDER = """
import sys, time
from mirrortool import lockholder
held = lockholder.hold(sys.argv[1], "it", "record")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lock")


def test_who_holds_the_lock_says_what_and_since_when(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ns", lambda: 12345)
    with hold(path, "it", "scan"):
        assert find_worker(path) == Worker("scan", os.getpid(), 12345)
        with pytest.raises(LockedError, match="it is in use"):
            hold(path, "it", "mark")
        assert find_worker(path) == Worker("scan", os.getpid(), 12345)
    assert find_worker(path) is None
    assert not Path(path).read_bytes().strip(b"\0")


def test_without_a_lock_file_nobody_is_at_work(path: str) -> None:
    assert find_worker(path) is None


def test_what_a_killed_process_left_is_nobody(path: str) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        worker = find_worker(path)
        assert worker is not None
        assert (worker.doing, worker.pid) == ("record", process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert f'"pid": {process.pid}'.encode() in Path(path).read_bytes()
    wait_until(lambda: find_worker(path) is None)
    with files.open_locked(path, "it"):  # as 0.1.0 holds it, which says nothing: it is somebody, not that process
        assert find_worker(path) == Worker()


@pytest.mark.parametrize(
    "changed",
    [
        {"started": 1},
        {"boot_id": "another boot"},
        {"namespace": "pid:[1]"},
        {"pid": 1 << 40},
        {"pid": "x"},
        {"since_ns": None},
        {"pid": float("inf")},
        {"since_ns": float("inf")},
    ],
)
def test_what_cannot_be_proved_is_not_believed(path: str, changed: dict[str, object]) -> None:
    with hold(path, "it", "scan"):
        said = json.loads(Path(path).read_bytes())
        with open(path, "r+b") as file:
            file.write(json.dumps({**said, **changed}).encode().ljust(300))
        assert find_worker(path) == Worker()


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b"\0" * 256, b"\xff" * 256, b"[" * 256])
def test_a_lock_file_may_hold_anything(path: str, note: bytes) -> None:
    Path(path).write_bytes(note)
    with files.open_locked(path, "it"):
        assert find_worker(path) == Worker()


def test_a_full_disk_keeps_nobody_from_the_lock(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    with hold(path, "it", "scan"):
        assert find_worker(path) == Worker()
    assert find_worker(path) is None


def test_another_users_process_is_seen() -> None:
    """/proc/PID/stat can be read of any process, unless the system hides them."""
    started = hostinfo.start_of_process(1)
    assert started is None or started >= 0
    assert hostinfo.start_of_process(os.getpid()) is not None
    assert hostinfo.start_of_process(1 << 40) is None


def test_a_process_of_another_user_is_known(path: str) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    holder = HOLDER.replace("print(", "import os; os.setuid(65534); print(")
    command = [sys.executable, "-c", holder, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        worker = find_worker(path)
        process.kill()
    assert worker is not None
    assert (worker.doing, worker.pid) == ("record", process.pid)
    assert lockholder.find_worker(path) is None


def test_what_the_holder_before_left_is_durable_once_the_next_one_reads_it(tmp_path: Path, path: str) -> None:
    """It was killed when it had replaced a small file, and had not made the new name durable."""
    files.replace_small(str(tmp_path / "small"), b"old")

    def kill(call: Call) -> None:
        if call.name == "fsync" and (tmp_path / "small").read_bytes() == b"new" and not was_killed:
            was_killed.append(True)
            raise KeyboardInterrupt

    was_killed: list[bool] = []
    with faulty(kill) as system:
        with pytest.raises(KeyboardInterrupt), hold(path, "it", "record"):
            files.replace_small(str(tmp_path / "small"), b"new")
        hold(path, "it", "record").close()
        system.disk.lose_all()
    assert (tmp_path / "small").read_bytes() == b"new"
