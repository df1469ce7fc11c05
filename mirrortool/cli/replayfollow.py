"""What `replay --follow` prints while it runs: on a terminal the lag, and everywhere, once, what happens."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial

from mirrortool import clock, files, lockholder
from mirrortool.cli.progressdisplay import PLAIN_SECONDS, Display, Line, Tone
from mirrortool.cli.replayview import engine_lines
from mirrortool.cli.signals import Signals
from mirrortool.cli.text import counted, describe_silence, format_bytes, format_seconds, printable, tell
from mirrortool.cli.workthread import Runner
from mirrortool.errors import (
    HostError,
    JournalError,
    LockedError,
    NoSpaceError,
    PrunedJournalError,
    ServerError,
    UnfinishedArrivalError,
)
from mirrortool.journal.pathkind import PathKind, kind_of
from mirrortool.journal.tail import wait_for_journal
from mirrortool.mirror.checkpoint import describe
from mirrortool.mirror.findings import describe as describe_known
from mirrortool.replay.replaylag import ReplayLag
from mirrortool.replay.session import Replay, ReplayStatistics
from mirrortool.sdnotify import Notifier

_REOPEN_SECONDS = 30.0
_PAUSE_SECONDS = 1.0
_PAUSE_SECONDS_MAX = 30.0
"""Before a server is tried again that did not answer: each pause is twice the one before."""
BEHIND_SECONDS = 5.0
"""In a pipe, where it would fill a service's log, the lag is printed only while it is larger."""


def waited_for(journal: str, quiet: bool) -> bool:
    """Wait until there is a journal; False if a signal came before.

    Raises:
        NotAJournalError: what appeared there is not a journal that can be read.
    """
    kind = kind_of(journal)
    may_become = kind == PathKind.MISSING or (kind == PathKind.OTHER and files.is_directory(journal))
    if not may_become:  # a mirror, where the arguments were swapped, or a file: replay says so
        return True
    ending = threading.Event()
    with Display("replay", quiet=quiet) as display:
        waiting = f"waiting for a journal at {journal}"
        display.note(waiting)
        Notifier(os.environ, os.getpid()).ready("waiting for a journal")
        runner = Runner(lambda: wait_for_journal(journal, ending), ending.set, lambda: display.answer(waiting))
        found = runner.run(lambda: None)
    return found is not None


class Following:
    """A follower that starts again where that helps: after a full disk or a lost server, and when the journal has
    removed files.

    Attributes:
        replay: the one that is open; the last one, once it has ended.
        is_again: whether that is not the first.
    """

    def __init__(self, open_first: Callable[[], Replay], open_again: Callable[[], Replay] | None = None) -> None:
        """Open it.

        Args:
            open_again: opens it the next times; the first way by default.
        """
        self._open_replay = open_again or open_first
        self.replay = open_first()
        self._place = ExitStack()
        with suppress(LockedError, HostError):  # only for processes that ask; see lockholder.py
            if self.replay.goal is None:
                self._place.enter_context(lockholder.hold_beside(self.replay.mirror.path, "follower", "follow"))
        self.is_again = False
        self._told = ""

    def __enter__(self) -> Following:
        return self

    def __exit__(self, *exc: object) -> None:
        self._place.close()
        self.replay.__exit__(*exc)

    def run(self, once: Callable[[Replay], int]) -> None:
        """Follow until it is cancelled or over.

        Args:
            once: runs a replay that is open.
        Raises:
            MirrortoolError: of a kind that starting again does not help.
        """
        with Signals() as signals:  # one may come just when the work fails, or between two pieces of it
            while not signals.number:
                why = self._run_once(once)
                if not why:
                    return
                self.replay.__exit__()
                ending = threading.Event()
                found = Runner(partial(self._reopen, ending), ending.set, partial(self._answer, why)).run(lambda: None)
                if found is None:
                    return
                self.replay, self.is_again = found, True

    def _run_once(self, once: Callable[[Replay], int]) -> str:
        """Why it has to start again, in a phrase; empty if it is over."""
        try:
            once(self.replay)
            return ""
        except (PrunedJournalError, UnfinishedArrivalError) as error:
            why = f"{error.what}; starting over from a base"
            _tell(why)
        except NoSpaceError as error:
            why = f"blocked: {error}; retrying until there is space"
            self._tell_once(why)
        except ServerError as error:  # nothing is sent again: a new attempt begins at the last checkpoint
            why = f"lost: {error.where}: {error.what}; retrying"
            self._tell_once(why)
        return why

    def _reopen(self, ending: threading.Event) -> Replay | None:
        """The replay once more; None if `ending` is set before.

        A receiver may just now be replacing a copy's files by a base.

        Raises:
            MirrortoolError: it cannot continue, also after the receiver has had the time for that.
        """
        gives_up_at = clock.monotonic() + _REOPEN_SECONDS
        pause = _PAUSE_SECONDS
        while not ending.wait(pause):
            try:
                return self._open_replay()
            except NoSpaceError:
                continue
            except ServerError as error:
                pause = min(2 * pause, _PAUSE_SECONDS_MAX)
                self._tell_once(f"{error.where}: {error.what}; retrying")
            except JournalError:
                if clock.monotonic() > gives_up_at or not self.replay.journal.is_in_use():
                    raise
        return None

    def _answer(self, why: str) -> None:
        """Somebody asked (SIGUSR1)."""
        _tell(why)
        _tell(describe(self.replay.mirror.checkpoint))

    def _tell_once(self, text: str) -> None:
        if text != self._told:
            self._told = text
            _tell(text)


def _tell(text: str) -> None:
    tell(f"mirrortool: {printable(text)}")


class FollowWatch:
    """Watches one replay that follows; `tick` is called four times a second, and once at its end."""

    def __init__(self, display: Display, replay: Replay, *, is_again: bool, verbose: bool = False) -> None:
        self._display, self._replay, self._verbose = display, replay, verbose
        self._waits_for = ""
        self._is_silent = self._is_polling_told = False
        self._told_at = clock.monotonic()
        if not is_again:
            display.note(f"following {replay.journal.path}; {describe(replay.mirror.checkpoint, is_running=True)}")
            if replay.known_bad:
                display.warn(f"KNOWN BAD: {describe_known(replay.mirror, replay.known_bad, clock.now_ns())}")

    def tick(self, now: ReplayStatistics) -> None:
        self._tell_what_changed(now)
        if self._display.is_live:
            self._display.show_lines(self._lines(now))
        elif (
            now.lag.operations
            and now.lag.seconds >= BEHIND_SECONDS
            and clock.monotonic() - self._told_at >= PLAIN_SECONDS
        ):
            self._told_at = clock.monotonic()
            self._display.note(f"replay: {describe_lag(now.lag)}")

    def answer(self, now: ReplayStatistics) -> None:
        """Somebody asked (SIGUSR1)."""
        self._display.answer(*self._lines(now))

    def _tell_what_changed(self, now: ReplayStatistics) -> None:
        if now.is_polling and not self._is_polling_told:
            self._is_polling_told = True
            self._display.note("the journal's files are polled, not watched")
        if now.waits_for != self._waits_for:
            self._waits_for = now.waits_for
            self._display.warn(now.waits_for or "the journal continues")
        silent = now.lag.silent_seconds
        if (silent is not None) != self._is_silent:
            self._is_silent = silent is not None
            self._display.warn(describe_silence(now.lag.head_time_ns, silent) or "the primary is back")

    def _lines(self, now: ReplayStatistics) -> list[str]:
        done = f"{counted(now.progress.operations, 'operation')}, {format_bytes(now.progress.payload_bytes)} replayed"
        checkpoint = self._replay.mirror.checkpoint
        is_short = not (now.lag.operations or checkpoint.is_consistent)
        lag = "waiting for the commit that it needs" if is_short else describe_lag(now.lag)
        tone = Tone.WAITING if is_short or now.lag.seconds >= BEHIND_SECONDS else Tone.PLAIN
        lines = [describe(checkpoint, is_running=True), Line(lag, tone), done]
        if now.waits_for:
            lines.append(Line(now.waits_for, Tone.WAITING))
        if self._verbose:
            lines += engine_lines(now, self._display.width)
        return lines


def describe_lag(lag: ReplayLag) -> str:
    """How far a mirror is behind, as a phrase."""
    if not lag.operations and lag.silent_seconds:
        return f"up to date with what has come; the primary is silent for {format_seconds(lag.silent_seconds)}"
    if not lag.operations:
        return "up to date"
    left = f", {format_seconds(lag.eta_seconds)} left" if lag.eta_seconds else ""
    amount = f"{counted(lag.operations, 'operation')}, {format_bytes(lag.bytes)}"
    return f"{amount} and {format_seconds(lag.seconds)} behind{left}"
