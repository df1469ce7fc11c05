"""The schedule of repeated scans: between two, the journal says when the next begins, and which process will do it.

`JOURNAL/recorder.lock` is held meanwhile. Each scan notes the next one in journal.json, with its clean end; when none
is to come any more, that note is removed, so that nothing waits for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mirrortool import lockholder
from mirrortool.errors import HostError, JournalError, LockedError
from mirrortool.journal.directory import Journal


@contextlib.contextmanager
def repeated_scans(journal_path: str) -> Iterator[None]:
    """Scans of a journal follow each other in here."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(
            LockedError, HostError, JournalError
        ):  # another process scans, too; or the scans will fail
            Journal(journal_path)
            held.enter_context(lockholder.hold_beside(journal_path, "recorder", "scan"))
        try:
            yield
        finally:
            _expect_none(journal_path)


def _expect_none(journal_path: str) -> None:
    """Note that no scan is to come, unless another process has the journal: it has noted what is to come."""
    with contextlib.suppress(LockedError, HostError, JournalError), Journal(journal_path).lock("scan"):
        journal = Journal(journal_path)
        journal.next_scan = None
        journal.save_clean_end(journal.clean_end)
