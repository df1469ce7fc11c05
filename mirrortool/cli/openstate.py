"""Opens a state for the commands that show one, with progress: a journal without an index is read first."""

from __future__ import annotations

from mirrortool.cli.progressdisplay import Display, View
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.journal.point import Until
from mirrortool.serve.state import ShownState, open_state

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

    def work() -> ShownState:
        return open_state(path, until, allow_fuzzy=allow_fuzzy, doing=doing, on_progress=on_progress)

    with Display(doing, quiet=quiet) as display:
        runner = Runner(work, cancel, lambda: display.answer(view()))
        try:
            state = runner.run(lambda: display.show(view()) if total else None)
        except _OpeningCancelled:
            raise Interrupted(runner.signal_number, _STOPPED) from None
        if runner.signal_number:  # it was open before it looked
            state.close()
            raise Interrupted(runner.signal_number, _STOPPED)
        for warning in state.warnings:
            display.warn(f"WARNING: {warning}")
    return state
