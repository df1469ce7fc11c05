"""How threads take turns at the interpreter, and when garbage is collected, while many threads do one work.

Both are settings of the whole process. Not here: memory of the C library (memory.py).
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_COLLECT_AFTER = 200_000


@contextmanager
def taking_turns(switch_seconds: float) -> Iterator[None]:
    """Let a thread that comes back from the kernel wait so long for the interpreter, at most, while another computes.

    And hold garbage collection back: what is recorded and replayed makes no cycles, and a collection visits all that
    waits while every thread stands. At the end both are as they were before; so one within another ends first.
    """
    before, collect_after = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(switch_seconds)
    gc.set_threshold(_COLLECT_AFTER, *collect_after[1:])
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        gc.set_threshold(*collect_after)
