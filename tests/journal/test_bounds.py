"""No operation of a journal lies outside its volumes, whatever sizes they have by then."""

from __future__ import annotations

import pytest

from mirrortool.errors import CorruptJournalError
from mirrortool.journal.bounds import check_inside
from mirrortool.journal.codec import FrameHeader
from mirrortool.journal.position import Position
from mirrortool.operation import Batch, BatchBuilder, CommitKind
from mirrortool.volume import VOLUME_ALIGNMENT
from tests.journal.sample import LOG_PAGE, PAGE, VOLUMES

HEADER = FrameHeader(1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, Position(6, 0))
LIMIT = VOLUME_ALIGNMENT


def build(*steps: tuple[int, ...] | str) -> Batch:
    """Writes of (page,), zeros of (page, count), resizes of ("disk" or page, size, 0), and a commit for a text."""
    builder = BatchBuilder(PAGE)
    for step in steps:
        match step:
            case str():
                builder.commit(CommitKind.FLUSH, 0)
            case (page,):
                builder.write(page, b"x" * PAGE)
            case (page, count):
                builder.zero(page, count)
            case (page, size, _):
                builder.resize(page, size)
    return builder.build()


@pytest.mark.parametrize(
    ("batch", "disk"),
    [
        (build((0,), (63,), (LOG_PAGE,), (LOG_PAGE + 10,)), 64 * PAGE),
        (build((0, 64)), 64 * PAGE),
        (build((5,), "commit"), 64 * PAGE),
        (build("commit"), 64 * PAGE),
        (build((0, 70 * PAGE, 0), (69,)), 70 * PAGE),
        (build((60,), (0, 3 * PAGE, 0), (2,)), 3 * PAGE),
        (build((0, 0, 0), (0, LIMIT, 0), (LIMIT // PAGE - 1,)), LIMIT),
        (build((0, 100, 0), (0,), "commit"), 100),
        (build((0, 3, 0)), 3),
    ],
)
def test_what_lies_inside_passes_and_sizes_follow(batch: Batch, disk: int) -> None:
    after = check_inside(HEADER, batch, VOLUMES, "file")
    assert (after["disk"].size, after["log"].size) == (disk, VOLUMES["log"].size)


@pytest.mark.parametrize(
    "batch",
    [
        build((64,)),
        build((0, 65)),
        build((63, 2)),
        build((LOG_PAGE + 11,)),
        build((LOG_PAGE - 1, 2)),
        build((0, LOG_PAGE)),
        build((0, 70 * PAGE, 0), (70,)),
        build((0, 3 * PAGE, 0), (3,)),
        build((69,), (0, 70 * PAGE, 0)),
        build((1, 100, 0)),
        build((LOG_PAGE * 2, 100, 0)),
        build((0, LIMIT + 1, 0)),
        build((0, (1 << 64) - 1, 0)),
        build((64,), "commit"),
    ],
)
def test_what_lies_outside_is_damage(batch: Batch) -> None:
    with pytest.raises(CorruptJournalError, match="LSN 5-6 lies outside"):
        check_inside(HEADER, batch, VOLUMES, "file")
