"""Settings of the whole process: the thread switch interval, garbage collection, and the limit of open files.

Not here: memory of the C library (malloc.py).
"""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_COLLECT_AFTER = 200_000
_OPEN_FILES = 65536


def allow_open_files() -> None:
    """As many as the host lets this process have, up to 65,536: a volume needs some, and a soft limit of 1,024 is for
    programs that use select(2), which this one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def taking_turns(switch_seconds: float) -> Iterator[None]:
    """The longest that a thread back from the kernel waits for the interpreter while another computes.

    Garbage collection is held back, too: what is recorded and replayed makes no cycles, and a collection stops every
    thread while it visits all that waits. At the end both are as they were before; a use inside another must end first.
    """
    before, collect_after = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(switch_seconds)
    gc.set_threshold(_COLLECT_AFTER, *collect_after[1:])
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        gc.set_threshold(*collect_after)
