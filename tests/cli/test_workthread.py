"""The runner: signals reach the work, and SIGUSR1 shows it without stopping it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from mirrortool.cli.replay import _print_tables
from mirrortool.cli.workthread import Runner
from mirrortool.errors import NotAJournalError
from mirrortool.replay.tasktable import RowSnapshot


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_first_signal_cancels_the_work(number: signal.Signals) -> None:
    cancelled = threading.Event()

    def work() -> str:
        os.kill(os.getpid(), number)
        assert cancelled.wait(10)
        return "kept"

    runner = Runner(work, cancelled.set, lambda: None)
    assert runner.run(lambda: None) == "kept"
    assert runner.signal_number == number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_what_a_signal_brings_about_may_take_a_lock_that_the_display_holds(number: signal.Signals) -> None:
    lock, ended, sent = threading.Lock(), threading.Event(), threading.Event()

    def tick() -> None:
        with lock:
            if not sent.is_set():
                sent.set()
                os.kill(os.getpid(), number)

    def end() -> None:
        if lock.acquire(timeout=1):
            lock.release()
            ended.set()

    Runner(lambda: ended.wait(10), end, end).run(tick)
    assert ended.is_set()


def test_sigusr1_inspects_and_the_work_goes_on() -> None:
    inspected = threading.Event()

    def work() -> bool:
        os.kill(os.getpid(), signal.SIGUSR1)
        return inspected.wait(10)

    runner = Runner(work, lambda: None, inspected.set)
    assert runner.run(lambda: None)
    assert runner.signal_number == 0


def test_an_answer_that_fails_does_not_end_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    inspected = threading.Event()

    def work() -> bool:
        os.kill(os.getpid(), signal.SIGUSR1)
        return inspected.wait(10)

    def inspect() -> None:
        inspected.set()
        raise NotAJournalError("no journal here", where="J")

    assert Runner(work, lambda: None, inspect).run(lambda: None)
    assert capsys.readouterr().err == "mirrortool: J: no journal here\n"


def test_a_second_signal_after_the_work_ends_the_process_with_the_same_code() -> None:
    """The last lines are still being written, and the default of SIGTERM would end it with another."""
    program = (
        "import os, signal\n"
        "from mirrortool.cli.workthread import Runner\n"
        "runner = Runner(lambda: os.kill(os.getpid(), signal.SIGTERM), lambda: None, lambda: None)\n"
        "runner.run(lambda: None)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('goes on')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "")


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGUSR1)
    Runner(lambda: None, lambda: None, lambda: None).run(lambda: None)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGUSR1)) == before


def test_tables_of_a_replay_that_has_not_begun(capsys: pytest.CaptureFixture[str]) -> None:
    replay: Any = SimpleNamespace(tables=lambda: ())
    _print_tables(replay)
    assert capsys.readouterr().err == "no task has work now\n"


def test_tables_show_ranges_mini_queues_counters_and_waits(capsys: pytest.CaptureFixture[str]) -> None:
    tables = (
        (RowSnapshot(0, 0x10, 0x20, None, 0, mini=(7,)), RowSnapshot(1, 0, 0, 3, 0)),
        (RowSnapshot(3, 0x10, 0x40, None, 2, mini=(8, 9)),),
    )
    replay: Any = SimpleNamespace(tables=lambda: tables)
    _print_tables(replay)
    assert [line.split() for line in capsys.readouterr().err.splitlines()[1:]] == [
        ["0", "0", "0x10-0x1f", "1", "unit", "-", "-"],
        ["0", "1", "cleared", "-", "task", "3", "-"],
        ["1", "3", "0x10-0x3f", "2", "units", "-", "2", "tasks"],
    ]
