"""Stepped threads: one runs at a time, in the order in which they could continue, until all have stopped."""

from __future__ import annotations

import threading

import pytest

from mirrortool.replay.stepwise import SteppedThreads
from tests.fakes.switching import switching_often

COUNT = 5


def test_nothing_runs_before_the_owner_lets_it_and_the_newest_begins() -> None:
    threads, order = SteppedThreads(), []
    handles = [threads.spawn(str(each), lambda each=each: order.append(each)) for each in range(COUNT)]
    assert order == []
    threads.run()
    assert order == [4, 3, 2, 1, 0]
    for handle in handles:
        handle.join()


def test_threads_that_are_let_pass_run_in_that_order_without_a_break() -> None:
    threads, order = SteppedThreads(), []
    gates = [threads.gate() for _ in range(COUNT)]

    def work(me: int) -> None:
        gates[me].wait()
        for _ in range(100):
            order.append(me)

    handles = [threads.spawn(str(each), lambda each=each: work(each)) for each in range(COUNT)]
    with switching_often():
        threads.run()
        for each in (3, 0, 4, 1, 2):
            gates[each].open()
        assert order == []
        threads.run()
    assert order == [each for each in (3, 0, 4, 1, 2) for _ in range(100)]
    for handle in handles:
        handle.join()


def test_a_gate_that_was_opened_first_lets_pass_once() -> None:
    threads, passed = SteppedThreads(), []
    gate = threads.gate()
    gate.open()

    def work() -> None:
        for each in range(2):
            gate.wait()
            passed.append(each)

    handle = threads.spawn("twice", work)
    threads.run()
    assert passed == [0]
    gate.open()
    handle.join()
    assert passed == [0, 1]


def test_a_thread_that_ends_with_an_error_hands_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next runs, and the owner is not left waiting."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    threads, order = SteppedThreads(), []

    def work(me: int) -> None:
        order.append(me)
        if me == 1:
            raise ValueError

    handles = [threads.spawn(str(each), lambda each=each: work(each)) for each in range(3)]
    threads.run()
    assert order == [2, 1, 0]
    for handle in handles:
        handle.join()


def test_run_returns_at_once_where_nothing_can_go_on() -> None:
    SteppedThreads().run()
