"""Waits for a journal to grow, and wakes whatever follows it.

Sizes are the truth, events only say when to look: an event may be lost, and there is none for what another host writes
(NFS). So each wait ends after SLOW_SECONDS at the latest, and says whether the journal is as it was seen.

    inotify   a watch of `files/`, armed only while a thread waits: a busy recorder costs a busy follower nothing
    polling   sizes are looked at every POLL_SECONDS
    auto      inotify, or polling once the kernel has no watches left

Used by one thread at a time; `wake` is for any other. Not here: what the new bytes mean (reader.py).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mirrortool import clock, files
from mirrortool.errors import ExhaustedError, HostError, host_error
from mirrortool.journal.copies.basetransfer import open_finished
from mirrortool.journal.directory import Journal
from mirrortool.lsn import NO_LSN

if TYPE_CHECKING:
    from watchdog.events import FileSystemEventHandler
    from watchdog.observers.api import BaseObserver, ObservedWatch

OBSERVERS = ("auto", "inotify", "polling")
POLL_SECONDS = 0.05
SLOW_SECONDS = 1.0
ABSENT_SECONDS = 0.5
"""A journal that does not exist yet is looked for this often."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a journal's files looked like: two that are equal have no byte between them, unless one was replaced."""

    names: tuple[int, int]
    newest: int
    size: int
    changed_ns: int


class Tail:
    """The end of one journal, inside its `with` block.

    Attributes:
        is_polling: whether sizes are looked at instead of events waited for.
    """

    def __init__(self, journal: Journal, observer: str = "auto") -> None:
        """Follow a journal's files.

        Args:
            observer: one of OBSERVERS.
        """
        assert observer in OBSERVERS
        self._journal = journal
        self._may_poll = observer != "inotify"
        self.is_polling = observer == "polling"
        self._newest = NO_LSN
        self._names: tuple[int, int] | None = None
        # Set by an event, by `wake`, and by nothing else; cleared by the thread that waits, before it looks.
        self._woken = threading.Event()
        self._observer: BaseObserver | None = None
        self._waker: FileSystemEventHandler | None = None

    def __enter__(self) -> Tail:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._observer:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def wake(self) -> None:
        """End the wait that is on, or the next one, now; from any thread."""
        self._woken.set()

    def look(self) -> Seen:
        """What the files look like now. Look before reading to the end, and wait for a change of that."""
        directory = files.find_facts(self._journal.files_path)
        names = (directory.identity.inode, directory.changed_ns) if directory else (0, 0)
        if names != self._names:
            self._newest = max(self._journal.file_starts(), default=NO_LSN)
            self._names = names
        facts = files.find_facts(self._journal.file_path(self._newest)) if self._newest else None
        return Seen(names, self._newest, facts.size if facts else 0, facts.modified_ns if facts else 0)

    def wait(self, seen: Seen, seconds: float = SLOW_SECONDS) -> bool:
        """Wait until the files differ from what was seen; whether they do.

        False also after `wake`, after `seconds`, and after SLOW_SECONDS at the latest.

        Raises:
            ExhaustedError: the kernel has no watches left, and polling was ruled out.
        """
        ends = clock.monotonic() + min(seconds, SLOW_SECONDS)
        with self._armed():
            while self.look() == seen:
                left = ends - clock.monotonic()
                if left <= 0:
                    return False
                if self._woken.wait(min(left, POLL_SECONDS) if self.is_polling else left):
                    self._woken.clear()
                    return self.look() != seen
        return True

    @contextmanager
    def _armed(self) -> Iterator[None]:
        """Have events set `_woken`; those that come before are seen by the look that follows."""
        watch = None if self.is_polling else self._watch()
        try:
            yield
        finally:
            if watch and self._observer:
                with suppress(OSError, KeyError):  # the directory is gone, and the watch with it
                    self._observer.unschedule(watch)

    def _watch(self) -> ObservedWatch | None:
        from watchdog.events import FileCreatedEvent, FileModifiedEvent, FileMovedEvent

        try:
            if self._observer is None:
                self._observer = _started_observer()
            self._waker = self._waker or _waker(self._woken)
            kinds = [FileCreatedEvent, FileModifiedEvent, FileMovedEvent]
            return self._observer.schedule(self._waker, self._journal.files_path, event_filter=kinds)
        except (OSError, RuntimeError) as error:  # no instances, watches or threads left; or no directory yet
            if not self._may_poll:
                raise _no_watches(error, self._journal.path) from error
            self.is_polling = True
            return None


def _waker(woken: threading.Event) -> FileSystemEventHandler:
    """What watchdog calls, in a thread of its own, for each event."""
    from watchdog.events import FileSystemEvent, FileSystemEventHandler

    class Waker(FileSystemEventHandler):
        def dispatch(self, event: FileSystemEvent) -> None:
            woken.set()

    return Waker()


def _started_observer() -> BaseObserver:
    import logging

    from watchdog.observers import Observer

    # It warns of an event that comes after a watch has ended, which is what arming for each wait brings about.
    logger = logging.getLogger("watchdog")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    observer = Observer()
    observer.daemon = True
    observer.start()
    return observer


def _no_watches(error: Exception, path: str) -> HostError:
    remedy = "raise fs.inotify.max_user_watches and max_user_instances, or give --observer polling"
    if isinstance(error, OSError) and error.errno:
        known = host_error(error, path, "watch")
        return ExhaustedError(known.what, where=path, remedy=remedy)
    return ExhaustedError(f"cannot watch: {error}", where=path, remedy=remedy)


def wait_for_journal(path: str, ending: threading.Event) -> Journal | None:
    """The journal at a path, once there is one; None if `ending` is set before.

    What came may be a copy in which a base is just taking the place of older files: see open_finished.

    Raises:
        NotAJournalError: what came to be there is none that can be read.
        UnfinishedArrivalError, UnfinishedPromotionError: it cannot be used, and what finishes that.
    """
    while not files.exists(files.join(path, "journal.json")):
        if ending.wait(ABSENT_SECONDS):
            return None
    return open_finished(path)
