"""The program, and `python -m mirrortool`."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def run() -> NoReturn:
    """The entry point."""
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
