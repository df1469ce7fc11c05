"""Runs of seeds, and what a failing one tells."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.fakes.volumes import fast_directory
from tests.site.site import Site


@dataclass(frozen=True)
class Done:
    """A run that went well."""

    seen: Counter[str]
    lines: Sequence[str]


def run_seed(seed: int, *, keeps_log: bool = False) -> Done:
    """Run one seed.

    Raises:
        AssertionError: it failed; the message has the newest events, and how to run it again.
    """
    with fast_directory() as root:
        site = Site(seed, root, keeps_log=keeps_log)
        gc.disable()  # no object goes at a time that does not follow from the seed
        try:
            site.run()
        except Exception as error:
            events = "\n".join(site.lines())
            again = f"python -m tests.site {seed} --log"
            raise AssertionError(f"seed {seed}: {error}\n{events}\nagain: {again}") from error
        finally:
            gc.enable()
        return Done(site.seen, site.lines())
