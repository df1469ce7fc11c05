"""The runner: signals reach the work, and SIGUSR1 shows it without stopping it."""

from __future__ import annotations

import os
import signal
import threading
from types import SimpleNamespace

import pytest

from mirrortool.cli.replay import _print_tables
from mirrortool.cli.runner import Runner
from mirrortool.replay.table import RowSnapshot


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_cancels_the_work(number: signal.Signals) -> None:
    cancelled = threading.Event()

    def work() -> str:
        os.kill(os.getpid(), number)
        assert cancelled.wait(10)
        return "kept"

    runner = Runner(work, cancelled.set)
    assert runner.run(lambda: None) == "kept"
    assert runner.signal_number == number


def test_sigusr1_inspects_and_the_work_goes_on() -> None:
    inspected = threading.Event()

    def work() -> bool:
        os.kill(os.getpid(), signal.SIGUSR1)
        return inspected.wait(10)

    runner = Runner(work, lambda: None, inspected.set)
    assert runner.run(lambda: None)
    assert runner.signal_number == 0


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGUSR1)
    Runner(lambda: None, lambda: None, lambda: None).run(lambda: None)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGUSR1)) == before


def test_tables_show_ranges_counters_and_waits(capsys: pytest.CaptureFixture[str]) -> None:
    tables = (
        (RowSnapshot(0, 0x10, 0x20, None, 0), RowSnapshot(1, 0, 0, 3, 0)),
        (RowSnapshot(3, 0x10, 0x40, None, 2),),
    )
    _print_tables(SimpleNamespace(tables=lambda: tables))  # type: ignore[arg-type]
    assert [line.split() for line in capsys.readouterr().err.splitlines()[1:]] == [
        ["0", "0", "0x10-0x1f", "-", "-"],
        ["0", "1", "cleared", "task", "3", "-"],
        ["1", "3", "0x10-0x3f", "-", "2", "tasks"],
    ]
