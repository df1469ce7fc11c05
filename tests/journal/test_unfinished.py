"""The gate before unfinished work: nobody comes by it but what finishes that work."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from mirrortool.errors import UnfinishedArrivalError, UnfinishedPromotionError
from mirrortool.journal import format as layout
from mirrortool.journal.directory import Journal
from mirrortool.journal.lineage import Epoch
from mirrortool.journal.position import FrameEnd
from mirrortool.journal.unfinished import PromotionNote, Unfinished, arriving_path, save_note
from mirrortool.lsn import Lsn
from tests.fakes.journals import JournalMaker

PROMOTION, ARRIVAL = UnfinishedPromotionError, UnfinishedArrivalError


@pytest.mark.parametrize(
    ("is_promoted", "is_arriving", "finishing", "expected"),
    [
        (False, False, None, None),
        (True, False, None, PROMOTION),
        (False, True, None, ARRIVAL),
        (True, True, None, PROMOTION),
        (True, True, Unfinished.ARRIVAL, PROMOTION),
        (False, True, Unfinished.ARRIVAL, None),
        (True, False, Unfinished.PROMOTION, None),
        (True, True, Unfinished.PROMOTION, None),
    ],
)
def test_a_journal_opens_only_to_what_finishes_it(
    tmp_path: Path, is_promoted: bool, is_arriving: bool, finishing: Unfinished | None, expected: type[Exception] | None
) -> None:
    journal = JournalMaker(tmp_path / "J", {"disk": 4096}).close()
    if is_promoted:
        epoch = Epoch(1, bytes(16), journal.start)
        save_note(journal.path, PromotionNote("/m", bytes(16), FrameEnd(journal.start, Lsn(0), 0), epoch, 0))
    if is_arriving:
        directory = Path(arriving_path(journal.path))
        directory.mkdir(parents=True)
        (directory / layout.file_name(Lsn(9))).touch()
    with pytest.raises(expected) if expected else nullcontext():
        Journal(journal.path, finishing=finishing)
