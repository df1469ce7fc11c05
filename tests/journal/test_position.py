"""A position is an LSN and the chain value there, also in JSON."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortool.errors import NotAJournalError
from mirrortool.journal.position import Position
from mirrortool.jsonfile import Fields

NUMBERS = st.integers(0, (1 << 64) - 1)


@given(NUMBERS, NUMBERS)
def test_a_position_survives_json(lsn: int, chain: int) -> None:
    position = Position(lsn, chain)
    assert Position.from_json(Fields(position.to_json(), "f", NotAJournalError)) == position


def test_a_position_reads_as_lsn_and_chain() -> None:
    assert str(Position(7, 255)) == "7:00000000000000ff"


@pytest.mark.parametrize(
    "values", [{}, {"lsn": 1}, {"lsn": -1, "chain": "0" * 16}, {"lsn": 1, "chain": "00"}, {"lsn": 1, "chain": 5}]
)
def test_what_is_no_position_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(NotAJournalError):
        Position.from_json(Fields(values, "f", NotAJournalError))
