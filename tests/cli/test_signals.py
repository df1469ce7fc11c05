"""A signal is never lost, whatever the main thread is at, and nothing that a handler does can wait for a lock."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from functools import partial

import pytest

from mirrortool.cli.main import main
from mirrortool.cli.signals import Interruption, Signals, answering, number_of, stopping
from tests.fakes.waiting import in_thread, join

PATIENCE_SECONDS = 30.0


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def send_after(turns: int) -> None:
    for _ in range(turns):
        pass
    send(signal.SIGUSR1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_the_wait(number: int) -> None:
    with Signals() as signals:
        assert signals.wait(0) == signals.number == 0
        sender = in_thread(lambda: send(number))
        assert signals.wait(PATIENCE_SECONDS) == signals.number == number
        join(sender)


def test_a_signal_before_the_wait_is_not_lost() -> None:
    with Signals() as signals:
        send(signal.SIGTERM)
        assert signals.wait(0) == signal.SIGTERM


def test_signals_at_any_step_of_waiting_are_all_taken() -> None:
    """Some of them come while the wait begins or ends, which is where one that took a lock would never come back."""
    chance = random.Random(1)
    with Signals() as signals:
        for _ in range(2000):
            sender = in_thread(partial(send_after, chance.randrange(400)))
            while not signals.wait(0.0001):
                pass
            join(sender)


def test_a_question_does_not_count_as_asking_to_stop() -> None:
    with Signals() as signals:
        send(signal.SIGUSR1)
        send(signal.SIGUSR1)
        assert [signals.wait(0) for _ in range(3)] == [signal.SIGUSR1, signal.SIGUSR1, 0]
        assert signals.number == 0


def test_wake_ends_the_wait_from_any_thread() -> None:
    with Signals() as signals:
        waker = threading.Thread(target=signals.wake)
        waker.start()
        assert signals.wait(PATIENCE_SECONDS) == 0
        join(waker)


def test_handlers_come_back_unless_the_program_is_about_to_end() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGUSR1)
    with Signals():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGUSR1)) == before
    with Signals() as signals:
        send(signal.SIGINT)
        signals.wait(0)
    assert signal.getsignal(signal.SIGINT) != before[0]


def test_what_stops_an_inner_block_stops_the_outer_one() -> None:
    with Signals() as outer:
        with answering("between"), Signals() as inner:
            send(signal.SIGTERM)
            assert inner.wait(0) == signal.SIGTERM
        assert outer.number == signal.SIGTERM


def test_what_came_before_an_inner_block_is_met_in_it() -> None:
    with Signals() as outer:
        send(signal.SIGTERM)
        with Signals() as inner:
            assert inner.wait(0) == inner.number == outer.number == signal.SIGTERM


def test_sighup_counts_once() -> None:
    with Signals() as signals:
        for _ in range(3):
            send(signal.SIGHUP)
        assert [signals.wait(0) for _ in range(2)] == [signal.SIGHUP, 0]


def test_what_was_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            send(signal.SIGHUP)
            assert signals.wait(0) == 0
            assert signal.SIGHUP not in stopping() and signal.SIGQUIT in stopping()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("again", [False, True])
def test_the_number_survives_what_others_make_of_the_exception(again: bool) -> None:
    """As click does, with and without a cause."""

    def act() -> None:
        try:
            raise Interruption(signal.SIGQUIT)
        except KeyboardInterrupt as error:
            raise ValueError from (error if again else None)

    with pytest.raises(ValueError, match=r"^$") as caught:
        act()
    assert number_of(caught.value) == signal.SIGQUIT
    assert number_of(KeyboardInterrupt()) == signal.SIGINT


@pytest.mark.parametrize(("is_interrupted", "code"), [(True, 128 + signal.SIGTERM), (False, 70)])
def test_a_signal_while_a_thread_is_waited_for_is_not_a_bug(
    is_interrupted: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Thread.join releases the thread's lock for it, and fails if the thread has just done so itself."""

    def act(_arguments: object) -> int:
        try:
            raise Interruption(signal.SIGTERM) if is_interrupted else ValueError
        except (KeyboardInterrupt, ValueError):
            raise RuntimeError("release unlocked lock")  # noqa: B904 - join has no cause either

    monkeypatch.setattr("mirrortool.cli.main._run_command", act)
    assert main(["status"]) == code
    assert ("a bug in mirrortool" in capsys.readouterr().err) != is_interrupted


def test_a_question_is_answered_by_a_line_while_nothing_waits_for_signals(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with answering("reading"):
        send(signal.SIGUSR1)
        with answering("reading a \udcff"):
            send(signal.SIGUSR1)
        send(signal.SIGUSR1)
    told = ["reading", r"reading a \xff", "reading"]
    assert capfd.readouterr().err.splitlines() == [f"mirrortool: {each}" for each in told]
    assert signal.getsignal(signal.SIGUSR1) == before


def test_the_second_ends_the_process_at_once() -> None:
    program = (
        "import os, signal\n"
        "from mirrortool.cli.signals import Signals\n"
        "with Signals():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('goes on')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "")
