"""Processes of model hosts, whose threads run one at a time, in an order and at times that follow from a seed.

Each thread of the code under test is a real one, a *strand*: only the one with the baton runs. It may lose the baton
at each lock, wait, file call and link call. Time is the scheduler's: it passes a little at each of those, and by a leap
when everybody waits. A strand belongs to a process, which kill -9 ends at such a point: all its strands end there, none
of its calls changes a file any more, and its files are closed, so that its locks are given back.

`Threading` and `Queues` take the place of the modules `threading` and `queue` in the code under test.
"""

from __future__ import annotations

import math
import os
import queue
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from mirrortool.files import File
from tests.fakes.scheduler import _free, _Worker

SECOND = 10**9
STEP_NS = 20_000
"""What a step takes at least."""


class KilledError(BaseException):
    """Ends a strand of a process that was killed."""


class DeadlockError(AssertionError):
    """Everybody waits, and for no time."""


class EndlessError(AssertionError):
    """A run takes more steps than one that ends."""


class Process:
    """A process of a host.

    Attributes:
        error: what its main function raised, if that was not a kill.
        calls_left: file and link calls until it is killed; None for no kill.
        at_end: called in turn when it has ended, however it did.
        told: asks it to end.
    """

    def __init__(self, name: str, host: Any, pid: int) -> None:
        self.name, self.host, self.pid = name, host, pid
        self.is_dead = self.has_ended = self.was_killed = False
        self.error: BaseException | None = None
        self.calls_left: int | None = None
        self.strands: list[Strand] = []
        self.files: list[weakref.ref[File]] = []
        self.at_end: list[Callable[[], None]] = []
        self.told: Callable[[], None] = lambda: None

    def has_open(self, path: str) -> bool:
        """Whether it has a file of this path open."""
        files = (reference() for reference in self.files)
        return any(file is not None and file.path == path and file._fd >= 0 for file in files)

    def close_files(self) -> None:
        """As the kernel does for a process that is gone."""
        for reference in self.files:
            file = reference()
            if file is not None and file._fd >= 0:
                descriptor, file._fd = file._fd, -1
                os.close(descriptor)
        self.files = []


class Strand:
    """A thread. `wants` says whether it can continue, at `until` it can anyway."""

    __slots__ = ("baton", "ident", "is_done", "name", "process", "thread", "until", "wants", "worker")

    def __init__(self, name: str, ident: int, process: Process | None, baton: threading.Lock) -> None:
        self.name, self.ident, self.process, self.baton = name, ident, process, baton
        self.worker: _Worker | None = None
        self.thread = threading.get_ident()  # of a worker's once it runs
        self.wants: Callable[[], bool] | None = None
        self.until: int | None = None
        self.is_done = False


class Scheduler:
    """One run. Its caller's thread is the first strand, the driver's, which belongs to no process.

    Attributes:
        now: nanoseconds of the time that no host's clock shows.
        switching: with which chance a strand loses the baton at a point where it need not.
    """

    def __init__(self, chance: random.Random, steps_max: int) -> None:
        self._draw = chance.random
        self._steps_max = steps_max
        self.now = 0
        self.steps = 0
        self.switching = 0.1
        self._count = 0
        driver = Strand("driver", 0, None, threading.Lock())
        driver.baton.acquire()
        self.current = driver
        self._strands = [driver]
        self.failure: AssertionError | None = None  # raised in the driver
        self._returns_to: Strand | None = None  # the one that kills, and continues when the killed have ended

    # For strands.

    def point(self) -> None:
        """Somebody else may run here; the process may have been killed meanwhile."""
        me = self.current
        if me.process is not None and me.process.is_dead:
            raise KilledError
        self.now += STEP_NS
        if self._draw() < self.switching:
            self._switch(None, None)

    def wait(self, wants: Callable[[], bool], seconds: float | None = None) -> bool:
        """Until something holds; whether it does, as the time may be over."""
        if wants() and not self._is_dead():
            self.point()
            if wants():
                return True
        until = None if seconds is None else self.now + _ns(seconds)
        self._switch(wants, until)
        return wants()

    def sleep(self, seconds: float) -> None:
        self._switch(_never, self.now + _ns(seconds))

    def _is_dead(self) -> bool:
        process = self.current.process
        return process is not None and process.is_dead

    def spawn(self, name: str, process: Process | None, function: Callable[[], None]) -> Strand:
        """Begin a thread, which runs when it is its turn."""
        worker = _free.pop() if _free else _Worker()
        self._count += 1
        strand = Strand(name, self._count, process, worker.baton)
        strand.worker = worker
        worker.job = lambda: self._run(strand, function)
        self._strands.append(strand)
        if process:
            process.strands.append(strand)
        return strand

    def kill(self, process: Process) -> None:
        """End a process where each of its threads is; raises KilledError if that is the caller's."""
        self.end(process)
        if self.current.process is process:
            raise KilledError

    def end(self, process: Process) -> None:
        """The same, but the caller's thread ends at its next call."""
        if process.is_dead:
            return
        process.is_dead = process.was_killed = True
        me, before = self.current, self._returns_to
        for strand in process.strands:
            if strand is not me and not strand.is_done:
                self._returns_to = me
                self.current = strand
                strand.baton.release()
                me.baton.acquire()
                self._returns_to = before
        if me.process is not process:
            self._end_of(process)

    # How that is done.

    def _switch(self, wants: Callable[[], bool] | None, until: int | None) -> None:
        me = self.current
        assert me.thread == threading.get_ident(), "a thread that the scheduler does not know"
        if me.process is not None and me.process.is_dead:
            raise KilledError
        me.wants, me.until = wants, until
        following = self._pick()
        if following is not me:
            self.current = following
            following.baton.release()
            me.baton.acquire()
        me.wants = me.until = None
        if me.process is None:
            if self.failure and me is self._strands[0]:
                raise self.failure
        elif me.process.is_dead:
            raise KilledError

    def _pick(self) -> Strand:
        self.steps += 1
        if self.steps > self._steps_max:
            return self._give_up(EndlessError(f"no end after {self._steps_max} steps"))
        while True:
            now = self.now
            ready = [
                each
                for each in self._strands
                if each.wants is None or (each.until is not None and each.until <= now) or each.wants()
            ]
            if ready:
                return ready[int(self._draw() * len(ready))]
            ends = [each.until for each in self._strands if each.until is not None]
            if not ends:
                return self._give_up(DeadlockError(f"all wait: {', '.join(each.name for each in self._strands)}"))
            self.now = max(now, min(ends))

    def _give_up(self, failure: AssertionError) -> Strand:
        self.failure = failure
        return self._strands[0]

    def _run(self, me: Strand, function: Callable[[], None]) -> None:
        process, me.thread = me.process, threading.get_ident()
        try:
            if not self._is_dead():
                function()
        except KilledError:
            pass
        except BaseException as error:  # the driver looks
            if process and process.error is None:
                process.error = error
        if process and me is process.strands[0] and not process.is_dead:
            self._leave(process)
        self._end(me)

    def _leave(self, process: Process) -> None:
        """The main thread has returned: the other threads are gone with the process."""
        process.is_dead = True
        me = self.current
        for strand in process.strands:
            if strand is not me and not strand.is_done:
                self._returns_to = me
                self.current = strand
                strand.baton.release()
                me.baton.acquire()
                self._returns_to = None
        self.current = me

    def _end_of(self, process: Process) -> None:
        if process.has_ended or any(not each.is_done for each in process.strands):
            return
        process.has_ended = True
        process.close_files()
        for told in process.at_end:
            told()

    def _end(self, me: Strand) -> None:
        me.is_done = True
        self._strands.remove(me)
        if me.worker is not None:
            _free.append(me.worker)
        if me.process:
            self._end_of(me.process)
        following = self._returns_to or self._pick()
        self.current = following
        following.baton.release()


def _ns(seconds: float) -> int:
    """At least one, as a wait for less than that would never be over."""
    return max(0, math.ceil(seconds * SECOND))


def _never() -> bool:
    return False


class Threading:
    """`threading` in the code under test."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def Lock(self) -> Lock:
        return Lock(self._scheduler)

    def Event(self) -> Event:
        return Event(self._scheduler)

    def Condition(self, lock: Lock | None = None) -> Condition:
        return Condition(self._scheduler, lock or Lock(self._scheduler))

    def Thread(self, **given: Any) -> Thread:
        return Thread(self._scheduler, **given)


class Lock:
    """Also used as a gate: any strand may release it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.is_held = False

    def _is_free(self) -> bool:
        return not self.is_held

    def acquire(self) -> bool:
        scheduler = self._scheduler
        scheduler.point()
        while self.is_held:
            scheduler._switch(self._is_free, None)
        self.is_held = True
        return True

    def release(self) -> None:
        self.is_held = False

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Event:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        return self._scheduler.wait(self.is_set, timeout)


class Condition:
    def __init__(self, scheduler: Scheduler, lock: Lock) -> None:
        self._scheduler, self._lock = scheduler, lock
        self._waiting: list[list[bool]] = []

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def notify(self) -> None:
        if self._waiting:
            self._waiting.pop(0)[0] = True

    def notify_all(self) -> None:
        for each in self._waiting:
            each[0] = True
        self._waiting.clear()

    def wait(self, timeout: float | None = None) -> bool:
        told = [False]
        self._waiting.append(told)
        self._lock.release()
        was_told = self._scheduler.wait(lambda: told[0], timeout)
        if not was_told:
            self._waiting.remove(told)
        self._lock.acquire()
        return was_told

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        ends = None if timeout is None else self._scheduler.now + int(timeout * SECOND)
        while not predicate():
            left = None if ends is None else (ends - self._scheduler.now) / SECOND
            if left is not None and left <= 0:
                return predicate()
            self.wait(left)
        return True


class Thread:
    def __init__(
        self,
        scheduler: Scheduler,
        *,
        target: Callable[..., None],
        args: Sequence[Any] = (),
        name: str = "thread",
        daemon: bool = True,
    ) -> None:
        self._scheduler, self._name = scheduler, name
        self._function = lambda: target(*args)
        self._strand: Strand | None = None

    @property
    def ident(self) -> int | None:
        return self._strand.ident if self._strand else None

    def start(self) -> None:
        self._strand = self._scheduler.spawn(self._name, self._scheduler.current.process, self._function)

    def is_alive(self) -> bool:
        return self._strand is not None and not self._strand.is_done

    def join(self, timeout: float | None = None) -> None:
        strand = self._strand
        assert strand is not None
        self._scheduler.wait(lambda: strand.is_done, timeout)


class Pool:
    """`ThreadPoolExecutor` in the code under test, with a strand for each task."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._tasks: list[Task] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks:
            task.join()

    def submit(self, function: Callable[[], Any]) -> Task:
        task = Task(self._scheduler, function)
        self._tasks.append(task)
        return task


class Task:
    """A `Future`."""

    def __init__(self, scheduler: Scheduler, function: Callable[[], Any]) -> None:
        self._function = function
        self._result: Any = None
        self._error: Exception | None = None
        self._thread = Thread(scheduler, target=self._run, name="pool")
        self._thread.start()
        self.join = self._thread.join

    def _run(self) -> None:
        try:
            self._result = self._function()
        except Exception as error:
            self._error = error

    def result(self) -> Any:
        self.join()
        if self._error:
            raise self._error
        return self._result


class Queues:
    """`queue` in the code under test."""

    Empty, Full = queue.Empty, queue.Full

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def Queue(self, maxsize: int) -> _Queue:
        return _Queue(self._scheduler, maxsize)

    # The code under test has types such as queue.Queue[Message] in annotations only.


class _Queue:
    def __init__(self, scheduler: Scheduler, maxsize: int) -> None:
        self._scheduler, self._maxsize = scheduler, maxsize
        self._items: deque[Any] = deque()

    def put(self, item: Any, timeout: float) -> None:
        if not self._scheduler.wait(lambda: len(self._items) < self._maxsize, timeout):
            raise queue.Full
        self._items.append(item)

    def get(self, timeout: float) -> Any:
        if not self._scheduler.wait(lambda: bool(self._items), timeout):
            raise queue.Empty
        return self._items.popleft()

    def get_nowait(self) -> Any:
        if not self._items:
            raise queue.Empty
        return self._items.popleft()
