"""Scans that are repeated: while nobody scans, the journal says when the next one begins, and who is going to do it.

`JOURNAL/recorder.lock` is held meanwhile. Each scan notes the next one in journal.json, with its clean end; when none
is to come any more, that is taken back, so that nobody waits for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mirrortool import lockholder
from mirrortool.errors import HostError, JournalError, LockedError
from mirrortool.journal.directory import Journal


@contextlib.contextmanager
def scanning_again_and_again(journal_path: str) -> Iterator[None]:
    """Scans of a journal follow each other in here."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(LockedError, HostError, JournalError):  # another does so, too; or the scans will say
            Journal(journal_path)
            held.enter_context(lockholder.hold_beside(journal_path, "recorder", "scan"))
        try:
            yield
        finally:
            _expect_none(journal_path)


def _expect_none(journal_path: str) -> None:
    """No scan is to come; if another process is at work on the journal, it has said what is."""
    with contextlib.suppress(LockedError, HostError, JournalError), Journal(journal_path).lock("scan"):
        journal = Journal(journal_path)
        journal.next_scan = None
        journal.save_clean_end(journal.clean_end)
