"""The environment in which tests run, and start programs: what is needed, and nothing that one machine has by chance.

PYTHONUNBUFFERED hides what a full disk does to buffered output, PYTHONDONTWRITEBYTECODE and LANG hide other things; an
option of mirrortool's in a variable would change what tests see; a shell's background jobs ignore SIGINT and SIGQUIT.
So they are gone, whoever starts the tests.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import mirrortool

KEPT = {"CI", "HOME", "MIRRORTOOL_STATE_DIRECTORY", "PATH", "PYTHON_GIL", "TMPDIR"}
KEPT_PREFIXES = ("MIRRORTOOL_BENCH_", "PYTEST_")
SOURCE = str(Path(mirrortool.__file__).parents[1])
"""Programs that tests start find the package under test here, wherever they are started."""


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment is needed, and where the package under test lies.

    A mirrortool that PATH finds may be another than the one under test, or none is there: no test may need it.
    """
    kept = {name: value for name, value in environment.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}
    places = kept.get("PATH", os.defpath).split(":")
    path = ":".join(place for place in places if not os.path.exists(os.path.join(place, "mirrortool")))
    return kept | {"PATH": path, "PYTHONPATH": SOURCE}


def clean_ours() -> None:
    """Of this process, for all that it starts."""
    kept = clean(os.environ)
    os.environ.clear()
    os.environ.update(kept)
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
