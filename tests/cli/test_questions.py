"""SIGUSR1 asks a command what it is doing: it answers on standard error, and never ends because of that."""

from __future__ import annotations

import random
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from tests.fakes.daemon import FULL_DISK, PROGRAM, SLOW_DISK
from tests.fakes.processsignals import has, takes
from tests.fakes.volumes import inside_fast_directory
from tests.fakes.waiting import nap, wait_until

STOPPED = 128 + signal.SIGTERM
MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """A command that runs for a while.

    Attributes:
        arguments: in a place as `place` makes it.
        answer: pattern of what it answers while it does its work.
        code: what it ends with after SIGTERM, if it has not ended before.
        program: the beginning of the command line.
    """

    arguments: str
    answer: str
    code: int = STOPPED
    program: Sequence[str] = PROGRAM


CASES = {
    "record": Case("record J -q", "^scan ", program=SLOW_DISK),
    "record --before": Case("record J --before 'sleep 1'", "--before is running: sleep 1"),
    "record --every": Case("record J --every 1h", "the next scan begins in ", 0),
    "record --nbd": Case("record J --nbd unix:socket -q", "not yet written to the volumes", 0),
    "replay": Case("replay J N --bwlimit 256K -q", "^(no task has work now|GROUP )"),
    "replay --follow": Case("replay J N --follow -q", "up to date", 0),
    "replay --follow of no journal": Case("replay K N --follow -q", "waiting for a journal at K", 0),
    "replay --follow without room": Case("replay J N --follow", "retrying until there is space", 0, FULL_DISK),
    "ship": Case("ship J copy --bwlimit 64K", "BEHIND"),
    "ship --follow": Case("ship J copy --follow -q", "up to date", 0),
    "receive": Case("receive copy", "receiving into copy: waiting for the sender"),
    "verify of a mirror": Case("verify M -q", "^verify ", program=SLOW_DISK),
    "verify of a journal": Case("verify J -q", "^verify ", program=SLOW_DISK),
    "serve": Case("serve J --nbd unix:socket -q", "^as of LSN ", 0),
    "export": Case("export J disk out -q", "^export ", program=SLOW_DISK),
    "diff": Case("diff J disk newest newest -q", "^diff ", program=SLOW_DISK),
    "base": Case("base J -q", "^base ", program=SLOW_DISK),
    "import": Case("import J log --format fio -q", "^import ", program=SLOW_DISK),
    "promote": Case("promote M --yes -q", "^(replay|verify) ", program=SLOW_DISK),
    "trace": Case("trace units -q", "^trace ", program=SLOW_DISK),
    "bench": Case("bench --latency 1s --writes 100", "0 of 12 runs measured"),
    "demo": Case("demo --size 64M -q", "record "),
    "status --watch": Case("status J --watch", "journal J", 0),
}
EACH_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture
def place() -> Iterator[Path]:
    """The current directory: a journal, a mirror of it, the trace of its replay, and a log to import."""
    with inside_fast_directory() as directory:
        Path("disk.img").write_bytes(random.Random(1).randbytes(2 * MIB))
        assert main(["init", "J", "disk=disk.img", "-q"]) == 0
        assert main(["record", "J", "-q"]) == main(["replay", "J", "M", "-q", "--trace", "units"]) == 0
        lines = (f"{n} /disk write {n % 512 * 4096} 4096\n{n} /disk sync 0 0\n" for n in range(2000))
        Path("log").write_text("fio version 3 iolog\n0 /disk add\n0 /disk open\n" + "".join(lines))
        yield Path(directory)


class Running:
    """A command as a process that can be asked."""

    def __init__(self, process: subprocess.Popen[bytes], errors: Path) -> None:
        self.process, self._errors = process, errors

    @property
    def said(self) -> str:
        return self._errors.read_text()

    def ask(self) -> bool:
        """Whether it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)
        return self.process.returncode is None

    def ask_at_random(self, chance: random.Random, moments: int, pause: float) -> int:
        """How often it was asked before it ended by itself; `pause` is the longest between two questions."""
        for number in range(moments):
            nap(chance.uniform(0, pause))
            if not self.ask():
                return number
        return moments

    def ask_until_it_says(self, pattern: str) -> None:
        says = re.compile(pattern, re.MULTILINE).search

        def has_answered() -> bool:
            return bool(says(self.said)) or not self.ask()

        wait_until(has_answered, told=lambda: self.said)
        assert says(self.said), (self.process.returncode, self.said)

    def ends(self, case: Case, *, early: bool = False) -> None:
        """It has ended by itself, or ends as after any SIGTERM, which may come before it has begun; no traceback."""
        assert self.process.poll() in (None, 0), (self.process.returncode, self.said)
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        assert code in (0, case.code, *((-signal.SIGTERM, STOPPED) if early else ())), (code, self.said)
        assert "Traceback" not in self.said


@contextmanager
def running(
    program: Sequence[str], arguments: str, may_be_asked: Callable[[int], bool] = lambda pid: takes(pid, signal.SIGUSR1)
) -> Iterator[Running]:
    """From the moment when it does not simply end by SIGUSR1."""
    errors = Path("errors")
    with errors.open("wb") as file:
        process = subprocess.Popen(
            [*program, *shlex.split(arguments)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=file
        )
    try:
        wait_until(lambda: process.poll() is not None or may_be_asked(process.pid))
        yield Running(process, errors)
    finally:
        process.kill()
        process.wait()


@EACH_CASE
@pytest.mark.usefixtures("place")
def test_a_command_answers_and_never_ends_of_it(case: Case) -> None:
    with running(case.program, case.arguments) as command:
        command.ask_at_random(random.Random(), 5, 0.03)
        command.ask_until_it_says(case.answer)
        command.ends(case)


@pytest.mark.usefixtures("place")
def test_a_command_that_was_started_with_it_ignored_answers_too() -> None:
    """So even the start of the interpreter is outlived."""
    program = ("env", "--ignore-signal=USR1", *PROGRAM)
    case = CASES["replay --follow of no journal"]
    with running(program, case.arguments, lambda pid: has(pid, "SigIgn", signal.SIGUSR1)) as command:
        assert command.ask_at_random(random.Random(), 20, 0.01) == 20
        command.ask_until_it_says(case.answer)
        command.ends(case)


@pytest.mark.usefixtures("place")
def test_asked_before_the_interpreter_has_started_it_lives_if_its_parent_ignored_the_signal() -> None:
    """As with `trap '' USR1` in the shell that starts it."""
    case = CASES["replay --follow of no journal"]
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        process = subprocess.Popen([*PROGRAM, *shlex.split(case.arguments)], stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGUSR1, before)
    with process:
        for _ in range(30):
            process.send_signal(signal.SIGUSR1)
            nap(0.01)
        assert process.poll() is None
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert said


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
@pytest.mark.usefixtures("place")
def test_a_short_command_is_not_ended_either(number: signal.Signals) -> None:
    """Nor while the interpreter ends, which no longer has handlers then."""
    for _ in range(3):
        with running(PROGRAM, "log J") as command:
            while command.process.poll() is None:
                command.process.send_signal(number)
                nap(0.0005)
            assert command.process.returncode == 0, command.said


def test_the_handler_waits_for_no_import() -> None:
    """Each millisecond more is one in which the signal kills. The program that pip makes has imported re."""
    program = (
        "import re, sys; before = set(sys.modules)\n"
        "import mirrortool.__main__; print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = {name for name in done.stdout.split() if not name.startswith("importlib")}
    assert imported <= {"__future__", "mirrortool", "mirrortool.__main__", "signal", "warnings"}


@pytest.mark.soak
@EACH_CASE
@pytest.mark.usefixtures("place")
def test_fifty_questions_at_random_moments(case: Case) -> None:
    chance = random.Random()
    asked = starts = 0
    while asked < 50:
        with running(case.program, case.arguments) as command:
            asked += command.ask_at_random(chance, min(10, 50 - asked), chance.choice([0.01, 0.05, 0.2]))
            command.ends(case, early=True)
            starts += 1
    print(f"{case.arguments}: asked {asked} times in {starts} starts")
