"""Runs of seeds, and what a failing one tells."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.fakes.scheduler import _ONE_PROCESSOR, _PROCESSORS
from tests.fakes.volumes import fast_directory
from tests.site.site import Site


@dataclass(frozen=True)
class Done:
    """A run that went well."""

    seen: Counter[str]
    lines: Sequence[str]


def run_seed(seed: int, *, is_long: bool = False, keeps_log: bool = False) -> Done:
    """Run one seed; a long run has more events.

    Raises:
        AssertionError: it failed; the message has the newest events, and how to run it again.
    """
    with fast_directory() as root:
        site = Site(seed, root, is_long=is_long, keeps_log=keeps_log)
        gc.disable()  # no object goes at a time that does not follow from the seed
        os.sched_setaffinity(0, _ONE_PROCESSOR)  # as the threads are that take turns with this one
        try:
            site.run()
        except Exception as error:
            events = "\n".join(site.lines())
            again = f"python -m tests.site {seed}{' --long' if is_long else ''} --log"
            raise AssertionError(f"seed {seed}: {error}\n{events}\nagain: {again}") from error
        finally:
            os.sched_setaffinity(0, _PROCESSORS)
            gc.enable()
        return Done(site.seen, site.lines())
