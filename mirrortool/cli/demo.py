"""`mirrortool demo`: the main job, on a volume of its own, with everything that can go wrong on the way.

Each step checks what it claims, and the demo fails with the first claim that does not hold.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from click.core import ParameterSource

from mirrortool import clock, files, pathowner
from mirrortool.address import SEGMENT_BYTES
from mirrortool.cli import demosteps
from mirrortool.cli.options import DIRECTORY, SIZE, quiet, verbose
from mirrortool.cli.progressdisplay import Display, View
from mirrortool.cli.replayview import describe_ways, view_of, ways_of
from mirrortool.cli.text import counted, format_bytes, format_seconds, printable, tell
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.errors import MirrortoolError, UsageError, host_error
from mirrortool.files import File
from mirrortool.journal.point import Until
from mirrortool.mirror.checkpoint import describe
from mirrortool.record.createjournal import NewVolume, init
from mirrortool.record.mark import mark
from mirrortool.record.scan import Scan
from mirrortool.replay.engine import Plan
from mirrortool.replay.session import Replay
from mirrortool.status import mirror_status
from mirrortool.verify import Verify, VerifyResult

PAGE = 4096
MIB = 1 << 20
SIZE_MIN = 64 * MIB
PLAN = Plan(ranges="interleaved", groups=4, tasks=8, unit="op")
_ROUNDS = 16
_ATTEMPTS = 20
_POLL_SECONDS = 0.002


class DemoError(MirrortoolError):
    """A claim of the demo did not hold: a bug, or a machine that loses writes."""


@click.command("demo")
@click.option(
    "--size", type=SIZE, default="256M", show_default=True, metavar="SIZE", help="Of the volume; 64M or more."
)
@click.option("--keep", metavar="DIR", type=DIRECTORY, help="Work in this new directory, and leave it there.")
@click.option("--steps", is_flag=True, help="Show how five units go through a task group, step by step; no volume.")
@verbose
@quiet
@click.pass_context
def command(context: click.Context, size: int, keep: str | None, steps: bool, verbose: bool, quiet: bool) -> None:
    """Mirror a volume before your eyes, kill the replay half-way, and prove the result.

    Everything happens in a temporary directory. Nothing of yours is read or written.
    """
    if steps:
        _check_alone(context)
        for line in demosteps.text(demosteps.output_width()):
            if not quiet:
                click.echo(line)
        return
    if size < SIZE_MIN or size % PAGE:
        raise UsageError("the demo's volume is 64M or more, in whole pages of 4096 bytes")
    with _workplace(keep) as directory:
        demo = Demo(directory, size, quiet, verbose)
        runner = Runner(demo.run, demo.cancel, demo.answer)
        try:
            runner.run(demo.tick)
        except DemoCancelled:
            raise Interrupted(runner.signal_number, "demo stopped") from None


def _check_alone(context: click.Context) -> None:
    """An option of the volume, given with --steps, is an error; a variable of the environment is not."""
    for name in ("size", "keep"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"--steps makes no volume, so --{name} has no meaning with it")


class DemoCancelled(Exception):
    """A signal ended the demo."""


class Demo:
    """The steps of the demo, in order; run in a thread, while the main thread calls `tick`."""

    def __init__(self, directory: str, size: int, quiet: bool, verbose: bool = False) -> None:
        self._directory = directory
        self._size = size
        self._quiet, self._verbose = quiet, verbose
        self._random = random.Random(123)
        self._ways: Counter[str] = Counter()
        self._is_cancelled = False
        # Set by the thread of `run`, read by the main thread.
        self._said = "the demo begins"
        self._shown: tuple[Display, Callable[[], View]] | None = None

    def run(self) -> None:
        """All steps.

        Raises:
            DemoError: a claim does not hold.
        """
        started = clock.monotonic()
        self._record()
        self._replay_and_kill()
        self._resume()
        self._damage()
        self._go_back()
        self._see_all_ways()
        self._say(f"done in {format_seconds(clock.monotonic() - started)}; every step above was checked")
        self._next_steps()

    def cancel(self) -> None:
        """Stop before the next step; from any thread."""
        self._is_cancelled = True

    def tick(self) -> None:
        """Feed the display of the step that has one; called by the main thread."""
        if shown := self._shown:
            display, view = shown
            display.show(view())

    def answer(self) -> None:
        """Print what was said last, and how far the step is that has a display: somebody asked (SIGUSR1)."""
        tell(printable(self._said))
        if shown := self._shown:
            display, view = shown
            display.answer(view())

    def _record(self) -> None:
        """A volume that changes in ways that conflict: small writes, the megabyte around them, small writes again."""
        self._step("init", f"a volume of {format_bytes(self._size)}, and a journal for it")
        init(self._path("journal"), [NewVolume("disk", self._path("disk.img"), self._size)], PAGE)
        with files.open_file(self._path("disk.img"), write=True) as disk:
            self._write(disk, ((offset, MIB) for offset in range(0, self._size, MIB)))
            self._say(f"record  everything that is not zero: {self._scan()}")
            for _ in range(_ROUNDS):
                self._write(disk, self._every_other_page())
                self._scan()
                self._write(disk, ((area, MIB) for area in self._hot_areas()))
                self._scan()
            self._say(f"record  {2 * _ROUNDS} more times, while small and large writes overwrite each other")
            mark(self._path("journal"), "before-upgrade")
            self._copy(disk, "disk-before-upgrade.img")
            self._write(disk, self._every_other_page())
            disk.punch(self._size // 2, 8 * MIB)
            self._say(f"record  pages changed, 8 MiB discarded: {self._scan()}")

    def _replay_and_kill(self) -> None:
        """A real process, and a real SIGKILL when half of the volume is written."""
        self._step("replay", "in another process, killed with SIGKILL half-way")
        for attempt in range(_ATTEMPTS):
            self._check_cancelled()
            if self._kill_one(self._path(f"mirror-{attempt}")):
                self._mirror = self._path(f"mirror-{attempt}")
                break
        else:
            raise DemoError("the replay was too fast to be killed half-way", remedy="give a larger --size")
        checkpoint = mirror_status(self._mirror).checkpoint
        self._say(f"    killed; {describe(checkpoint)}")
        self._require(not checkpoint.is_consistent, "the mirror of a killed replay says that it is between two commits")
        result = self._verify(self._mirror)
        self._require(not result.bad_pages, "pages after the position are not called bad")
        self._say(f"    verify: no bad page, {result.pages_in_flight} not judged; not comparable yet")

    def _kill_one(self, mirror: str) -> bool:
        arguments = [sys.executable, "-m", "mirrortool", "replay", "-q", self._path("journal"), mirror]
        try:
            process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        except OSError as error:
            raise host_error(error, sys.executable, "run") from error
        image = files.join(mirror, "volumes", "disk.img")
        while process.poll() is None:
            facts = files.find_facts(image)
            if facts and facts.allocated >= self._size // 2:
                process.send_signal(signal.SIGKILL)
                return process.wait() == -signal.SIGKILL
            clock.sleep(_POLL_SECONDS)
        return False

    def _resume(self) -> None:
        division = f", now with {PLAN.groups} groups of {PLAN.tasks} tasks" if self._verbose else ""
        self._step("replay", f"again: it resumes{division}")
        self._replay(self._mirror, None)
        self._compare(self._mirror, "disk.img")
        self._step("verify", "each page, and the state sum against the primary's")
        result = self._verify(self._mirror)
        self._require(result.is_right and result.journal_agrees is True, "the mirror is right")
        self._say(f"    {counted(result.pages_checked, 'page')} checked, no bad page, state sum as in the journal")

    def _damage(self) -> None:
        self._step("damage", "one byte of the mirror is changed by another program")
        page = self._size // PAGE // 3
        with files.open_file(files.join(self._mirror, "volumes", "disk.img"), write=True) as image:
            byte = image.pread(1, page * PAGE + 77)
            image.pwrite(bytes([byte[0] ^ 1]), page * PAGE + 77)
            result = self._verify(self._mirror)
            image.pwrite(byte, page * PAGE + 77)
        found = [(run.first_page, run.count) for run in result.bad_runs]
        self._require(found == [(page, 1)], "verify names the one page that differs")
        last = result.bad_runs[0].last_write
        self._require(last is not None, "verify names the operation that wrote it last")
        assert last is not None
        self._say(f"    verify: bad page {page}, last written by LSN {last.lsn} in {last.file}; restored")

    def _go_back(self) -> None:
        self._step("replay", "into a second mirror, up to the mark before-upgrade")
        second = self._path("mirror-before-upgrade")
        self._replay(second, Until(mark="before-upgrade"))
        self._compare(second, "disk-before-upgrade.img")
        self._require(self._verify(second).is_right, "the second mirror is right")

    def _see_all_ways(self) -> None:
        """Operations that conflict came to their tasks in each way. Which way one goes depends on the timing."""
        wanted = ("mini-queue", "counter wait", "give-back")
        for attempt in range(_ATTEMPTS):
            if all(self._ways[way] for way in wanted):
                return
            self._step("replay", "once more: not every way in which conflicting operations are ordered has been seen")
            self._replay(self._path(f"mirror-again-{attempt}"), None)
        for way in wanted:
            self._require(self._ways[way] > 0, f"operations that conflict cause a {way}")

    def _next_steps(self) -> None:
        self._say("next, with a disk image of your own:")
        self._say("    mirrortool init JOURNAL disk=PATH && mirrortool record JOURNAL")
        self._say("    mirrortool replay JOURNAL MIRROR && mirrortool verify MIRROR")

    def _scan(self) -> str:
        """Record; returns what was found."""
        self._check_cancelled()
        with Scan(self._path("journal")) as scan:
            result = scan.run()
        now = result.statistics
        return (
            f"commit at LSN {result.commit.lsn}, {counted(now.pages_written, 'page')} written, "
            f"{now.pages_zeroed} zeroed, {format_bytes(now.bytes_journaled)} journaled"
        )

    def _replay(self, mirror: str, until: Until | None) -> None:
        """Replay with the live display, and count how the units came to their tasks."""
        self._check_cancelled()
        with Replay(self._path("journal"), mirror, plan=PLAN, until=until) as replay:
            start, goal = replay.mirror.checkpoint.position.lsn, replay.goal
            assert goal, "a replay that does not follow has one"

            def view() -> View:
                now = replay.statistics()
                return view_of(now, start, goal, verbose=self._verbose, width=display.width)

            with Display("replay", quiet=self._quiet) as display:
                self._shown = display, view
                try:
                    checkpoint = replay.run()
                finally:
                    self._shown = None
            groups = replay.statistics().groups
        self._require(checkpoint.is_consistent, "a finished replay leaves a commit")
        ways = ways_of(groups)
        self._ways.update(ways)
        if self._verbose:
            self._say(f"    {describe_ways(ways)}")

    def _verify(self, mirror: str) -> VerifyResult:
        self._check_cancelled()
        with Verify(mirror) as verify:
            return verify.run()

    def _write(self, disk: File, places: Iterator[tuple[int, int]]) -> None:
        """Fresh data, half of it compressible, at each (offset, length)."""
        self._check_cancelled()
        for offset, length in places:
            half = self._random.randbytes(length // 2)
            disk.pwrite(half + half[:16] * (length // 32), offset)

    def _hot_areas(self) -> range:
        """A megabyte in each of the first segments, so that each group has one."""
        return range(0, PLAN.groups * SEGMENT_BYTES, SEGMENT_BYTES)

    def _every_other_page(self) -> Iterator[tuple[int, int]]:
        return ((area + page, PAGE) for area in self._hot_areas() for page in range(0, MIB, 2 * PAGE))

    def _copy(self, disk: File, name: str) -> None:
        with files.make_file(self._path(name)) as copy:
            for offset in range(0, self._size, MIB):
                copy.pwrite(disk.pread(MIB, offset), offset)

    def _compare(self, mirror: str, name: str) -> None:
        """Byte by byte, as cmp does."""
        image = files.join(mirror, "volumes", "disk.img")
        with files.open_file(image) as ours, files.open_file(self._path(name)) as theirs:
            is_same = ours.size() == theirs.size() and all(
                ours.pread(MIB, offset) == theirs.pread(MIB, offset) for offset in range(0, self._size, MIB)
            )
        self._require(is_same, f"the mirror is byte for byte {name}")
        self._say(f"    byte for byte the same as {name}")

    def _path(self, name: str) -> str:
        return files.join(self._directory, name)

    def _step(self, title: str, text: str) -> None:
        self._check_cancelled()
        self._say(f"{title:8}{text}")

    def _say(self, text: str) -> None:
        self._said = text
        if not self._quiet:
            click.echo(printable(text))

    def _require(self, holds: bool, claim: str) -> None:
        if not holds:
            raise DemoError(f"does not hold: {claim}", where=self._directory)

    def _check_cancelled(self) -> None:
        if self._is_cancelled:
            raise DemoCancelled


@contextmanager
def _workplace(keep: str | None) -> Iterator[str]:
    if keep is None:
        with files.temporary_directory() as directory:
            yield directory
        return
    pathowner.check_free(keep)
    files.make_directory(keep, mode=0o700)
    yield keep
