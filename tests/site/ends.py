"""How a process may end by itself, for what happened to it."""

from __future__ import annotations

from mirrortool.errors import (
    ForkedJournalError,
    HostError,
    LinkError,
    LockedError,
    NotAJournalError,
    NotAMirrorError,
    NotComparableError,
    PromotedError,
    TornJournalError,
    UnfinishedPromotionError,
)
from mirrortool.ship.shipoptions import RefusedError
from tests.site.strands import Process

_MAY_END: dict[str, tuple[type[BaseException], ...]] = {
    "record": (),
    "ship": (),
    "receive": (LinkError, LockedError),
    "follow": (),
    "base": (LockedError, NotComparableError, NotAJournalError, TornJournalError),
    "prune": (LockedError, NotComparableError, NotAJournalError, TornJournalError),
    "promote": (LockedError, NotComparableError, NotAJournalError, NotAMirrorError),
}
"""Where no disk failed, and nobody was promoted."""
_MAY_END_REPLACED: dict[str, tuple[type[BaseException], ...]] = {
    "ship": (ForkedJournalError,),
    "receive": (ForkedJournalError, UnfinishedPromotionError),
    "follow": (PromotedError, UnfinishedPromotionError, NotAJournalError),
    "base": (UnfinishedPromotionError,),
    "prune": (UnfinishedPromotionError,),
}
"""Besides, once a promotion was begun."""


def is_expected(process: Process, *, is_promoting: bool) -> bool:
    """Whether a process may have ended with the error that it has."""
    error, name = process.error, process.name
    if error is None or isinstance(error, _MAY_END[name]):
        return True
    if is_promoting and isinstance(error, _MAY_END_REPLACED.get(name, ())):
        return True
    if isinstance(error, RefusedError):
        is_of_disk = any(host.has_failed for host in process.host.others) and 30 <= error.exit_code <= 39
        return is_of_disk or (is_promoting and error.exit_code == ForkedJournalError.exit_code)
    if name == "follow" and isinstance(error, TornJournalError):  # its unit starts it again, until more was shipped
        return process.host.has_failed
    return process.host.has_failed and isinstance(error, HostError)
