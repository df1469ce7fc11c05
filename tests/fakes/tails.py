"""A tail without events or time: each wait does the next thing to the journal, and the last one ends the replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mirrortool import files
from mirrortool.journal.codec import compress, encode_frame
from mirrortool.journal.format import frame_seed
from mirrortool.operation import BatchBuilder
from mirrortool.replay import session
from mirrortool.replay.session import Replay
from tests.fakes.disk import DiskOs
from tests.fakes.journals import ONE_TASK, JournalMaker
from tests.fakes.waiting import wait_until


class ScriptedTail:
    """Stands in for journal.tail.Tail.

    Attributes:
        done: how many actions were done.
        rests: how often the delegator has finished all that was read.
    """

    is_polling = False

    def __init__(self, actions: Sequence[Callable[[], object]], end: Callable[[], object]) -> None:
        self._actions, self._end = list(actions), end
        self.done = self.rests = self._rests_before = 0

    def __enter__(self) -> ScriptedTail:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def look(self) -> int:
        self._rests_before = self.rests
        return self.done

    def wake(self) -> None:
        pass

    def wait(self, seen: int, seconds: float = 1.0) -> bool:
        if seen != self.done:
            return True
        wait_until(lambda: self.rests > self._rests_before or is_power_off())
        if self.done == len(self._actions) or is_power_off():
            self._end()
            return False
        self._actions[self.done]()
        self.done += 1
        return True


def is_power_off() -> bool:
    """Whether the disk of a test has lost its power, so that whatever is waited for may never come."""
    return isinstance(files.os, DiskOs) and files.os.disk.is_off


@contextmanager
def scripted(
    patch: pytest.MonkeyPatch, path: object, mirror: object, actions: Sequence[Callable[[], object]], **options: Any
) -> Iterator[Replay]:
    """A replay that follows; when it has a checkpoint of what there is, the next action is done.

    After the last it is cancelled.
    """
    opened: list[Replay] = []
    tail = ScriptedTail(actions, lambda: opened[0].cancel())
    patch.setattr(session, "Tail", lambda _journal, _observer: tail)
    with Replay(str(path), str(mirror), follow=True, plan=options.pop("plan", ONE_TASK), **options) as replay:
        opened.append(replay)
        delegator = replay._delegator
        rest = delegator._checkpoint_now

        def counted() -> None:
            rest()
            delegator._checkpointer.finish()
            tail.rests += 1

        patch.setattr(delegator, "_checkpoint_now", counted)
        yield replay


class Torn:
    """The beginning of a frame that the journal will never have; `cut` takes it away, as the next recorder does."""

    def __init__(self, maker: JournalMaker) -> None:
        self._maker = maker
        self._path = Path(maker.journal.file_path(maker.writer.file_first_lsn))
        self._offset = maker.writer.offset

    def write(self, length: int) -> None:
        writer = self._maker.writer
        builder = BatchBuilder(self._maker.page_size)
        builder.write(0, bytes(range(256)) * (self._maker.page_size // 256))
        batch = builder.build()
        seed = frame_seed(writer.journal.uuid, writer.file_first_lsn, self._offset)
        buffers, _ = encode_frame(
            batch,
            compress(batch.payload),
            after=writer.position,
            time_ns=writer.time_ns,
            state_sum=0,
            captured=False,
            seed=seed,
        )
        data = b"".join(map(bytes, buffers))
        assert length < len(data)
        with self._path.open("r+b") as file:
            file.seek(self._offset)
            file.write(data[:length])

    def cut(self) -> None:
        with self._path.open("r+b") as file:
            file.truncate(self._offset)
