"""A replay from opening to closing: a journal, a mirror, the source of its frames, and the guards around them.

one-shot   to a commit that the journal has by now
follow     for ever, or until a point is reached that the journal may not have yet
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from typing import Any

from mirrortool import clock, files
from mirrortool.errors import (
    ChangedOutsideError,
    ForkedJournalError,
    HostError,
    JournalError,
    MirrortoolError,
    NoSpaceError,
    NotComparableError,
    PastPointError,
    PrunedJournalError,
    UsageError,
)
from mirrortool.journal import slots
from mirrortool.journal.bases.listing import open_base
from mirrortool.journal.commits import Commit, is_past
from mirrortool.journal.copies.basetransfer import open_finished
from mirrortool.journal.point import Until
from mirrortool.journal.reader import JournalReader, up_to_what_is_appended
from mirrortool.journal.slots import Slot
from mirrortool.journal.tail import Tail
from mirrortool.lifecycle import Opened
from mirrortool.lsn import Lsn
from mirrortool.mirror import lastreplay, lastseen, newmirror, volumelabels
from mirrortool.mirror.backingvolumes import relocate
from mirrortool.mirror.checkpoint import Checkpoint, describe
from mirrortool.mirror.directory import Mirror, empty_checkpoint
from mirrortool.mirror.findings import Finding, Repairs, findings
from mirrortool.mirror.findings import describe as describe_findings
from mirrortool.mirror.lastreplay import LastReplay
from mirrortool.mirror.openvolumes import open_store
from mirrortool.nbd.uri import is_nbd_uri
from mirrortool.replay.checkpointer import Checkpointer, ReplayProgress
from mirrortool.replay.commitlimit import CommitLimit
from mirrortool.replay.delegator import Delegator
from mirrortool.replay.engine import ReplayEngine
from mirrortool.replay.formerslots import check_place, drop_former, former_slots, slots_to_go
from mirrortool.replay.framesource import FramesAsTheyCome, FramesFromBase, FrameSource, FramesUpTo
from mirrortool.replay.goalcommit import find_goal, start_towards, stop_point
from mirrortool.replay.inflight import InFlightStatistics
from mirrortool.replay.planner import Choice
from mirrortool.replay.preflight import check_total
from mirrortool.replay.replaylag import LagMeter, ReplayLag
from mirrortool.replay.replayoptions import ReplayOptions
from mirrortool.replay.resync import Resync
from mirrortool.replay.slotregistration import Registration
from mirrortool.replay.startposition import Start
from mirrortool.replay.taskgroup import GroupStatistics
from mirrortool.replay.tasktable import RowSnapshot
from mirrortool.replay.tracing import Started
from mirrortool.replay.tuner import Tuner, open_engine_plan
from mirrortool.wording import quoted_word


@dataclass(frozen=True, slots=True)
class ReplayStatistics:
    """A replay at one moment.

    Attributes:
        progress: what was replayed and is durable: the mirror's checkpoint names it, or a later one.
        handed_out_lsn: up to here operations were given to the tasks; at least `progress.lsn`.
        lag: of the checkpoint.
    """

    progress: ReplayProgress
    handed_out_lsn: Lsn
    groups: tuple[GroupStatistics, ...]
    in_flight: InFlightStatistics
    choice: Choice
    lag: ReplayLag
    waits_for: str
    is_polling: bool


class Replay:
    """A replay of a journal into a mirror, which is made if it does not exist (530, FIG. 5). `with` releases the locks.

    Attributes:
        goal: the commit that it is to reach; None if it follows the journal.
        is_new: whether the mirror was made by this call.
        start: where it begins: at the mirror's position, or at a base.
        slot: the name of its slot in the journal; None if it has none.
    """

    def __init__(
        self, journal_path: str, mirror_path: str, options: ReplayOptions | None = None, **changes: Any
    ) -> None:
        """Open and check everything; nothing is replayed yet.

        Args:
            options: how to replay; by default, to the journal's newest commit.
            changes: attributes of ReplayOptions, in place of those that `options` has.
        Raises:
            MirrortoolError: a guard refuses; the mirror is unchanged.
        """
        self._options = options = replace(options or ReplayOptions(), **changes)
        self.journal = open_finished(journal_path)
        self.goal: Commit | None = None
        self._until = self._find_goal()
        check_total(self.journal.volumes, options.max_bytes)
        self._former: list[Slot] = []
        self._check_place(mirror_path)
        self._find_mirror(mirror_path)
        with ExitStack() as opening:
            opening.enter_context(self.mirror.lock(exclusive=True, doing="follow" if options.follow else "replay"))
            self._check_is_of()
            if not self.is_new:
                relocate(self.mirror, options.backings, options.extent_bytes)
            self._check_goal(Until(lsn=self.goal.lsn) if self.goal and options.flush_only else self._until)
            self._keeps_seen = self._check_seen() and not options.is_scratch
            self._registration = self._register()
            self.start = self._open_start()
            resync = self._open_journal(opening)
            self._ended_soundly = False
            opening.callback(self._note_seen)
            self._open_writers(opening, resync)
            self._opened = Opened(opening.pop_all(), "replay", mirror_path)

    def _find_goal(self) -> Until | None:
        """Where the replay stops; sets the goal of one that does not follow."""
        options = self._options
        if options.follow:
            return stop_point(self.journal, options.until, options.delay_seconds)
        until, self.goal = find_goal(self.journal, options.until, options.delay_seconds, flush_only=options.flush_only)
        return until

    def _register(self) -> Registration | None:
        slot, replaces = self._options.slot, self._options.replace_slot
        if slot is None:
            return None
        # The slot of one that is gone becomes this mirror's in one step: kill -9 leaves one or the other.
        name = slot or (self._former[0].name if replaces and self._former else slot)
        return Registration(self.journal, self.mirror, name, may_adopt=replaces)

    def _open_journal(self, opening: ExitStack) -> Resync | None:
        """Open what is read: the journal, and a base where the replay begins with one."""
        options = self._options
        self._reader = opening.enter_context(self._reader_at(self.start))
        if options.replace_slot and options.slot is None:
            drop_former(self.journal, self._former)
        resync = self._open_resync(opening)
        self._meter = LagMeter(self.journal, self._reader.file_first_lsn, self._reader.offset)
        opening.enter_context(self._meter)
        self._tail = opening.enter_context(Tail(self.journal, options.observer)) if options.follow else None
        source = self._choose_source(opening)
        self._source = FramesFromBase(resync, source) if resync else source
        self._reader.on_epoch = self._follow
        self._follow()
        return resync

    def _open_writers(self, opening: ExitStack, resync: Resync | None) -> None:
        """Open what is written: the store and the sums, and the threads that write them."""
        options, wanted = self._options, self._options.wanted
        store = opening.enter_context(closing(open_store(self.mirror, write=True)))
        sums = opening.enter_context(closing(self.mirror.open_sums(write=True)))
        first = open_engine_plan(wanted, store)
        if options.tracer:
            paths = files.absolute(self.journal.path), files.absolute(self.mirror.path)
            options.tracer(Started(*paths, self.mirror.page_size, clock.now_ns()))
        is_held = None if self.mirror.holds_all else self.mirror.is_held
        engine = ReplayEngine(store, first.plan, tracer=options.tracer, timed=not first.is_final, is_held=is_held)
        self._engine = opening.enter_context(engine)
        self._tuner = Tuner(engine, store, wanted, first)
        self._repairs = Repairs(self.mirror)
        self._repairs.mend_sums(sums, self.mirror.checkpoint)
        on_saved = self._registration.advance if self._registration else None
        self._delegator = Delegator(
            self._reader,
            store,
            sums,
            engine,
            self._tuner,
            Checkpointer(
                self.mirror, store, sums, read_back=options.read_back, on_saved=on_saved, repairs=self._repairs
            ),
            self._source,
            options,
            resync=resync,
            known_bad=self._repairs.runs(self.mirror.volumes) if options.force_known_bad else (),
        )

    def _check_place(self, path: str) -> None:
        """The mirror that the journal has a slot of is neither missing nor replaced by another; or the user says so."""
        slot, replaces = self._options.slot, self._options.replace_slot
        is_new = not files.exists(files.join(path, "mirror.json"))
        mirror = None if is_new else Mirror(path)
        has_own = mirror and mirror.slot and slots.is_there(self.journal, mirror.slot)
        if replaces or is_new or (slot is not None and not has_own):
            self._former = former_slots(self.journal, path, mirror.uuid.hex() if mirror else None)
        if replaces:
            self._former = slots_to_go(self.journal, self._former, slot)
        else:
            check_place(self.journal, path, self._former, slot, is_new=is_new)

    def _find_mirror(self, path: str) -> None:
        """Open the mirror, or make it, if the journal holds what it needs."""
        options, targets = self._options, self._options.targets
        self.is_new = newmirror.is_to_be_made(path)
        if self.is_new:
            self._start_from(empty_checkpoint(self.journal))
            paths = {name: target for name, target in (targets or {}).items() if not is_nbd_uri(target)}
            volumelabels.check_targets({**paths, **{f"@{each.path}": each.path for each in options.backings}})
            newmirror.create(
                path,
                self.journal,
                targets,
                backings=options.backings,
                extent_bytes=options.extent_bytes,
                only=options.only,
                overwrite=options.overwrite,
                raw=options.raw,
                is_scratch=options.is_scratch,
                group=options.group,
            )
        self.mirror = Mirror(path)
        if not self.is_new:
            _check_only(self.mirror, options.only)
            _check_targets(self.mirror, targets or {})

    def _start_from(self, checkpoint: Checkpoint) -> Start:
        return start_towards(self.journal, checkpoint, self.goal, self._until, self._options.delay_seconds)

    def _check_is_of(self) -> None:
        """The mirror is one of this journal; if it never can be again, its slot in the journal is lost."""
        try:
            self.mirror.check_is_of(self.journal)
        except ForkedJournalError:
            if self.mirror.slot:
                slots.lose(self.journal, self.mirror.slot, files.absolute(self.mirror.path))
            raise

    def _open_start(self) -> Start:
        """Choose where to begin, and let the slot say so before any of that can be pruned.

        The journal may no longer contain the mirror's position, as the files with it were removed: the mirror's slot
        was lost, or it had none.

        Raises:
            PrunedJournalError: that is so, and no base helps; the journal's slots are what they were.
        """
        for is_last in (False, True):
            try:
                start = self._start_from(self.mirror.checkpoint)
                if start.base and self._registration:
                    self._registration.resync(start.base.lsn)
                return start
            except PrunedJournalError:  # once: the base that was chosen may just have been removed
                if is_last:
                    self._withdraw()
                    raise
        raise AssertionError

    def _reader_at(self, start: Start) -> JournalReader:
        """A reader at this start.

        Raises:
            JournalError: the journal has another history, or is damaged at that position; its slots are what they were.
        """
        try:
            reader = JournalReader(self.journal, start.position)
        except MirrortoolError:
            self._withdraw()
            raise
        if self._registration:
            if start.base is None:
                self._registration.confirm(self.mirror.checkpoint)
            self._registration.keep()
        return reader

    def _check_seen(self) -> bool:
        """Whether the volumes are as they were left, as far as is known.

        Raises:
            ChangedOutsideError: they are not, and that matters.
        """
        problem = lastseen.find_problem(self.mirror)
        if problem and self._options.trusts_times:
            raise self._with_findings(problem)
        self._is_suspect = problem is not None
        return problem is None

    def _with_findings(self, error: ChangedOutsideError) -> ChangedOutsideError:
        """The error, with what a verification found: what is seen now may be known already."""
        if known := findings(self.mirror):
            error.what = f"{error.what}; {describe_findings(self.mirror, known, clock.now_ns())}"
        return error

    def _begin_writing(self) -> None:
        if not self._options.is_scratch:
            volumelabels.require_own(self.mirror)
            if not self._is_suspect:
                lastseen.forget(self.mirror)
            volumelabels.attach(self.mirror)  # after that, as a new label changes what is seen of the volumes

    def _note_seen(self) -> None:
        """At the end, when the volumes are closed, and nothing was found that is not as it was left."""
        if self._keeps_seen and self._ended_soundly:
            lastseen.note(self.mirror, lastseen.look(self.mirror))
        elif self._is_suspect:
            lastseen.carry_over(self.mirror)

    def _withdraw(self) -> None:
        if self._registration:
            self._registration.withdraw()

    def _open_resync(self, opening: ExitStack) -> Resync | None:
        """What brings the mirror to a base, where the replay begins with one."""
        start = self.start
        if start.base is None:
            return None
        base = opening.enter_context(open_base(self.journal, start.base.lsn))
        table = opening.enter_context(closing(self.mirror.open_sums(write=False)))
        return Resync(base, table, self.mirror.checkpoint, ignores_table=start.ignores_table)

    def _choose_source(self, opening: ExitStack) -> FrameSource:
        if self.goal:
            return FramesUpTo(self._reader, self.goal.lsn)
        assert self._tail
        if self._until is None and not self._options.delay_seconds:
            return FramesAsTheyCome(self._reader, self._tail)
        limit = CommitLimit(
            self.journal, self._reader.position, delay_seconds=self._options.delay_seconds, until=self._until
        )
        return FramesAsTheyCome(self._reader, self._tail, opening.enter_context(limit))

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    def run(self) -> Checkpoint:
        """Replay to the goal, or follow until that is cancelled or over (450); returns the mirror's checkpoint.

        Raises:
            JournalError: damaged, or, with a goal, torn; before the goal or after it. The mirror is at an earlier
                commit, or rolling forward.
            NotComparableError: the mirror is between two commits, and the journal does not have the second yet.
            HostError: the store or the journal failed; the error says how the mirror was left.
        """
        self._opened.require()
        start_lsn, began = self.mirror.checkpoint.position.lsn, clock.monotonic()
        self._begin_writing()
        try:
            self._delegator.run()
            self._ended_soundly = True
        except ChangedOutsideError as error:
            raise self._with_findings(error) from None
        except HostError as error:
            self._ended_soundly = isinstance(error, NoSpaceError)
            how = describe(Mirror(self.mirror.path).checkpoint)
            error.remedy = f"{error.remedy}; {how}" if error.remedy else how
            raise
        except ForkedJournalError:
            if self._registration:
                self._registration.give_up(Mirror(self.mirror.path))
            self._ended_soundly = True
            raise
        except JournalError:
            self._ended_soundly = True
            raise
        finally:
            self._keep_counts(start_lsn, clock.monotonic() - began)
        if self.goal and self.mirror.checkpoint.position.lsn >= self.goal.lsn:
            self._read_remainder(self.goal)
        return self.mirror.checkpoint

    def cancel(self) -> None:
        """Stop soon, at a commit if possible; from any thread. A replay that follows ends in this way."""
        self._delegator.cancel()

    def statistics(self) -> ReplayStatistics:
        """How far it is; from any thread."""
        groups, in_flight = self._engine.statistics()
        progress, handed_out_lsn = self._delegator.statistics()  # before the checkpoint, which may be later
        return ReplayStatistics(
            progress,
            handed_out_lsn,
            groups,
            in_flight,
            self._tuner.choice,
            self._meter.measure(self.mirror.checkpoint, progress.journal_bytes),
            self._source.waits_for,
            self._tail is not None and self._tail.is_polling,
        )

    @property
    def known_bad(self) -> Sequence[Finding]:
        """What verifications found wrong with the mirror, as far as this replay has not made it right."""
        return self._repairs.left

    @property
    def slot(self) -> str | None:
        return self._registration.name if self._registration else None

    def tables(self) -> tuple[tuple[RowSnapshot, ...], ...]:
        """Each group's active task table now (FIG. 10); from any thread."""
        return self._engine.tables()

    def _follow(self) -> None:
        """Before a frame of a new epoch is applied, the mirror refuses every journal of the one before."""
        self.mirror.check_is_of(self.journal)
        self.mirror.follow_to(self.journal)

    def _keep_counts(self, start_lsn: Lsn, seconds: float) -> None:
        """For `status` and `replay --dry-run`; not in a mirror without room for it."""
        groups, _ = self._engine.statistics()
        lsn = self.mirror.checkpoint.position.lsn
        is_done = self.goal is not None and start_lsn < self.goal.lsn == lsn
        last = LastReplay(
            start_lsn,
            lsn,
            clock.now_ns(),
            sum(group.units for group in groups),
            sum(group.direct for group in groups),
            sum(group.delegated for group in groups),
            sum(group.waited for group in groups),
            sum(group.given_back for group in groups),
            round(1000 * seconds) if is_done else 0,
            self.start.base_bytes + self.start.journal_bytes if is_done else 0,
        )
        with suppress(HostError):
            lastreplay.save(self.mirror.path, last)

    def _read_remainder(self, goal: Commit) -> None:
        """Between the goal and the point asked for nothing is damaged, or it might hide a later commit.

        And if that is not what hid it, a mirror that is after the newest commit says that it waits for the next.
        """
        until = self._until
        is_mark = until is not None and until.mark is not None
        with up_to_what_is_appended(self.journal):
            while header := self._reader.next_header():
                if until is not None and is_past(header.position.lsn, header.time_ns, until):
                    return
                if header.is_commit or not is_mark:
                    self._reader.batch()
        if not self.mirror.checkpoint.is_consistent:
            raise NotComparableError(
                f"no commit after LSN {goal.lsn} yet, but {describe(self.mirror.checkpoint)}",
                where=self.journal.path,
            )

    def _check_goal(self, until: Until | None) -> None:
        checkpoint = self.mirror.checkpoint
        reached = max(checkpoint.position.lsn, checkpoint.reached_lsn)
        if until is None:
            return  # if damage hides the commit that the mirror was going to, the damage is what to report
        goal_lsn = self.goal.lsn if self.goal else until.lsn
        is_later = self.goal is None and until.time_ns is not None and checkpoint.time_ns > until.time_ns
        if is_later or (goal_lsn is not None and goal_lsn < reached):
            raise PastPointError(
                f"the mirror is at LSN {reached} already, after {'that time' if is_later else f'LSN {goal_lsn}'}",
                where=self.mirror.path,
                remedy=f"mirrortool replay {quoted_word(self.journal.path)} NEW --until {goal_lsn or 'TIME'} does",
            )


def _check_only(mirror: Mirror, only: Collection[str] | None) -> None:
    """A mirror holds what it was made with.

    Raises:
        UsageError: other volumes are named.
    """
    if only is not None and set(only) != set(mirror.held):
        held = "all volumes" if mirror.holds_all else ", ".join(mirror.held)
        raise UsageError(
            f"the mirror was made to hold {held}, which cannot be changed",
            where=mirror.path,
            remedy="leave --only out, or make another mirror",
        )


def _check_targets(mirror: Mirror, targets: Mapping[str, str]) -> None:
    kept = {volume.name: volume.place for volume in mirror.kept}
    for name, target in targets.items():
        if name not in kept:
            raise UsageError(f"the mirror has no volume {name}", where=mirror.path)
        if not kept[name].is_named_by(target, mirror.path):
            where = kept[name].describe(mirror.path)
            raise UsageError(
                f"volume {name} is kept in {where}", where=mirror.path, remedy="a mirror's volumes cannot be moved"
            )
