"""The machine without its verbs: a primary, a copy of its journal, a mirror of each, and a disk that can lose power.

A verb is a rule, in a mixin of a module of its own; test_machine.py puts them together. A rule

    asks the model first, what must become of it,
    calls the product inside `with self.power():`, as the power may fail at any call there (see crashing.py),
    and tells the model what the product has acknowledged.

To add a verb: a module with `class Verbing(Site)` and its rules, and its name in the list of test_machine.py.
All is on one disk, tests/fakes/disk.py; what lies on another host is kept when the power fails (`other_hosts`).
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mirrortool import Checkpoint, Journal, Mirror, Recorder, Replay, Until, hostinfo
from mirrortool.errors import NotAMirrorError
from mirrortool.journal.bases.listing import base_lsns
from mirrortool.journal.rawframes import find_end
from mirrortool.journal.slots import slots
from mirrortool.record import heldvolumes, recovery
from mirrortool.record.initialscan import InitialScan
from mirrortool.replay.slotregistration import OWN_SLOT
from tests.fakes.disk import DROPPED, Call, PowerCut, faulty
from tests.fakes.journals import ONE_TASK, images_of
from tests.fakes.recorders import drop, small_scale
from tests.fakes.volumes import Primary, fast_directory, make_primary
from tests.machine.model import Model

SHARES = st.floats(0, 1, exclude_max=True, width=16)
"""A place in something of which the length is not known yet."""
SEEDS = st.integers(0, 999)


def at(share: float, count: int) -> int:
    """Which of `count` things a share means."""
    return min(int(share * count), count - 1)


class Site(RuleBasedStateMachine):
    """A site, and what it must hold.

    Attributes:
        recorder: None while none is running.
        is_clean: whether the newest recorder stopped cleanly.
        forked: mirrors that have what a promotion dropped.
        acknowledged_lsn: up to here the copy has said that it has the journal durably.
        done: how often each thing was done, over all examples.
    """

    done: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.held = ExitStack()
        self.patch = self.held.enter_context(pytest.MonkeyPatch.context())
        self.path = self.held.enter_context(fast_directory())
        self.system = self.held.enter_context(faulty(self._fault))
        self.cut_in = 0  # calls until the power fails; 0 for never
        self.is_exposed = self.is_looking = False
        self.boots = 1
        self.generation = 0
        self.chance = random.Random(0)
        self.loses_power = False
        self.recorder: Recorder | None = None
        self.is_clean = False
        self.acknowledged_lsn = 0
        self.forked: set[str] = set()

    @initialize(
        page_size=st.sampled_from([512, 512, 4096]),
        pages=st.integers(1, 9),
        extra=st.sampled_from([0, 7]),
        is_grown=st.booleans(),
    )
    def make(self, page_size: int, pages: int, extra: int, is_grown: bool) -> None:
        self.page_size = page_size
        self.file_bytes = 6 * page_size
        small_scale(self.patch, page_size)
        self.patch.setattr("mirrortool.record.recorder.ZERO_BYTES_MAX", 64 << 20)  # else one change is three frames
        self.patch.setattr(recovery, "JournalWriter", self._writer(recovery.JournalWriter))
        self.patch.setattr(hostinfo, "boot_id", lambda: f"boot-{self.boots}")
        # The disk of the tests writes as it loses power, which may be long after the newest frame on a busy machine.
        self.patch.setattr(heldvolumes, "STALL_NS", 10**15)
        contents = {"a": random.Random(pages).randbytes(pages * page_size + extra), "b": bytes(3 * page_size)}
        self.primary: Primary = make_primary(self.path, contents, page_size)
        self.journal_path = self.primary.journal_path
        self.model = Model(contents)
        self.model.coming = self.model.now
        self.start_recorder()
        assert self.recorder
        InitialScan(self.recorder).run()
        self.learn()
        self.model.flushed()
        self.model.first_lsn = self.model.head_lsn
        self.done["examples"] += 1
        if is_grown:
            self.grow()

    def grow(self) -> None:
        """Some history, a copy, and both mirrors."""
        self.write_much(1, 8)
        self.flush()
        self.ship(follows=True)
        self.replay_newest(0)

    def _writer(self, real: Any) -> Any:
        return lambda journal, end, **rest: real(journal, end, file_bytes=self.file_bytes, **rest)

    # Where things are.

    @property
    def journal(self) -> Journal:
        return Journal(self.journal_path)

    def place(self, name: str) -> str:
        """Where something of this generation is: each promotion begins another."""
        return os.path.join(self.path, f"{name}-{self.generation}")

    @property
    def copy_path(self) -> str:
        return self.place("copy")

    @property
    def has_copy(self) -> bool:
        return os.path.exists(f"{self.copy_path}/journal.json")

    @property
    def mirrors(self) -> dict[str, str]:
        """The mirrors, and the journals that they follow."""
        far = {self.place("far"): self.copy_path} if self.has_copy else {}
        return {os.path.join(self.path, "near"): self.journal_path, **far}

    def made_mirrors(self) -> dict[str, str]:
        return {path: source for path, source in self.mirrors.items() if os.path.exists(f"{path}/mirror.json")}

    def head_of(self, journal_path: str) -> int:
        """How far a journal reaches."""
        if journal_path == self.journal_path:
            return self.model.head_lsn
        with self.looking():
            return find_end(Journal(journal_path)).lsn

    # The recorder, and the power.

    def start_recorder(self) -> None:
        self.recorder = Recorder(self.journal_path, background=False)
        self.is_clean = False

    def learn(self, *, beats: bool = False) -> None:
        """What the recorder says that it has, is what it acknowledged."""
        assert self.recorder
        now = self.recorder.statistics()
        self.model.changed(now.head_lsn, beats=beats)
        self.model.committed(now.commit_lsn)

    def kill(self) -> None:
        if self.recorder:
            drop(self.recorder)
        self.recorder = None

    def _fault(self, call: Call) -> object:
        if self.is_looking and call.name in ("fdatasync", "fsync"):
            return DROPPED
        if self.is_exposed and self.cut_in:
            self.cut_in -= 1
            if not self.cut_in:
                raise PowerCut
        return None

    @contextmanager
    def looking(self) -> Iterator[None]:
        """What the test reads by itself makes nothing durable."""
        self.is_looking = True
        try:
            yield
        finally:
            self.is_looking = False

    @contextmanager
    def power(self) -> Iterator[None]:
        """What is done meanwhile may be ended by a crash, from which the recorder has then recovered."""
        self.is_exposed = True
        try:
            yield
        except PowerCut:
            self.is_exposed = False
            self.done["cut"] += 1
            self.crash(self.loses_power)
        finally:
            self.is_exposed = False

    def crash(self, loses_power: bool) -> None:
        """Everything that runs is killed, or loses its power; then the recorder recovers."""
        self.cut_in = 0
        self.kill()
        if loses_power:
            for path in self.other_hosts():
                self.system.disk.keep(path)
            self.cut_power()
            self.done["power lost"] += 1
        self.system.disk.is_off = False
        self.recover(loses_power)

    def cut_power(self) -> None:
        """Of what was not synced nothing is left, or anything."""
        if self.chance.random() < 0.5:
            self.system.disk.lose_all()
        else:
            self.system.disk.cut_power(self.chance)
        self.boots += 1

    def other_hosts(self) -> list[str]:
        """What does not lose its power with the primary, this time."""
        paths = [self.copy_path, *self.mirrors]
        return paths if self.chance.random() < 0.5 else []

    def recover(self, lost_power: bool) -> None:
        self.start_recorder()
        assert self.recorder
        now = self.recorder.statistics()
        head_lsn = now.head_lsn
        assert lost_power or head_lsn >= self.model.head_lsn, "what was acknowledged is lost with a process"
        self.model.recovered(head_lsn, now.commit_lsn)
        self.learn()
        if self.has_copy:
            assert self.acknowledged_lsn <= self.head_of(self.copy_path) <= head_lsn, "what the copy has, is not so"
        assert self.primary_contents() == self.model.now, "the volumes are not what the journal says"

    def primary_contents(self) -> dict[str, bytes]:
        """What the volumes read as."""
        assert self.recorder
        return {name: self.recorder.read(name, 0, len(content)) for name, content in self.model.now.items()}

    # What every verb needs to know.

    def restorable(self, journal_path: str) -> list[int]:
        """Commits of the history that a journal must be able to restore: mirrortool-journal(5), BASES."""
        journal = Journal(journal_path)
        first = next(iter(journal.file_starts()), 1)
        kept = [1, *base_lsns(journal)] if first == 1 else [lsn for lsn in base_lsns(journal) if lsn + 1 >= first]
        most = self.head_of(journal_path)
        return sorted(lsn for lsn in self.model.commits if min(kept, default=most + 1) <= lsn <= most)

    def checkpoint(self, mirror: str) -> Checkpoint:
        return Mirror(mirror).checkpoint

    def check_mirror(self, path: str) -> None:
        """A mirror's position is a commit of the model, with the model's bytes; or it says that it is not."""
        checkpoint = Mirror(path).checkpoint
        lsn = checkpoint.position.lsn
        assert lsn <= self.head_of(self.mirrors[path]), "the mirror is after its journal"
        if checkpoint.is_consistent and lsn:
            assert lsn in self.model.commits, f"{path} is at LSN {lsn}, not a commit"
            assert images_of(path) == self.model.state_at(lsn)

    def check_slots(self) -> None:
        """A slot is not after its owner, and the journal has what it needs."""
        for path in {self.journal_path, *([self.copy_path] if self.has_copy else [])}:
            journal = Journal(path)
            first = next(iter(journal.file_starts()), 1)
            for slot in slots(journal):
                if slot.via or slot.is_lost:
                    continue
                owned = self.head_of(slot.where) if slot.kind == "ship" else self._position_of(slot.where)
                if owned is not None:
                    assert slot.position.lsn <= owned, f"slot {slot.name} is after its owner"
                assert slot.needs_lsn >= first, f"slot {slot.name} needs LSN {slot.needs_lsn}, {path} has {first}"

    def _position_of(self, mirror: str) -> int | None:
        return Mirror(mirror).checkpoint.position.lsn if os.path.exists(f"{mirror}/mirror.json") else None

    def replay(self, source: str, mirror: str, until: int | None = None, **options: Any) -> int:
        """Replay, and return the LSN that the mirror has then."""
        given: dict[str, Any] = {"until": Until(lsn=until)} if until is not None else {}
        if mirror in self.mirrors:
            given["slot"] = OWN_SLOT
        with Replay(source, mirror, plan=ONE_TASK, window_bytes=1 << 16, **given, **options) as replay:
            return replay.run().position.lsn

    def make_anew(self, mirror: str) -> None:
        """Remove a mirror, and make another in its place; not without being told that it is gone."""
        source = self.mirrors[mirror]
        had_slot = any(slot.where == mirror for slot in slots(Journal(source)))
        shutil.rmtree(mirror)
        if self.model.commit_at_or_before(self.head_of(source)):
            if had_slot:
                with pytest.raises(NotAMirrorError):
                    self.replay(source, mirror)
            self.replay(source, mirror, replace_slot=True)

    def scratch(self) -> str:
        path = os.path.join(self.path, "scratch")
        shutil.rmtree(path, ignore_errors=True)
        return path

    @invariant()
    def recorder_and_slots_are_right(self) -> None:
        if self.recorder:
            now = self.recorder.statistics()
            assert (now.head_lsn, now.commit_lsn) == (self.model.head_lsn, self.model.newest)
        self.check_slots()
        self.done["steps"] += 1

    def teardown(self) -> None:
        try:
            if hasattr(self, "model"):
                self.cut_in = 0
                self.prove()
        finally:
            self.kill()
            self.held.close()

    def prove(self) -> None:
        """All that is promised; see verifying.py."""


def runs(machine: Site) -> bool:
    return machine.recorder is not None


def stands(machine: Site) -> bool:
    return machine.recorder is None


__all__ = ["SEEDS", "SHARES", "Site", "at", "precondition", "rule", "runs", "stands"]
