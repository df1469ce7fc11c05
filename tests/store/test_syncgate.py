"""Of the syncs of a store one runs at a time, and after one has failed none succeeds."""

from __future__ import annotations

import threading

import pytest

from mirrortool.errors import HostError, InputOutputError, NoSpaceError
from mirrortool.store.syncgate import SyncGate
from tests.fakes.waiting import PATIENCE_SECONDS


def test_a_sync_that_succeeds_is_followed_by_others() -> None:
    gate, done = SyncGate(), list[int]()
    for number in range(3):
        gate.run(lambda number=number: done.append(number))  # type: ignore[misc]
    assert done == [0, 1, 2]


def test_after_one_has_failed_none_is_tried_and_each_says_why() -> None:
    gate, tried = SyncGate(), list[str]()

    def fail() -> None:
        tried.append("fail")
        raise NoSpaceError("is full", where="/m/disk.img", remedy="free some space")

    with pytest.raises(NoSpaceError) as first:
        gate.run(fail)
    first.value.remedy = "what whoever caught it added"
    for _ in range(2):
        with pytest.raises(NoSpaceError, match=r"^/m/disk\.img: is full; free some space$"):
            gate.run(lambda: tried.append("again"))
    assert tried == ["fail"]


def test_what_is_lost_during_a_sync_makes_that_one_fail() -> None:
    """As a connection that breaks while another one's answer is awaited."""
    gate = SyncGate()
    lost = InputOutputError("the connection was lost", where="nbd://host/export")
    with pytest.raises(InputOutputError, match="was lost"):
        gate.run(lambda: gate.fail(lost))
    gate.fail(HostError("another reason"))
    with pytest.raises(InputOutputError, match="was lost"):
        gate.check()


def test_two_at_once_are_one_after_another_and_both_hear_of_a_failure() -> None:
    gate, inside, entered = SyncGate(), list[int](), threading.Event()
    outcomes: list[type[BaseException] | None] = []

    def sync() -> None:
        inside.append(1)
        assert len(inside) == 1
        entered.set()
        waiting.wait(0.05)  # for the other to come in, if it could
        inside.pop()
        raise InputOutputError("failed")

    def call() -> None:
        try:
            gate.run(sync)
            outcomes.append(None)
        except InputOutputError as error:
            outcomes.append(type(error))

    waiting = threading.Event()
    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert entered.wait(PATIENCE_SECONDS)
    for thread in threads:
        thread.join()
    assert outcomes == [InputOutputError, InputOutputError]
