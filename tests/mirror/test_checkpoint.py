"""A checkpoint says how its mirror is: in one of four states, which a table ties together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortool.journal.position import Position
from mirrortool.mirror.checkpoint import TRANSITIONS, Checkpoint, MirrorState, describe
from mirrortool.operation import CommitKind

AT_COMMIT = Checkpoint(Position(9, 9), 0, 0, True, 9, 9, {"a": 4096}, CommitKind.FLUSH)
EXAMPLES = {
    MirrorState.EMPTY: replace(AT_COMMIT, position=Position(0, 0), is_commit=False, commit_lsn=0, reached_lsn=0),
    MirrorState.CONSISTENT: AT_COMMIT,
    MirrorState.ROLLING_FORWARD: replace(AT_COMMIT, reached_lsn=12),
    MirrorState.STARTING_OVER: replace(AT_COMMIT, resync_lsn=20, reached_lsn=20),
}


@pytest.mark.parametrize(("before", "event"), TRANSITIONS)
def test_a_mirror_comes_from_state_to_state_as_the_table_says(before: MirrorState, event: str) -> None:
    checkpoint = EXAMPLES[before]
    assert checkpoint.state == before
    events = {
        "reaching": lambda: checkpoint.reaching(30),
        "resyncing": lambda: checkpoint.resyncing(40, ignores_table=False),
    }
    assert events[event]().state == TRANSITIONS[before, event]


@given(st.integers(0, 3), st.booleans(), st.integers(0, 3), st.integers(0, 3))
def test_only_a_commit_with_nothing_after_it_in_the_store_is_consistent(
    lsn: int, is_commit: bool, reached_lsn: int, resync_lsn: int
) -> None:
    checkpoint = replace(
        AT_COMMIT, position=Position(lsn, lsn), is_commit=is_commit, reached_lsn=reached_lsn, resync_lsn=resync_lsn
    )
    assert checkpoint.is_consistent is (0 < lsn >= reached_lsn and is_commit and not resync_lsn)


def test_what_is_said_of_a_mirror_names_its_state_and_what_finishes_it() -> None:
    said = {state: describe(checkpoint) for state, checkpoint in EXAMPLES.items()}
    assert said == {
        MirrorState.EMPTY: "the mirror is empty",
        MirrorState.CONSISTENT: "the mirror is at LSN 9",
        MirrorState.ROLLING_FORWARD: (
            "the mirror is rolling forward after LSN 9, between two commits; replay finishes it"
        ),
        MirrorState.STARTING_OVER: "the mirror is starting over from base 20; replay finishes it",
    }
    assert "replay" not in describe(EXAMPLES[MirrorState.ROLLING_FORWARD], is_running=True)
    assert "FUZZY" in describe(replace(AT_COMMIT, commit_kind=CommitKind.FUZZY))
    assert "initial scan" in describe(replace(AT_COMMIT, commit_kind=CommitKind.INCOMPLETE))
