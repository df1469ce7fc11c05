"""What is a finding: an error without a type of ours, a false promise, too much time or memory for one input.

Time is the processor's, as the machine may be busy. Memory is bounded by RLIMIT_AS in the fuzzer's process, where a
MemoryError is a finding like any other, and by tracemalloc where the corpora are run in a process of others.
"""

from __future__ import annotations

import time
import traceback
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

from mirrortool.errors import MirrortoolError

SECONDS_MAX = 2.0
"""Of processor time for one input; the fuzzer ends a process that hangs for ten times as long."""
PEAK_BYTES_MAX = 128 << 20
"""Of memory for one input."""


@dataclass(frozen=True)
class Finding:
    """What is wrong; equal for inputs that show the same.

    Attributes:
        kind: the error's type, or `slow`.
        place: where in the code it was raised.
    """

    kind: str
    place: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.kind} at {self.place}: {self.text}"

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.place


def judge(fuzz_one: Callable[[bytes], None], data: bytes) -> Finding | None:
    """Run one input; None if that ended well, or with an error that says what and where."""
    began = time.process_time()
    try:
        fuzz_one(data)
    except MirrortoolError as error:
        str(error)
        if error.exit_code == MirrortoolError.exit_code:
            return _of(error)
    except Exception as error:
        return _of(error)
    seconds = time.process_time() - began
    if seconds > SECONDS_MAX:
        return Finding("slow", "an input", f"{seconds:.1f} seconds")
    return None


def peak_bytes(fuzz_one: Callable[[bytes], None], data: bytes) -> int:
    """The most memory that an input needs at once, beside what was in use before."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    judge(fuzz_one, data)
    return tracemalloc.get_traced_memory()[1] - before


def _of(error: Exception) -> Finding:
    frames = [each for each in traceback.extract_tb(error.__traceback__) if "/fuzz/judging" not in each.filename]
    ours = [each for each in frames if "/mirrortool/" in each.filename and "/tests/" not in each.filename]
    frame = (ours or frames)[-1]
    name = frame.filename.rpartition("/mirrortool/")[2]
    return Finding(type(error).__name__, f"{name}:{frame.lineno}", str(error)[:200])
