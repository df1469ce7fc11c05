"""`trace --timeline`: the picture of a trace, and the options that say which part of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import click

from mirrortool.cli.options import FILE, Value
from mirrortool.cli.outputfiles import check_picture, is_same_place, write_picture
from mirrortool.cli.progressdisplay import Display, View
from mirrortool.cli.text import printable, quoted, tell
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.errors import UsageError
from mirrortool.replay.tracing import TraceRecord
from mirrortool.trace.legend import caption_texts
from mirrortool.trace.proof import TraceCancelled, TraceReader
from mirrortool.trace.scene import Scene
from mirrortool.trace.timeline import draw, find_scene
from mirrortool.trace.window import Request

_HINT = "--window or --pages choose another."
_PAGE = r"(0x[0-9a-fA-F]{1,16}|\d{1,20})"
_PAGES = re.compile(rf"{_PAGE}(?:-{_PAGE})?")
_WINDOW = re.compile(r"(\d{1,10}(?:\.\d{1,9})?)-(\d{1,10}(?:\.\d{1,9})?)")
_Command = Callable[..., int]


def parse_pages(text: str) -> tuple[int, int]:
    """The first page and the last; decimal, or hexadecimal after 0x."""
    match = _PAGES.fullmatch(text.strip())
    first, last = (_number(match[1]), _number(match[2] or match[1])) if match else (1, 0)
    if last < first:
        raise ValueError(f"{text!r} is not a range of pages, such as 256-511 or 0x100-0x1ff")
    return first, last


def _number(digits: str) -> int:
    return int(digits, 16 if digits.startswith("0x") else 10)


def parse_window(text: str) -> tuple[float, float]:
    """Seconds since the trace began."""
    match = _WINDOW.fullmatch(text.strip())
    if not match or float(match[2]) <= float(match[1]):
        raise ValueError(f"{text!r} is not from a second to a later one, such as 0.5-0.75")
    return float(match[1]), float(match[2])


def timeline_options(command: _Command) -> _Command:
    """--timeline, --pages and --window."""
    for option in (
        click.option(
            "--window", type=Value("window", parse_window), metavar="START-END",
            help="Draw only these seconds of the trace, such as 0.5-0.75.",
        ),
        click.option(
            "--pages", type=Value("pages", parse_pages), metavar="FIRST-LAST",
            help="Draw only units that touch these pages.",
        ),
        click.option(
            "--timeline", type=FILE, metavar="FILE",
            help="Draw what each task did into this file, as SVG.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def _seconds(seconds: float) -> str:
    """As `parse_window` reads it: without an exponent."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".")


class TimelineFile:
    """A picture that is to be made."""

    def __init__(
        self, trace: str, path: str | None, pages: tuple[int, int] | None, window: tuple[float, float] | None
    ) -> None:
        """Check where it is to be written.

        Raises:
            UsageError: a part of a picture is chosen, but no picture; or `path` is the trace.
            AccessError: the file there is something else, or its directory does not exist.
        """
        if path is None and (pages or window):
            raise UsageError("--pages and --window choose what --timeline draws, which is not given")
        check_picture(path)
        if path is not None and is_same_place(trace, path):
            raise UsageError(f"--timeline would replace the trace {path}; choose another file")
        self._trace = trace
        self._path = path
        self._request = Request(pages, window)
        self._is_cancelled = False
        self._reader: TraceReader | None = None  # of the look that is being taken, for displays
        self._looks = 0

    def make(self, quiet: bool) -> None:
        """Draw, write the file, and tell what is on it; nothing, if no picture was asked for."""
        if self._path is None:
            return
        with Display("timeline", quiet=quiet) as display:
            runner = Runner(self._find, self._cancel, lambda: display.answer(self._view()))
            try:
                scene = runner.run(lambda: display.show(self._view()))
            except TraceCancelled:
                raise Interrupted(runner.signal_number, "stopped; nothing was drawn") from None
        write_picture(self._path, draw(scene, self._command(), _HINT))
        if not quiet:
            tell(printable(f"{self._path}: {next(caption_texts(scene, _HINT))}"))

    def _find(self) -> Scene:
        return find_scene(self._records, self._request)

    def _records(self) -> Iterator[TraceRecord]:
        with TraceReader(self._trace) as reader:
            self._reader = reader
            for record in reader.records():
                if self._is_cancelled:
                    raise TraceCancelled
                yield record
        self._looks += 1

    def _view(self) -> View:
        """The file is read twice."""
        reader = self._reader
        if reader is None:
            return View(0, 0, 0)
        done = min(self._looks, 1) * reader.size + reader.offset
        return View(min(done, 2 * reader.size), 2 * reader.size, done)

    def _cancel(self) -> None:
        self._is_cancelled = True

    def _command(self) -> str:
        pages, window = self._request.pages, self._request.window
        chosen = f" --pages {pages[0]}-{pages[1]}" if pages else ""
        chosen += f" --window {_seconds(window[0])}-{_seconds(window[1])}" if window else ""
        return printable(f"mirrortool trace {quoted(self._trace)} --timeline {quoted(self._path or '')}{chosen}")
