"""Which lines of some modules an input reaches; sys.settrace, so that the ordinary tests need nothing else."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.judging import judge

Line = tuple[str, int]


def lines_of(modules: Iterable[str]) -> set[Line]:
    """The lines of the functions of these modules that hold code."""
    found: set[Line] = set()
    for name in modules:
        path = importlib.import_module(name).__file__
        assert path
        whole = compile(Path(path).read_text(), path, "exec", dont_inherit=True)
        for code in _inside(whole):
            if code.co_name != "<module>" and not _is_class(code):
                found |= {(path, line) for _, _, line in code.co_lines() if line and line != code.co_firstlineno}
    return found


def lines_reached(
    fuzz_one: Callable[[bytes], None], inputs: Sequence[bytes], modules: Iterable[str]
) -> list[set[Line]]:
    """Of each input, the lines that it reaches."""
    every = lines_of(modules)
    paths = {path for path, _ in every}
    reached: set[Line] = set()

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            reached.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def trace(frame: FrameType, _: str, __: Any) -> Any:
        return local if frame.f_code.co_filename in paths else None

    found = []
    before = sys.gettrace()
    for data in inputs:
        reached.clear()
        sys.settrace(trace)
        threading.settrace(trace)
        try:
            judge(fuzz_one, data)
        finally:
            sys.settrace(before)
            threading.settrace(before)  # type: ignore[arg-type]
        found.append(reached & every)
    return found


def fewest(reached: Sequence[set[Line]], sizes: Sequence[int], most: int) -> list[int]:
    """Which inputs reach together what all reach: greedily, the one that adds most lines first, the shorter first."""
    left = set().union(*reached) if reached else set()
    chosen: list[int] = []
    while left and len(chosen) < most:
        best = max(range(len(reached)), key=lambda i: (len(reached[i] & left), -sizes[i]))
        if not reached[best] & left:
            break
        chosen.append(best)
        left -= reached[best]
    return chosen


def _inside(code: CodeType) -> Iterable[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _inside(each)


def _is_class(code: CodeType) -> bool:
    return "__qualname__" in code.co_names and not code.co_flags & 0x1
