"""Every short sequence of operations, and a power cut before each changing call of the last: the small scope, whole.

Two pages of a volume, its journal, a base, a mirror, all on the host that loses its power. What a cut in an earlier
operation of a sequence leaves, the shorter sequence has shown. Where few operations were not durable, every state that
may survive is tried. The ordinary suite has all sequences of one operation, and of two those at which runs are cheap;
all of three, which prints what it did:

    pytest -s -m soak tests/crash/test_small_scope.py
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.journal.audit import Audit
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.record.initialscan import InitialScan
from mirrortool.replay.makebase import MakeBase
from tests.crash.activities import Recording
from tests.crash.points import Effort, Points, Tally
from tests.fakes.disk import DiskOs
from tests.fakes.journals import PAGE, assert_verifies, images_of, replay_all, verified
from tests.fakes.recorders import Model, based
from tests.fakes.volumes import make_primary

CONTENTS = {"a": b"1" * PAGE + b"2" * PAGE}
OPERATIONS = ["write", "zero", "resize", "flush", "mark", "rotate", "prune", "base", "replay"]


class Short(Recording):
    """A recording to which these operations happen.

    Attributes:
        begins: the number of the first changing call of the last operation.
    """

    def __init__(self, operations: Sequence[str], place: Path, patch: pytest.MonkeyPatch) -> None:
        self.operations, self.begins = operations, 1
        super().__init__(place, patch)

    def prepare(self) -> None:
        self.primary = based(make_primary(self.place, CONTENTS))
        self.model = Model(CONTENTS, remember=True)
        self.flushed = 0
        self.recorder = None
        self.mirror = self.place / "M"

    def act(self) -> None:
        self.open()
        for number, operation in enumerate(self.operations):
            assert isinstance(files.os, DiskOs)
            self.begins = len(files.os.calls) + 1 if number else 1
            getattr(self, operation)(number)

    def write(self, number: int) -> None:
        self.change("a", 0, PAGE, random.Random(number).randbytes(PAGE))

    def zero(self, _number: int) -> None:
        self.change("a", 0, PAGE, None)

    def resize(self, number: int) -> None:
        """The recorder stops, the file has another size, and a scan says so."""
        assert self.recorder
        self.recorder.close()
        self.is_flushed()
        self.recorder = None
        size = len(self.model.contents["a"])
        size += PAGE if number % 2 == 0 else -7 if size <= 2 * PAGE else -PAGE - 7  # what is emptied would be refused
        self.primary.resize("a", size)
        content = bytes(self.model.contents["a"][:size]).ljust(size, b"\0")
        self.model.contents["a"] = bytearray(content)
        self.model.states.append(self.model.state())
        self.is_flushed()
        self.primary.scan()
        self.open()

    def flush(self, _number: int = 0) -> None:
        super().flush()

    def mark(self, number: int) -> None:
        assert self.recorder
        self.recorder.commit(f"mark-{number}")
        self.is_flushed()

    def rotate(self, _number: int) -> None:
        """What is journaled next goes to another file."""
        assert self.recorder
        writer = self.recorder._journal._writer
        kept, writer._file_bytes = writer._file_bytes, 1
        self.recorder.commit()
        writer._file_bytes = kept
        self.is_flushed()

    def prune(self, _number: int) -> None:
        prune(self.primary.journal_path, Keep(size=0))

    def base(self, _number: int) -> None:
        with MakeBase(self.primary.journal_path) as making:
            making.run()

    def replay(self, _number: int) -> None:
        replay_all(self.primary.journal, self.mirror)

    def recover(self) -> None:
        found = self.primary.contents()
        if len(found["a"]) != self.primary_size():
            self.primary.scan()  # of the size that the journal does not have yet
        recorder = self.open()
        found = self.primary.contents()
        self.check_survived(found)
        if (self.mirror / "mirror.json").exists():
            assert verified(self.mirror).is_right
        self.model = Model(found, remember=True)
        self.flushed = 0
        if recorder.incomplete:
            InitialScan(recorder).run()
        self.change("a", 5, 4, b"more")
        recorder.close()
        self.is_flushed()
        self.recorder = None

    def primary_size(self) -> int:
        checkpoint = self.primary.journal.recorder_checkpoint()
        assert checkpoint
        return checkpoint.volumes["a"].size

    def check(self) -> None:
        """Journal, volume and mirror agree, also where the journal begins with a base."""
        contents = self.primary.contents()
        assert contents == self.model.state()
        assert Audit(self.primary.journal_path).run().commits
        has_mirror = (self.mirror / "mirror.json").exists()
        if has_mirror or self.is_thorough or self.primary.journal.file_starts()[0] > 1:
            replay_all(self.primary.journal, self.mirror)
            assert images_of(self.mirror) == contents
            assert_verifies(self.mirror)


def try_all(lengths: Sequence[int], effort: Effort, last: Sequence[str] = OPERATIONS) -> Tally:
    tally = Tally()
    for length in lengths:
        for operations in itertools.product(*[OPERATIONS] * (length - 1), last):
            points = Points(partial(Short, operations), effort, tally)
            with pytest.MonkeyPatch.context():
                acted = points.uncut()
            assert isinstance(acted, Short)
            try:
                points.run(acted.begins)
            except Exception as error:
                error.add_note(f"of {operations}")
                raise
    return tally


def test_each_operation() -> None:
    tally = try_all([1], Effort(is_rotating=True))
    assert tally.points > 100


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("length", [1, 2, 3])
def test_soak_each_sequence(length: int) -> None:
    effort = Effort(states_max=512, samples=1, again=8) if length < 3 else Effort(states_max=32, samples=0)
    print(f"\nsequences of {length} operations: {len(OPERATIONS) ** length}, {try_all([length], effort)}")
