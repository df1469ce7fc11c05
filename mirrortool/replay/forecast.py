"""What a replay would read and write, without doing any of it."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass

from mirrortool import files
from mirrortool.address import split_at
from mirrortool.checksum import unpack_sums
from mirrortool.journal.bases.listing import open_base
from mirrortool.journal.commits import Commit
from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader
from mirrortool.journaledsums import sums_as_of
from mirrortool.lsn import Lsn
from mirrortool.mirror import lastreplay
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.directory import Mirror, empty_checkpoint
from mirrortool.mirror.newmirror import is_to_be_made
from mirrortool.replay.startposition import Start, choose_start
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import Volume

_TABLE_PAGES = 1 << 16


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a replay would do.

    Attributes:
        checkpoint: where the mirror is; of a new one, before LSN 1.
        is_new: whether the mirror would be made.
        start: where the replay would begin.
        goal: where it would end.
        pages: written, at most: a page that is written twice counts twice.
        seconds: that the mirror's last replay took for the same number of bytes; None if that is not known.
    """

    checkpoint: Checkpoint
    is_new: bool
    start: Start
    goal: Commit
    pages: int
    seconds: float | None


def forecast(journal: Journal, mirror_path: str, goal: Commit) -> Forecast:
    """What a replay up to a commit would do. Reads the headers of the frames between; changes nothing.

    Raises:
        OtherJournalError, ForkedJournalError: the mirror is not one of this journal.
        PrunedJournalError: it cannot be done.
    """
    is_new = is_to_be_made(mirror_path)
    checkpoint = empty_checkpoint(journal)
    if not is_new:
        mirror = Mirror(mirror_path)
        mirror.check_is_of(journal)
        checkpoint = mirror.checkpoint
    start = choose_start(journal, checkpoint, goal.lsn)
    pages = pages_to_write(journal, start, goal.lsn)
    return Forecast(checkpoint, is_new, start, goal, pages, _seconds(mirror_path, start))


def pages_to_write(journal: Journal, start: Start, goal_lsn: Lsn) -> int:
    """Pages of a replay, at most; without what it zeroes."""
    pages = 0
    if start.base:
        with open_base(journal, start.base.lsn) as base:
            pages = base.page_count()
    with JournalReader(journal, start.position, headers_only=True) as reader:
        return pages + sum(header.pages for header in reader.up_to(goal_lsn))


def pages_held(journal: Journal, goal_lsn: Lsn) -> int:
    """Pages that are not zero after a commit: exact, but everything before it is read for that."""
    with ExitStack() as opened:
        directory = opened.enter_context(files.temporary_directory())
        sums = opened.enter_context(closing(sums_as_of(journal, directory, goal_lsn)))
        return sum(_nonzero(sums, volume) for volume in sums.volumes)


def _nonzero(sums: PageSums, volume: Volume) -> int:
    runs = sums.nonzero_runs(sums.volumes.first_page(volume), sums.volumes.page_count(volume))
    pieces = (piece for run in runs for piece in split_at(*run, _TABLE_PAGES))
    return sum(count - unpack_sums(sums.read(page, count)).count(0) for page, count in pieces)


def _seconds(mirror_path: str, start: Start) -> float | None:
    last = lastreplay.load(mirror_path)
    if last is None or not last.milliseconds or not last.journal_bytes:
        return None
    return (start.base_bytes + start.journal_bytes) * (last.milliseconds / 1000 / last.journal_bytes)
