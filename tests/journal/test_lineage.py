"""Which journal may continue where another one, or a mirror, stands; and what a refusal names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortool.errors import ForkedJournalError, NotAJournalError, OtherJournalError, UsageError
from mirrortool.journal import lineage
from mirrortool.journal.lineage import Epoch, History, check_continues, load_history
from mirrortool.journal.position import Position
from mirrortool.jsonfile import Fields

UUID, OTHER = b"u" * 16, b"o" * 16
FIRST = History.begun(UUID, b"0" * 16)
AT_10, AT_20 = Position(10, 0xA), Position(20, 0xB)
ONE = FIRST.promoted(AT_10, b"1" * 16)
TWO = ONE.promoted(AT_20, b"2" * 16)
APART = FIRST.promoted(Position(12, 0xC), b"x" * 16)


@pytest.mark.parametrize(
    ("sender", "receiver", "position"),
    [
        (FIRST, FIRST, Position(99, 1)),
        (ONE, FIRST, Position(9, 9)),
        (ONE, FIRST, AT_10),
        (TWO, FIRST, AT_10),
        (TWO, ONE, AT_20),
        (TWO, ONE, Position(15, 1)),
        (ONE, ONE, Position(1, 1)),  # it took over the history before it reached the fork
    ],
)
def test_the_same_history_or_a_later_one_goes_on(sender: History, receiver: History, position: Position) -> None:
    check_continues(sender, receiver, position, where="J")


STALE = ("epoch 0, which ended at position 10:", "30:", "a primary that was replaced")
PAST = ("epoch 1 began at position 10:", "past that", "what the promotion dropped")
PROMOTED_APART = ("began at position 10:", "at 12:", "promoted apart")


@pytest.mark.parametrize(
    ("sender", "receiver", "position", "reached_lsn", "named"),
    [
        (FIRST, ONE, Position(30, 3), 0, STALE),
        (FIRST, TWO, Position(30, 3), 0, STALE),
        (ONE, FIRST, Position(11, 3), 0, (*PAST, "11:")),
        (ONE, FIRST, Position(10, 3), 0, (*PAST, "10:0000000000000003")),
        (ONE, FIRST, Position(9, 3), 11, (*PAST, "some of LSN 11")),
        (TWO, FIRST, Position(15, 3), 0, (*PAST, "15:")),
        (ONE, APART, Position(5, 3), 0, PROMOTED_APART),
        (TWO, APART, Position(5, 3), 0, PROMOTED_APART),
        (APART, TWO, Position(5, 3), 0, ("began at position 12:", "at 10:", "promoted apart")),
    ],
)
def test_another_history_is_refused_with_both_positions(
    sender: History, receiver: History, position: Position, reached_lsn: int, named: Sequence[str]
) -> None:
    with pytest.raises(ForkedJournalError) as refused:
        check_continues(sender, receiver, position, reached_lsn=reached_lsn, where="J")
    for each in ("J: ", *named):
        assert each in str(refused.value)


def test_another_journal_is_refused_with_both_identities() -> None:
    with pytest.raises(OtherJournalError, match=f"{UUID.hex()}.*{OTHER.hex()}"):
        check_continues(FIRST, History.begun(OTHER, b"0" * 16), AT_10, where="J")


@given(st.lists(st.integers(0, 3), max_size=4), st.lists(st.integers(0, 3), max_size=4), st.integers(0, 40))
def test_a_receiver_goes_on_only_with_what_it_has(ours: list[int], theirs: list[int], lsn: int) -> None:
    """The oracle: which primary recorded each LSN. A receiver may continue if the sender has the same for all that
    the receiver has.
    """

    def made(choices: Sequence[int]) -> History:
        history, at = FIRST, 0
        for choice in choices:
            at += choice
            history = history.promoted(Position(at, at), bytes([choice + 1]) * 16)
        return history

    def owners(history: History, up_to: int) -> list[Epoch]:
        return [next(e for e in reversed(history.epochs) if e.start.lsn < n or not e.number) for n in range(1, up_to)]

    sender, receiver = made(ours), made(theirs)
    lsn = max(lsn, receiver.current.start.lsn)
    may = sender.continues(receiver) and owners(sender, lsn + 1) == owners(receiver, lsn + 1)
    try:
        check_continues(sender, receiver, Position(lsn, lsn), where="J")
    except ForkedJournalError:
        assert not may
    else:
        assert may


def _fields(known_history: History, **values: object) -> Fields:
    current = known_history.current
    listed = known_history.to_json()
    known: dict[str, Any] = {"epoch": current.number, "lineage": current.lineage.hex(), "history": listed}
    return Fields({**known, **values}, "journal.json", NotAJournalError)


@pytest.mark.parametrize("history", [FIRST, ONE, TWO])
def test_a_history_is_kept(history: History) -> None:
    assert load_history(_fields(history), UUID) == history


def test_a_journal_of_before_there_were_histories_has_one_epoch() -> None:
    assert load_history(_fields(FIRST, history=None), UUID) == FIRST


@pytest.mark.parametrize(
    "values",
    [
        {"history": []},
        {"history": {}},
        {"history": [{}]},
        {"history": ONE.to_json()},  # not of this epoch
        {"history": TWO.to_json()[::-1]},
        {"history": [*ONE.to_json(), TWO.to_json()[1]]},
        {"history": [TWO.to_json()[0], {**TWO.to_json()[2], "position": {"lsn": -1, "chain": "0" * 16}}]},
        {"history": [TWO.to_json()[0], {**TWO.to_json()[1], "epoch": 2}, TWO.to_json()[2]]},
        {"lineage": "00" * 16},
        {"epoch": 3},
    ],
)
def test_a_history_that_makes_no_sense_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(NotAJournalError):
        load_history(_fields(TWO, **values), UUID)


def test_epochs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "EPOCHS_KEPT_MAX", 2)
    with pytest.raises(NotAJournalError):
        load_history(_fields(TWO), UUID)
    with pytest.raises(UsageError):
        ONE.promoted(AT_20, b"2" * 16)


def test_a_promotion_before_an_earlier_one_undoes_that() -> None:
    again = ONE.promoted(Position(7, 7), b"z" * 16)
    assert again.epochs == (FIRST.current, Epoch(2, b"z" * 16, Position(7, 7)))
    with pytest.raises(ForkedJournalError, match="promoted apart"):
        check_continues(again, ONE, Position(5, 5), where="J")
    check_continues(again, FIRST, Position(7, 7), where="J")


def test_a_commit_may_be_promoted_twice() -> None:
    again = ONE.promoted(AT_10, b"z" * 16)
    assert again.epochs == (*ONE.epochs, Epoch(2, b"z" * 16, AT_10))
    check_continues(again, ONE, AT_10, where="J")


def test_where_an_epoch_ends() -> None:
    assert [TWO.end_of(epoch) for epoch in TWO.epochs] == [AT_10, AT_20, None]
    assert TWO.find(1, b"1" * 16) == TWO.epochs[1]
    assert TWO.find(1, b"2" * 16) is None
