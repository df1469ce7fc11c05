"""What is wrong with what was found, and which of several problems is the worst: that is the exit code of status.

Each kind of problem is one function in _FINDERS. The order is that of status(1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from mirrortool.errors import ForkedJournalError, MirrortoolError
from mirrortool.status.found import Found, JournalStatus, Unseen

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
            remedy=f"replay there the journal that it mirrors, and mirrortool slot drop {path} {slot.name} here",
        )


def _hanging_recorder(found: Found) -> Iterator[MirrortoolError]:
    if isinstance(found, JournalStatus) and found.unanswered:
        yield found.unanswered


_FINDERS: tuple[Callable[[Found], Iterator[MirrortoolError]], ...] = (_damage, _foreign_slots, _hanging_recorder)
