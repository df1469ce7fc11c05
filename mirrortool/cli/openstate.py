"""Opens a state for the commands that read one, with progress: a journal without an index is read first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from mirrortool.cli.progressdisplay import Display, View
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.journal.directory import Journal
from mirrortool.journal.point import Until
from mirrortool.points.view import OnProgress, PointView, open_point
from mirrortool.serve.state import ShownState, open_state, warnings_of

State = TypeVar("State", ShownState, PointView)
_STOPPED = "stopped while it was opened"


class _OpeningCancelled(Exception):
    """A signal came."""


def open_with_display(path: str, until: Until | None, *, allow_fuzzy: bool, doing: str, quiet: bool) -> ShownState:
    """Open a state, and tell what is to be known of it.

    Args:
        doing: the command, for the display and for whoever asks who reads the journal.
    Raises:
        Interrupted: by a signal.
        MirrortoolError: as open_state.
    """

    def work(on_progress: OnProgress) -> ShownState:
        return open_state(path, until, allow_fuzzy=allow_fuzzy, doing=doing, on_progress=on_progress)

    return _open(work, lambda state: state.warnings, doing, quiet)


def open_view_with_display(journal: Journal, until: Until, *, allow_fuzzy: bool, doing: str, quiet: bool) -> PointView:
    """Open a journal at a commit; as `open_with_display`.

    Raises:
        Interrupted: by a signal.
        MirrortoolError: as open_point.
    """

    def work(on_progress: OnProgress) -> PointView:
        return open_point(journal, until, allow_fuzzy=allow_fuzzy, doing=doing, on_progress=on_progress)

    return _open(work, warnings_of, doing, quiet)


def _open(
    work: Callable[[OnProgress], State], warnings: Callable[[State], Sequence[str]], doing: str, quiet: bool
) -> State:
    done = total = 0
    is_cancelled = False

    def on_progress(now: int, most: int) -> None:
        nonlocal done, total
        done, total = now, most
        if is_cancelled:
            raise _OpeningCancelled

    def cancel() -> None:
        nonlocal is_cancelled
        is_cancelled = True

    def view() -> View:
        return View(done, total, done, "reading the journal")

    with Display(doing, quiet=quiet) as display:
        runner = Runner(lambda: work(on_progress), cancel, lambda: display.answer(view()))
        try:
            state = runner.run(lambda: display.show(view()) if total else None)
        except _OpeningCancelled:
            raise Interrupted(runner.signal_number, _STOPPED) from None
        if runner.signal_number:  # it was open before it looked
            state.close()
            raise Interrupted(runner.signal_number, _STOPPED)
        for warning in warnings(state):
            display.warn(f"WARNING: {warning}")
    return state
