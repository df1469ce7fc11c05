"""What is wrong with what was found, and which of several problems is the worst: that is the exit code of status.

Each kind of problem is one function in _FINDERS. The order is that of status(1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from mirrortool import clock
from mirrortool.errors import (
    ForkedJournalError,
    HostError,
    KnownBadError,
    MirrortoolError,
    NoSpaceError,
    NotAJournalError,
)
from mirrortool.journal.diskspace import way_out
from mirrortool.journal.slots import damaged_slots
from mirrortool.mirror.findings import describe
from mirrortool.status.snapshot import Found, JournalStatus, MirrorStatus, Unseen
from mirrortool.wording import byte_count, quoted_word

_ORDER = (range(10, 20), range(1, 2), range(20, 40), range(50, 51))
"""Exit codes, the worst first: the journal, a mirror that is known to be bad, a volume or the host, a lag."""


def problems_of(found: Found) -> list[MirrortoolError]:
    """Everything that is wrong with it, as far as a look at small files tells."""
    return [problem for find in _FINDERS for problem in find(found)]


def worst(problems: Iterable[MirrortoolError]) -> MirrortoolError | None:
    """The one that counts most, and of several such the first; None if nothing is wrong."""
    return min(problems, key=_rank, default=None)


def _rank(problem: MirrortoolError) -> int:
    return next((rank for rank, codes in enumerate(_ORDER) if problem.exit_code in codes), len(_ORDER))


def _damage(found: Found) -> Iterator[MirrortoolError]:
    if isinstance(found, Unseen):
        yield found.error
    elif found.damage:
        yield found.damage


def _foreign_slots(found: Found) -> Iterator[MirrortoolError]:
    """A slot that names a position of another history promises what is not so, and may hold back nothing or all."""
    if not isinstance(found, JournalStatus):
        return
    path = found.journal.path
    for slot in (reader.slot for reader in found.readers if reader.is_contained is False):
        yield ForkedJournalError(
            f"does not contain position {slot.position} of slot {slot.name}: {slot.where} follows another history",
            where=path,
            remedy="replay into it the journal that it mirrors, "
            f"and mirrortool slot drop {quoted_word(path)} {slot.name} here",
        )


def _hanging_recorder(found: Found) -> Iterator[MirrortoolError]:
    if isinstance(found, JournalStatus) and found.unanswered:
        yield found.unanswered


class _RecorderProblem(MirrortoolError):
    """What a recorder says is wrong with it, with the exit code that it gives."""

    def __init__(self, what: str, exit_code: int, where: str, remedy: str | None) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.exit_code = exit_code


def _recorder_in_trouble(found: Found) -> Iterator[MirrortoolError]:
    """Clients are refused, or what they write is not journaled."""
    recorder = found.recorder if isinstance(found, JournalStatus) else None
    if not isinstance(found, JournalStatus) or not recorder or not recorder.get("problem"):
        return
    code = recorder.get("problem_exit_code")  # of 0.1.0 there is none
    known = code if isinstance(code, int) and 0 < code < 100 else HostError.exit_code
    remedy = _way_out(found) if code == NoSpaceError.exit_code else None
    yield _RecorderProblem(str(recorder["problem"]), known, found.journal.path, remedy)


def _full_disk(found: Found) -> Iterator[MirrortoolError]:
    """Without a recorder to say so: none is running, or it does not answer this user."""
    if isinstance(found, JournalStatus) and found.recorder is None and found.room.is_full:
        what = f"its file system has {byte_count(found.room.free_bytes or 0)} left: nothing more can be recorded"
        yield NoSpaceError(what, where=found.journal.path, remedy=_way_out(found))


def _damaged_slots(found: Found) -> Iterator[MirrortoolError]:
    if isinstance(found, JournalStatus):
        yield from damaged_slots(found.journal).values()


def _lost_paths(found: Found) -> Iterator[MirrortoolError]:
    if isinstance(found, JournalStatus):
        try:
            found.journal.volume_paths()
        except NotAJournalError as error:
            yield error


def _known_bad(found: Found) -> Iterator[MirrortoolError]:
    """What a verification found counts until it is put right; of a promoted mirror it is the primary's content."""
    if isinstance(found, MirrorStatus) and found.known_bad and not found.mirror.promoted:
        yield KnownBadError(
            describe(found.mirror, found.known_bad, clock.now_ns()),
            where=found.mirror.path,
            remedy="mirrortool verify proves it anew; a new mirror, made by replay, has what is right",
        )


def _missing_backings(found: Found) -> Iterator[MirrortoolError]:
    """Without one the mirror cannot be written, and some of it cannot be read."""
    if isinstance(found, MirrorStatus) and not found.mirror.promoted:
        yield from (backing.problem for backing in found.backings if backing.problem)


def _way_out(found: JournalStatus) -> str:
    return way_out(found.journal, [reader.slot for reader in found.readers], found.room)


_FINDERS: tuple[Callable[[Found], Iterator[MirrortoolError]], ...] = (
    _damage,
    _foreign_slots,
    _hanging_recorder,
    _recorder_in_trouble,
    _full_disk,
    _damaged_slots,
    _lost_paths,
    _known_bad,
    _missing_backings,
)
