"""What loses its power in test_every_call.py: each activity, small, and the promises that it must keep."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.change import Change
from mirrortool.errors import NoSpaceError
from mirrortool.journal.audit import Audit
from mirrortool.journal.bases.listing import base_lsns, base_path
from mirrortool.journal.commits import Until
from mirrortool.journal.copies import copy
from mirrortool.journal.directory import Journal, is_described
from mirrortool.journal.durablemark import known_mark
from mirrortool.journal.position import Position
from mirrortool.journal.rawframes import find_end, position_at
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.journal.slots import Slot, SlotKeeper, find_slot, slots
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.keptbacking import BackTarget
from mirrortool.promote import Promotion
from mirrortool.record.createjournal import NewVolume, init
from mirrortool.record.detach import WhenFull
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.recorder import Recorder
from mirrortool.replay.makebase import MakeBase
from mirrortool.ship.shipoptions import RefusedError
from mirrortool.store.backingformat import EXTENT_MIN
from tests.crash.points import Making
from tests.fakes.journals import (
    PAGE,
    Commit,
    JournalMaker,
    Op,
    Resize,
    Write,
    Zero,
    assert_is_commit,
    assert_truthful,
    assert_verifies,
    replay_all,
)
from tests.fakes.promotions import AFTER, FRAMES, SIZES, check_is_primary, record_on
from tests.fakes.recorders import Model, check_everywhere, drop
from tests.fakes.serial import volumes_at
from tests.fakes.tails import scripted
from tests.fakes.volumes import Primary, make_primary
from tests.ship.prunedjournal import assert_sound
from tests.ship.shipments import local

CONTENTS = {"a": bytes(range(1, 7)) * 512 + b"tail", "b": bytes(3 * PAGE)}


class Nothing:
    """An activity without another machine, or processes of its own."""

    elsewhere: str | None = None
    is_thorough = True

    def __init__(self, place: Path, patch: pytest.MonkeyPatch) -> None:
        self.place, self.patch = place, patch
        patch.setattr(os, "urandom", random.Random(0).randbytes)
        self.prepare()

    def prepare(self) -> None:
        """What is there before, durably."""

    def drop(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is open all the time."""


class Recording(Nothing):
    """A live recording with a model of what it was told; `steps` are what a subclass does."""

    when_full = WhenFull.STOP

    def prepare(self) -> None:
        self.primary: Primary = make_primary(self.place, CONTENTS)
        self.model = Model(CONTENTS, remember=True)
        self.flushed = 0
        self.recorder: Recorder | None = None

    def open(self) -> Recorder:
        self.recorder = Recorder(self.primary.journal_path, background=False, when_full=self.when_full, reserve=8 << 10)
        return self.recorder

    def drop(self) -> None:
        if self.recorder:
            drop(self.recorder)
            self.recorder = None

    def change(self, name: str, offset: int, length: int, data: bytes | None) -> None:
        assert self.recorder
        change = Change(offset, length, data)
        for part in [change] if data is not None or length <= 5 * PAGE else _parts(change):
            self.model.change(name, [part])
        self.recorder.change(name, [change])

    def flush(self) -> None:
        assert self.recorder
        self.recorder.flush()
        self.is_flushed()

    def is_flushed(self) -> None:
        self.flushed = len(self.model.states) - 1

    def act(self) -> None:
        recorder = self.open()
        InitialScan(recorder).run()
        self.change("a", 100, 5, b"first")
        self.flush()
        self.change("b", 0, 2 * PAGE, b"B" * 2 * PAGE)
        self.change("a", 0, PAGE, bytes(PAGE))
        recorder.write_back()
        self.is_flushed()
        self.change("a", 700, 3, b"xyz")
        recorder.commit("mark")
        self.is_flushed()
        self.change("a", 0, 6 * PAGE, None)
        self.change("b", 10, 1, b"!")
        recorder.write_back(checkpoint=True)
        self.is_flushed()
        for number in range(4):  # on to the next file
            self.change("a", number * PAGE, PAGE, random.Random(number).randbytes(PAGE))
            self.flush()
        self.change("b", 600, 2, b"zz")
        recorder.close()
        self.is_flushed()

    def recover(self) -> None:
        recorder = self.open()
        found = self.primary.contents()
        self.check_survived(found)
        self.model = Model(found, remember=True)
        self.flushed = 0
        if recorder.incomplete:
            InitialScan(recorder).run()
        recorder.attach()
        self.change("a", 300, 4, b"more")
        recorder.close()
        self.is_flushed()
        self.recorder = None

    def check_survived(self, found: Mapping[str, bytes]) -> None:
        assert found in self.model.states[self.flushed :], "the volumes are no state that they had since the flush"

    def check(self) -> None:
        assert self.primary.contents() == self.model.state() == volumes_at(self.primary.journal)
        if self.is_thorough:
            check_everywhere(self.primary, self.model.state())
            assert Audit(self.primary.journal_path).run().commits


def _parts(change: Change) -> list[Change]:
    """A large ZERO is done edges first."""
    end = change.offset + change.length
    low, high = -(-change.offset // PAGE) * PAGE, end // PAGE * PAGE
    cut = [(change.offset, low), (high, end), (low, high)]
    return [Change(first, last - first, None) for first, last in cut if first < last]


class Detached(Recording):
    """The journal has no room for a while."""

    when_full = WhenFull.DETACH

    def prepare(self) -> None:
        super().prepare()
        with self.open() as recorder:
            InitialScan(recorder).run()
        self.recorder = None
        self.is_full = False
        real = files.File.pwritev

        def pwritev(file: files.File, buffers: object, offset: int) -> None:
            if self.is_full and file.path.endswith(".mj"):
                raise NoSpaceError("full", where=file.path)
            real(file, buffers, offset)  # type: ignore[arg-type]

        self.patch.setattr(files.File, "pwritev", pwritev)
        self.patch.setattr(files, "free_bytes", lambda _: 0 if self.is_full else 1 << 40)

    def act(self) -> None:
        recorder = self.open()
        self.change("a", 0, 3, b"one")
        self.flush()
        self.is_full = True
        self.change("a", PAGE, 3, b"two")
        self.change("b", 0, PAGE, b"3" * PAGE)
        self.flush()
        self.change("a", 4 * PAGE, PAGE, None)
        recorder.write_back()
        self.is_full = False
        recorder.attach()
        self.change("a", 9, 4, b"four")
        self.flush()
        recorder.close()
        self.is_flushed()

    def recover(self) -> None:
        self.is_full = False
        super().recover()

    def check_survived(self, found: Mapping[str, bytes]) -> None:
        """What is not journaled reaches the volumes in any order: each page is one that it was since the flush."""
        for name, content in found.items():
            for at in range(0, len(content), PAGE):
                had = {state[name][at : at + PAGE] for state in self.model.states[self.flushed :]}
                assert content[at : at + PAGE] in had, (name, at // PAGE)


class Resizing(Nothing):
    """A scan of volumes that became larger and smaller."""

    def prepare(self) -> None:
        self.primary = make_primary(self.place, CONTENTS)
        self.primary.scan()
        self.primary.resize("a", 9 * PAGE + 3)
        self.primary.resize("b", PAGE + 1)
        self.primary.write("a", 8 * PAGE, b"grown")
        self.contents = self.primary.contents()

    def act(self) -> None:
        self.primary.scan()

    def recover(self) -> None:
        self.primary.scan()

    def check(self) -> None:
        check_everywhere(self.primary, self.contents)


class Creating(Nothing):
    """init makes volumes and a journal."""

    def act(self) -> None:
        volumes = [NewVolume("a", str(self.place / "a.img"), 5 * PAGE), NewVolume("b", str(self.place / "b.img"), PAGE)]
        init(str(self.place / "journal"), volumes, PAGE)

    def recover(self) -> None:
        if not is_described(str(self.place / "journal")):
            self.act()

    def check(self) -> None:
        with Recorder(str(self.place / "journal"), background=False) as recorder:
            InitialScan(recorder).run()
            recorder.write("a", 0, b"written")
        contents = {"a": b"written".ljust(5 * PAGE, b"\0"), "b": bytes(PAGE)}
        primary = Primary(str(self.place), {name: str(self.place / f"{name}.img") for name in contents})
        check_everywhere(primary, contents)


class Maker:
    """Frames of a journal that nobody records, with the images that they give."""

    def __init__(self, path: Path, file_bytes: int = 1500) -> None:
        self.maker = JournalMaker(path, SIZES, file_bytes=file_bytes)

    def frames(self, *frames: list[Op]) -> None:
        for frame in frames:
            self.maker.frame(*frame)
        self.maker.writer.sync()

    def close(self) -> None:
        self.maker.writer.abandon()


MORE: list[list[Op]] = [
    [Write("b", 0, b"m" * PAGE), Commit()],
    [Write("a", 5, random.Random(5).randbytes(4 * PAGE)), Zero("b", 2, 2), Commit()],
    [Resize("a", 15 * PAGE), Write("a", 14, b"n" * PAGE), Commit("more")],
    [Write("a", 1, random.Random(6).randbytes(3 * PAGE)), Commit()],
]


class Pruning(Nothing):
    """Files go, and a slot is lost; a base stands for what was before."""

    def prepare(self) -> None:
        made = Maker(self.place / "J")
        made.frames(*FRAMES, *MORE)
        self.journal = made.maker.close()
        (self.place / "J/recorder.json").unlink()  # it would be redone from LSN 1
        _make_base(self.journal)
        for name, lsn in (("far", 3), ("near", find_end(self.journal).lsn)):
            position = position_at(self.journal, lsn)
            SlotKeeper(self.journal, Slot(name, name, "mirror", "/srv", position, 0, 0))
        self.end = find_end(self.journal)
        self.older = len(self.journal.file_starts())

    def act(self) -> None:
        prune(self.journal.path, Keep(size=0, slot_size=1))

    def recover(self) -> None:
        self.check_whole()
        self.act()

    def check(self) -> None:
        self.check_whole()
        assert len(self.journal.file_starts()) < self.older
        found = {slot.name: slot.is_lost for slot in slots(self.journal)}
        assert found == {"far": True, "near": False}
        replay_all(self.journal, self.place / "M")
        assert_verifies(self.place / "M")

    def check_whole(self) -> None:
        """No gap, and whoever is not told otherwise can continue."""
        assert_sound(Path(self.journal.path))
        assert find_end(self.journal) == self.end
        for slot in slots(self.journal):
            if not slot.is_lost:
                JournalReader(self.journal, slot.position).close()


def _make_base(journal: Journal, until: Until | None = None) -> None:
    with MakeBase(journal.path, until) as making:
        making.run()


class MakingBase(Nothing):
    """A base is made."""

    def prepare(self) -> None:
        made = Maker(self.place / "J")
        made.frames(*FRAMES, *MORE)
        self.journal = made.maker.close()

    def act(self) -> None:
        _make_base(self.journal)

    def recover(self) -> None:
        assert_sound(Path(self.journal.path))
        self.act()

    def check(self) -> None:
        assert_sound(Path(self.journal.path))
        (lsn,) = base_lsns(self.journal)
        assert Path(base_path(self.journal, lsn)).exists() and Audit(self.journal.path).run().bases == 1
        assert {each.name for each in (self.place / "J/bases").iterdir()} == {"lock", f"{lsn:016x}.base"}


class Sending(Recording):
    """The host that records and ships loses its power; that of the copy does not."""

    def prepare(self) -> None:
        self.elsewhere = str(self.place / "far")
        (self.place / "far").mkdir()
        self.copy = self.place / "far/C"
        super().prepare()

    def act(self) -> None:
        recorder = self.open()
        InitialScan(recorder).run()
        self.ship()
        for number in range(2):
            self.change("a", number * PAGE, PAGE, random.Random(number).randbytes(PAGE))
            self.ship()
            recorder.commit()
            self.is_flushed()
            self.ship()
        recorder.close()
        self.is_flushed()
        self.ship()

    def ship(self) -> None:
        local(Path(self.primary.journal_path), self.copy, slot="copy").run()

    def recover(self) -> None:
        self.check_not_ahead()
        super().recover()
        self.check_not_ahead()
        self.ship()

    def check_not_ahead(self) -> None:
        if not (self.copy / "journal.json").exists():
            return
        end = find_end(Journal(str(self.copy)))
        JournalReader(self.primary.journal, end).close()
        slot = find_slot(self.primary.journal, "copy")
        assert slot is None or slot.position.lsn <= end.lsn

    def check(self) -> None:
        super().check()
        assert _files_of(self.copy) == _files_of(self.primary.journal_path)


def _files_of(path: Path | str) -> dict[str, bytes]:
    found = {each.name: each.read_bytes() for each in sorted(Path(path, "files").iterdir())}
    return {name: data for name, data in found.items() if len(data) > 128}  # else only begun


class Receiving(Nothing):
    """The host of the copy loses its power; a mirror there replays what arrived."""

    def prepare(self) -> None:
        self.elsewhere = str(self.place / "near")
        (self.place / "near").mkdir()
        self.maker = Maker(self.place / "near/J")
        self.copy, self.mirror = self.place / "C", self.place / "M"
        self.acknowledged = 0
        self.patch.setattr(copy, "_MARK_SECONDS", 0.0)  # at each sync
        self.frames = [*FRAMES, *AFTER, *MORE]
        self.maker.frames(*self.frames[:2])

    def ship(self) -> None:
        local(self.maker.maker.journal, self.copy, slot="copy").run()
        self.learn()

    def learn(self) -> None:
        """What the sender was told, and may forget."""
        slot = find_slot(self.maker.maker.journal, "copy")
        self.acknowledged = slot.position.lsn if slot else 0

    def act(self) -> None:
        self.ship()
        for at in range(2, len(self.frames), 4):
            self.maker.frames(*self.frames[at : at + 4])
            self.ship()
        replay_all(str(self.copy), self.mirror)

    def drop(self) -> None:
        self.maker.maker.writer.sync()

    def close(self) -> None:
        self.maker.close()

    def recover(self) -> None:
        self.learn()
        self.look()
        while self.maker.maker.writer.position.lsn < 20:
            self.maker.frames(*MORE)
        self.finish()

    def finish(self) -> None:
        self.ship()
        replay_all(str(self.copy), self.mirror)

    def look(self) -> None:
        if (self.copy / "journal.json").exists():
            end = find_end(Journal(str(self.copy)))  # which raises where it says that there is damage
            JournalReader(self.maker.maker.journal, end).close()
            assert end.lsn >= self.acknowledged
            mark = known_mark(str(self.copy))
            assert mark is None or mark.position.lsn <= end.lsn
        else:
            assert not self.acknowledged
        if (self.mirror / "mirror.json").exists():
            assert_truthful(self.maker.maker.journal, self.mirror)

    def check(self) -> None:
        assert _files_of(self.copy) == _files_of(self.maker.maker.journal.path)
        journal = Journal(str(self.copy))
        assert Audit(journal.path).run().lsn == self.maker.maker.writer.position.lsn
        mark = known_mark(journal.path)
        assert mark and mark.position == find_end(journal)
        assert_is_commit(journal, self.mirror)
        assert_verifies(self.mirror)


class ReceivingBase(Receiving):
    """The copy is behind what was pruned, so that a base arrives."""

    def prepare(self) -> None:
        super().prepare()
        journal = self.maker.maker.journal
        local(journal, self.copy, has_slot=False).run()
        self.maker.frames(*FRAMES[2:], *MORE)
        journal = self.maker.maker.close()
        (Path(journal.path) / "recorder.json").unlink()
        _make_base(journal)
        prune(journal.path, Keep())
        self.first_lsn = journal.file_starts()[0]
        assert self.first_lsn > find_end(Journal(str(self.copy))).lsn + 1

    def drop(self) -> None:
        pass

    def act(self) -> None:
        self.ship()

    def recover(self) -> None:
        self.learn()
        with suppress(RefusedError):  # what is left of the base may be damaged; it goes, and begins anew
            self.ship()
        self.ship()

    def check(self) -> None:
        copied, journal = Journal(str(self.copy)), self.maker.maker.journal
        assert_sound(self.copy)
        assert find_end(copied) == find_end(journal)
        for start in copied.file_starts():
            assert Path(copied.file_path(start)).read_bytes() == Path(journal.file_path(start)).read_bytes()
        replay_all(copied, self.mirror)
        assert_verifies(self.mirror)
        assert Audit(copied.path).run().bases == 1


class Slots(Nothing):
    """Slots are registered, advanced and dropped."""

    def prepare(self) -> None:
        made = Maker(self.place / "J")
        made.frames(*FRAMES)
        self.journal = made.maker.close()
        self.positions = [position_at(self.journal, lsn) for lsn in (3, 6, 9)]
        self.advanced = -1  # durably, of the positions; of the next one it is not known
        self.advanced_max = 0

    def keeper(self, position: Position) -> SlotKeeper:
        return SlotKeeper(self.journal, Slot("m", "m", "mirror", "/srv", position, 0, 0))

    def act(self) -> None:
        keeper = self.keeper(self.positions[0])
        self.advanced = 0
        for number, position in enumerate(self.positions[1:], 1):
            self.advanced_max = number
            keeper.advance(position, 1, now=True)
            self.advanced = number

    def recover(self) -> None:
        found = find_slot(self.journal, "m")
        assert found or self.advanced < 0
        if found:
            at = self.positions.index(found.position)
            assert self.advanced <= at <= self.advanced_max and not found.is_lost
        self.advanced_max = len(self.positions) - 1
        self.keeper(self.positions[-1]).advance(self.positions[-1], 2, now=True)

    def check(self) -> None:
        (slot,) = slots(self.journal)
        assert slot.position == self.positions[-1]
        prune(self.journal.path, Keep(size=0))
        JournalReader(self.journal, slot.position).close()


class Replaying(Nothing):
    """A mirror is brought to one commit, then to the next; `targets` as the command has them."""

    targets: Mapping[str, str] | None = None

    def prepare(self) -> None:
        self.elsewhere = str(self.place / "near")
        (self.place / "near").mkdir()
        self.maker = Maker(self.place / "near/J")
        self.maker.frames(*FRAMES, *MORE)
        self.journal = self.maker.maker.journal
        self.mirror = self.place / "M"

    def replay(self, lsn: int | None = None) -> None:
        until = Until(lsn=lsn) if lsn else None
        replay_all(self.journal, self.mirror, window_bytes=2 * PAGE, until=until, targets=self.targets)

    def act(self) -> None:
        self.replay(6)
        self.replay()

    def close(self) -> None:
        self.maker.close()

    def recover(self) -> None:
        if (self.mirror / "mirror.json").exists():
            self.look()
        self.replay()

    def look(self) -> None:
        assert_truthful(self.journal, self.mirror)

    def check(self) -> None:
        assert assert_is_commit(self.journal, self.mirror) == find_end(self.journal).lsn
        assert_verifies(self.mirror)


class Spanning(Replaying):
    """The mirror lies on two backings."""

    def replay(self, lsn: int | None = None) -> None:
        until = Until(lsn=lsn) if lsn else None
        backings = [BackTarget(str(self.place / f"b{number}"), size << 10) for number, size in enumerate((200, 330))]
        is_new = not (self.mirror / "mirror.json").exists()
        replay_all(
            self.journal, self.mirror, window_bytes=2 * PAGE, until=until, backings=backings if is_new else (),
            extent_bytes=EXTENT_MIN if is_new else None,
        )  # fmt: skip


class Labelling(Replaying):
    """The mirror's volumes are files that the user named, so that they get labels and are registered."""

    def prepare(self) -> None:
        super().prepare()
        self.targets = {name: str(self.place / f"{name}.target") for name in SIZES}

    def act(self) -> None:
        self.replay()

    def check(self) -> None:
        super().check()
        assert Mirror(str(self.mirror)).volume_path(next(iter(Mirror(str(self.mirror)).kept))).endswith(".target")


class Following(Replaying):
    """A mirror follows the journal as it grows."""

    def prepare(self) -> None:
        super().prepare()
        self.more = [[Write("a", number, bytes([65 + number]) * PAGE), Commit()] for number in range(3)]

    def act(self) -> None:
        def grow(frame: list[Op]) -> Callable[[], None]:
            return lambda: self.maker.frames(frame)

        with (
            pytest.MonkeyPatch.context() as patch,
            scripted(patch, self.journal.path, self.mirror, [grow(frame) for frame in self.more]) as replay,
        ):
            replay.run()


class Promoting(Nothing):
    """A mirror of a copy becomes the primary; frames after the last commit are dropped, with the copy's mark."""

    def prepare(self) -> None:
        made = Maker(self.place / "old", file_bytes=600)  # so that whole files are dropped, too
        made.frames(*FRAMES, *AFTER)
        self.copy, self.mirror = str(self.place / "J"), str(self.place / "M")
        local(made.maker.close(), Path(self.copy), has_slot=False).run()
        replay_all(self.copy, self.mirror, until=Until(lsn=6))
        self.promotion: Promotion | None = None

    def act(self) -> None:
        with Promotion(self.mirror) as promotion:
            if promotion.plan:
                promotion.drain()
                promotion.verify()
            promotion.carry_out()
            self.promotion = promotion

    def recover(self) -> None:
        self.act()

    def check(self) -> None:
        assert self.promotion and self.promotion.promoted
        assert self.promotion.promoted.epoch.start.lsn == 11
        assert known_mark(self.copy) is None
        if self.is_thorough:
            check_is_primary(self.copy, self.promotion, self.place / "third")
        else:
            now = record_on(self.copy)
            assert volumes_at(Journal(self.copy)) == now


ACTIVITIES: dict[str, Making] = {
    "record": Recording,
    "detached": Detached,
    "resize": Resizing,
    "create": Creating,
    "prune": Pruning,
    "base": MakingBase,
    "send": Sending,
    "receive": Receiving,
    "receive a base": ReceivingBase,
    "slots": Slots,
    "replay": Replaying,
    "spanned": Spanning,
    "labels": Labelling,
    "follow": Following,
    "promote": Promoting,
}
