"""A journal on a machine that loses its power again and again, and what must then be left."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Sequence
from contextlib import suppress

import pytest

from mirrortool import hostinfo
from mirrortool.change import Change
from mirrortool.errors import NotComparableError
from mirrortool.mirror.directory import Mirror
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.recorder import Recorder
from tests.fakes.disk import Call, DiskOs, PowerCut, cut_at, faulty
from tests.fakes.journals import replay_all
from tests.fakes.recorders import Model, check_everywhere, drop, random_changes
from tests.fakes.serial import volumes_at
from tests.fakes.tails import scripted
from tests.fakes.volumes import Primary, make_primary


class Machine:
    """One journal, whose machine loses its power again and again.

    Attributes:
        elsewhere: what is below this path is another machine's, for all of a run.
    """

    elsewhere: str | None = None

    def __init__(self, directory: str, seed: int, patch: pytest.MonkeyPatch, page_size: int) -> None:
        self.chance = chance = random.Random(f"power {seed} {page_size}")
        self.patch = patch
        self.boots = self.cuts = self.redone = self.torn = self.follows = 0
        self.page_size = page_size
        sizes = {"a": 12 * page_size + 7, "b": 3 * page_size}
        contents = {name: chance.choice([bytes(size), chance.randbytes(size)]) for name, size in sizes.items()}
        self.primary: Primary = make_primary(directory, contents, page_size)
        self.mirror = os.path.join(directory, "mirror")
        self.model = Model(contents)

    def run_until_cut(self) -> None:
        """Start, work until the power fails, and look at what is left."""
        self.model = model = Model(self.model.contents, remember=True)
        self.boots += 1
        self.patch.setattr(hostinfo, "boot_id", lambda: f"boot-{self.boots}")
        self.flushed = 0  # the index of the newest state that must survive
        begin = self.chance.choice([1, 20, 60])
        self.cut_at = begin + self.chance.randrange(60)
        self.working = True
        with faulty(self.fault, self.elsewhere) as system:
            recorder = None
            try:
                recorder = Recorder(self.primary.journal_path, background=False)
                self.redone += recorder.redone > 0
                self.torn += recorder.torn is not None
                while True:
                    self.step(recorder, model, system)
            except PowerCut:
                self.cuts += 1
            finally:
                if recorder:
                    drop(recorder)
            system.disk.cut_power(self.chance)

    def fault(self, call: Call) -> None:
        """Before each changing call of the machine."""
        if call.number >= self.cut_at and self.working:
            raise PowerCut

    def step(
        self, recorder: Recorder, model: Model, system: DiskOs, others: Sequence[str] = ("mirror", "follow", "stop")
    ) -> None:
        chance = self.chance
        kind = chance.choice(["change"] * 8 + ["flush", "fua", "back", "checkpoint", "base", "mark", "beat", *others])
        name = chance.choice(list(model.contents))
        size = len(model.contents[name])
        if kind == "change":
            self.change(recorder, model, name, random_changes(chance, size, self.page_size, 4))
        elif kind == "fua":
            self.change(recorder, model, name, [Change(0, 3, b"fua")])
            recorder.flush()
            self.flushed = len(model.states) - 1
        elif kind == "flush":
            recorder.flush()
            self.flushed = len(model.states) - 1
        elif kind in ("back", "checkpoint"):
            recorder.write_back(checkpoint=kind == "checkpoint")
            self.flushed = len(model.states) - 1
        elif kind == "base":
            InitialScan(recorder).run()
        elif kind == "mark" and not recorder.incomplete:
            recorder.commit("here")
            self.flushed = len(model.states) - 1
        elif kind == "beat":
            recorder._journal._appended_at = -math.inf
            recorder._journal.beat()
        elif kind == "mirror" and chance.random() < 0.3:
            self.replay(system)
        elif kind == "follow" and chance.random() < 0.5:
            self.follow(recorder, model, system)
        elif kind == "stop" and chance.random() < 0.2:
            recorder.close()
            self.flushed = len(model.states) - 1
            raise PowerCut

    def change(self, recorder: Recorder, model: Model, name: str, changes: list[Change]) -> None:
        """One frame, or one operation that becomes three; the model has each state on the way, also of the last."""
        for change in changes:
            for part in parts(change, self.page_size):
                model.change(name, [part])
            recorder.change(name, [change])

    def follow(self, recorder: Recorder, model: Model, system: DiskOs) -> None:
        """A mirror on another machine follows for some steps of the recorder, or until the power fails."""

        def step() -> None:
            self.working = True
            try:
                self.step(recorder, model, system, ())
            finally:
                self.working = False

        self.working = False
        self.follows += 1
        try:
            steps = [step] * self.chance.randrange(1, 8)
            with scripted(self.patch, self.primary.journal_path, self.mirror, steps) as replay:
                replay.run()
        finally:
            system.disk.keep(self.mirror)
            self.working = True

    def replay(self, system: DiskOs) -> None:
        """A mirror on another machine replays what is durable."""
        self.working = False
        with suppress(NotComparableError):  # no commit yet
            replay_all(self.primary.journal, self.mirror)
        self.working = True
        system.disk.keep(self.mirror)

    def lose_power_in_recovery(self) -> None:
        number = self.chance.randrange(1, 25)
        with faulty(cut_at(number)) as system:
            self.boots += 1
            with suppress(PowerCut):
                drop(Recorder(self.primary.journal_path, background=False))
            system.disk.cut_power(self.chance)

    def check(self) -> None:
        """Nothing that was flushed is missing, and everything that is left agrees."""
        while self.chance.random() < 0.3:
            self.lose_power_in_recovery()
        self.boots += 1
        recorder = Recorder(self.primary.journal_path, background=False)
        try:
            self.redone += recorder.redone > 0
            self.torn += recorder.torn is not None
            found = self.primary.contents()
            possible = self.model.states[self.flushed :]
            assert found in possible, "the volumes are no state that they had since the flush"
            if self.chance.random() < 0.5:
                InitialScan(recorder).run()
            if not recorder.incomplete:
                assert volumes_at(self.primary.journal) == found
        finally:
            drop(recorder)
        self.model.contents = {name: bytearray(content) for name, content in found.items()}
        if os.path.exists(self.mirror):
            is_empty = not Mirror(self.mirror).checkpoint.position.lsn
            with suppress(*[NotComparableError] if is_empty else []):  # no commit is left, and none was in the mirror
                replay_all(self.primary.journal, self.mirror)  # or its position would be a fork

    def check_at_the_end(self) -> None:
        with Recorder(self.primary.journal_path) as recorder:
            InitialScan(recorder).run()
        check_everywhere(self.primary, self.model.state(), self.mirror if os.path.exists(self.mirror) else None)


def parts(change: Change, page_size: int) -> list[Change]:
    """A large ZERO is done edges first, and one that keeps its space in pieces then."""
    most = 5 * page_size
    if change.data is not None or change.length <= most:
        return [change]
    end = change.offset + change.length
    low, high = -(-change.offset // page_size) * page_size, end // page_size * page_size
    step = most if change.keep_allocated else high - low
    middle = [(at, min(at + step, high)) for at in range(low, high, step)]
    cut = [(change.offset, low), (high, end), *middle]
    return [Change(first, last - first, None) for first, last in cut if first < last]
