"""The program, and `python -m mirrortool`.

SIGUSR1 asks a command what it is doing. Its default is to kill, so a handler is there before anything is imported that
takes time: neither this module nor the package above it imports more than what is loaded already.
"""

from __future__ import annotations

import signal
import sys

TYPE_CHECKING = False  # the one of `typing`, whose import takes 8 ms
if TYPE_CHECKING:
    from typing import NoReturn


def run() -> NoReturn:
    """The entry point."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) == signal.SIG_DFL:
            # Not SIG_IGN: the programs that we run, such as ssh, would begin with it ignored, too.
            signal.signal(number, lambda _number, _frame: None)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until main takes over there is nothing to leave tidy, and Ctrl-C would print a traceback of our imports.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mirrortool.cli import startupsignals

    if startupsignals.is_long_running(sys.argv[1:]):
        startupsignals.end_at_once()
    from mirrortool.cli import main

    main.run()


if __name__ == "__main__":
    run()
