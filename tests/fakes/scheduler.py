"""A scheduler that runs unmodified threaded code one thread at a time, in an order that a test chooses.

It replaces mirrortool.replay.threads: the code under test makes its locks, gates and threads here. Its threads
are real ones, but only the one with the baton runs. It may lose the baton before each lock, gate, join and named
point; what lies between two of those touches nothing that another thread touches, so no interleaving is missed.

Rule: a run is determined by its choices. Each choice is an index into the threads that can run, where 0 is the one
that runs, if it can. `Script` replays a list of them, `Walk` draws them from a seed, `explore` enumerates them.
Bound: STEPS_MAX decisions a run; more is a livelock. Threads are kept for the next run. All threads of a run are on one
processor, as handing the baton to another one costs more than most of what lies between two hand-overs.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

STEPS_MAX = 50_000

_PROCESSORS = os.sched_getaffinity(0)


def _one_processor() -> set[int]:
    """Another one in each test process, as far as there are so many."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return {sorted(_PROCESSORS)[number % len(_PROCESSORS)]}


_ONE_PROCESSOR = _one_processor()


class DeadlockError(AssertionError):
    """No thread can run, and not all have ended."""


class LivelockError(AssertionError):
    """The run does not end."""


class AbandonedError(BaseException):
    """Ends a thread of a run that has failed; code under test must not mind it."""


class Wanted(Protocol):
    """What a thread waits for."""

    def ready(self) -> bool:
        """Whether it need not wait any longer."""


class Chooser(Protocol):
    """Decides who runs next."""

    def choose(self, ready: Sequence[int], stay: bool) -> int:
        """An index into `ready`, the numbers of two threads or more; with `stay`, 0 continues the running one."""


class Walk:
    """A random walk; equal seeds walk equally.

    Two walks of three go by priorities, which change now and then: so one thread stays where it is while the others
    do a lot, which a walk that is fair at each step hardly ever shows.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random
        self._prioritised = seed % 3 > 0
        self._change = (0.5, 0.05, 0.2)[seed % 3]
        self._priorities: dict[int, float] = {}
        self.choices: list[int] = []

    def choose(self, ready: Sequence[int], stay: bool) -> int:
        if self._prioritised:
            choice = self._highest(ready)
        else:
            choice = 0 if stay and self._random() > self._change else int(self._random() * len(ready))
        self.choices.append(choice)
        return choice

    def _highest(self, ready: Sequence[int]) -> int:
        priorities = self._priorities
        for thread in ready:
            if thread not in priorities:
                priorities[thread] = self._random()
        if self._random() < self._change:
            priorities[ready[0]] = self._random()
        drawn = [priorities[thread] for thread in ready]
        return drawn.index(max(drawn))


class Script:
    """Replays choices, and continues without pre-empting any thread."""

    def __init__(self, choices: Sequence[int] = ()) -> None:
        self._given = list(choices)
        self._counts: list[tuple[int, bool]] = []
        self.choices: list[int] = []

    def choose(self, ready: Sequence[int], stay: bool) -> int:
        place, count = len(self.choices), len(ready)
        choice = self._given[place] if place < len(self._given) else 0
        assert choice < count, "not the run that these choices were made in"
        self.choices.append(choice)
        self._counts.append((count, stay))
        return choice

    def successor(self, preemptions: int) -> list[int] | None:
        """The choices of the next run, depth first, with at most so many pre-emptions; None after the last."""
        spent = [0]
        for choice, (_, stay) in zip(self.choices, self._counts, strict=True):
            spent.append(spent[-1] + (choice > 0 and stay))
        for place in range(len(self.choices) - 1, -1, -1):
            count, stay = self._counts[place]
            if self.choices[place] + 1 < count and spent[place] + stay <= preemptions:
                return [*self.choices[:place], self.choices[place] + 1]
        return None


def explore(run: Callable[[Chooser], None], *, preemptions: int, runs_max: int) -> tuple[int, bool]:
    """Run with every list of choices that pre-empts at most so often. (number of runs, whether that was all)."""
    choices: list[int] | None = []
    for count in range(runs_max):
        script = Script(choices or ())
        run(script)
        choices = script.successor(preemptions)
        if choices is None:
            return count + 1, True
    return runs_max, False


class _Worker:
    """A real thread, which runs one function after another, each when it gets the baton."""

    def __init__(self) -> None:
        self.baton = threading.Lock()
        self.baton.acquire()
        self.job: Callable[[], None] | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        os.sched_setaffinity(0, _ONE_PROCESSOR)  # of this thread
        while True:
            self.baton.acquire()
            assert self.job is not None
            self.job()


# Workers without a job; whoever has the baton takes and returns them.
_free: list[_Worker] = []


class _Strand:
    """One thread of a run. `wants` says what it waits for, if anything."""

    __slots__ = ("baton", "done", "name", "number", "scheduler", "wants", "worker")

    def __init__(self, scheduler: Scheduler, name: str, baton: threading.Lock, worker: _Worker | None) -> None:
        self.scheduler = scheduler
        self.number = len(scheduler.strands)
        self.name = name
        self.baton = baton
        self.worker = worker
        self.wants: Wanted | None = None
        self.done = False

    def ready(self) -> bool:
        """Whether a thread that joins this one can continue."""
        return self.done

    def join(self) -> None:
        self.scheduler.pause(self)


class _Lock:
    """`on_release` is called while the lock is still held; what it raises ends the run."""

    __slots__ = ("held", "on_release", "scheduler")

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.held = False
        self.on_release: Callable[[], None] | None = None

    def ready(self) -> bool:
        return not self.held

    def __enter__(self) -> None:
        self.scheduler.pause(self)
        self.held = True

    def __exit__(self, *_: object) -> None:
        if self.scheduler.abandoned:
            return
        if self.on_release is not None:
            try:
                self.on_release()
            except Exception as error:
                self.scheduler.fail(error)
        self.held = False


class _Gate:
    __slots__ = ("is_open", "scheduler")

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.is_open = False

    def ready(self) -> bool:
        return self.is_open

    def wait(self) -> None:
        self.scheduler.pause(self)
        self.is_open = False

    def open(self) -> None:
        self.scheduler.pause(None)
        if self.is_open:
            self.scheduler.fail(AssertionError("a gate was opened twice for one wait"))
        self.is_open = True


class _NobodyElse:
    """What a lingering thread wants."""

    def ready(self) -> bool:
        return False


_NOBODY_ELSE = _NobodyElse()


class Scheduler:
    """One run. Also what the code under test takes for its `ThreadSeam`."""

    def __init__(self, chooser: Chooser) -> None:
        self._choose = chooser.choose
        self.strands: list[_Strand] = []
        self._steps = 0
        self._error: Exception | None = None
        self.abandoned = False

    def run(self, main: Callable[[], None]) -> None:
        """Run `main` in the calling thread, with all threads that it spawns, until every one has ended.

        Raises:
            DeadlockError, LivelockError: that is how it ended.
            Exception: the first that any thread raised, or handed to `fail`.
        """
        baton = threading.Lock()
        baton.acquire()
        first = _Strand(self, "main", baton, None)
        self.strands.append(first)
        self._current = first
        os.sched_setaffinity(0, _ONE_PROCESSOR)
        try:
            self._run_strand(first, main)
            if not all(each.done for each in self.strands):
                baton.acquire()
        finally:
            os.sched_setaffinity(0, _PROCESSORS)
        if self._error is not None:
            raise self._error

    # The seam.

    def lock(self) -> _Lock:
        return _Lock(self)

    def gate(self) -> _Gate:
        return _Gate(self)

    def spawn(self, name: str, function: Callable[[], None]) -> _Strand:
        worker = _free.pop() if _free else _Worker()
        strand = _Strand(self, name, worker.baton, worker)
        worker.job = lambda: self._run_strand(strand, function)
        self.strands.append(strand)
        return strand

    def point(self) -> None:
        """Let somebody else run here."""
        self.pause(None)

    def linger(self) -> None:
        """Let everybody else run, until nobody else can."""
        self.pause(_NOBODY_ELSE)

    # For tests.

    def running(self) -> str:
        """The name of the thread that runs."""
        return self._current.name

    def fail(self, error: Exception) -> None:
        """End the run with an error that the code under test must not catch."""
        if self._error is None:
            self._error = error
        self.abandoned = True
        raise AbandonedError

    def pause(self, wants: Wanted | None) -> None:
        """Let the chooser decide; come back when chosen, with `wants` ready."""
        if self.abandoned:
            raise AbandonedError
        me = self._current
        me.wants = wants
        following = self._pick()
        if following is None:
            waiting = ", ".join(
                f"{each.name} for {type(each.wants).__name__}" for each in self.strands if not each.done
            )
            self.fail(DeadlockError(f"all wait: {waiting}"))
            return
        if following is not me:
            self._current = following
            following.baton.release()
            me.baton.acquire()
            if self.abandoned:
                raise AbandonedError
        me.wants = None

    def _pick(self) -> _Strand | None:
        """A thread that can run."""
        me = self._current
        # Half of all that a run does is done here, hence not by methods of strands.
        wants = me.wants
        stay = not me.done and (wants is None or wants.ready())
        ready = [me] if stay else []
        for each in self.strands:
            if each is not me and not each.done:
                wants = each.wants
                if wants is None or wants.ready():
                    ready.append(each)
        if not ready:
            ready = [each for each in self.strands if each.wants is _NOBODY_ELSE]
        if len(ready) < 2:
            return ready[0] if ready else None
        self._steps += 1
        if self._steps > STEPS_MAX:
            self.fail(LivelockError(f"no end after {STEPS_MAX} decisions"))
        return ready[self._choose([each.number for each in ready], stay)]

    def _run_strand(self, me: _Strand, function: Callable[[], None]) -> None:
        try:
            if not self.abandoned:
                function()
        except AbandonedError:
            pass
        except Exception as error:
            self._error = self._error or error
            self.abandoned = True
        self._end(me)

    def _end(self, me: _Strand) -> None:
        """Give the baton to the next; after the last, to the caller of `run`."""
        me.done = True
        following = self._following()
        if me.worker is not None:
            _free.append(me.worker)
        if following is None:
            if me is not self.strands[0]:
                self.strands[0].baton.release()
            return
        self._current = following
        following.baton.release()

    def _following(self) -> _Strand | None:
        unfinished = [each for each in self.strands if not each.done]
        if not self.abandoned and unfinished:
            try:
                following = self._pick()
            except AbandonedError:
                following = None
            if following is not None:
                return following
            self._error = self._error or DeadlockError("the rest waits for one that has ended")
            self.abandoned = True
        return unfinished[0] if unfinished else None
