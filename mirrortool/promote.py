"""Promote: a mirror becomes the primary of its journal, at the last commit that the journal has.

Order, each step durable before the next:

    1  the mirror is replayed to the commit and verified          all of this can be repeated, or left at that: journal
                                                                  and mirror are what they were
    2  JOURNAL/promoting.json says what is to be done             nothing reads or appends to the journal from here on
    3  mirror.json says that the mirror is promoted               nothing replays into it from here on
    4  JOURNAL/received.json goes; frames after the commit go
       to JOURNAL/forked                                          bytes are durable there before they are cut off
    5  JOURNAL/sums, local.json and recorder.json become those
       of the mirror's volumes, and slots after the commit lost
    6  journal.json gets the new epoch, and where frames end
    7  promoting.json goes                                        record can begin

Rule: a promotion that was interrupted between 2 and 3 is forgotten by the next one, as nothing had changed; one that
was interrupted later is completed, and nothing but promote can use journal or mirror before. So at no point are there
two primaries.
Rule: the journal is locked from the first look to the end, so that no recorder and no receiver runs; the mirror
is locked while it is looked at, and from 2 on.

Not here: making sure that the old primary has stopped. What it records from here on is refused, by its epoch.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from mirrortool import clock, files, hostinfo
from mirrortool.errors import (
    ChangedOutsideError,
    CorruptJournalError,
    FuzzyCommitError,
    JournalError,
    LockedError,
    MirrortoolError,
    NoSpaceError,
    NotComparableError,
    PastPointError,
    PromotedError,
    UnusableVolumeError,
)
from mirrortool.files import File
from mirrortool.journal.commits import Commit
from mirrortool.journal.copies.basetransfer import drop_base_transfer, finish_base_transfer
from mirrortool.journal.directory import Journal
from mirrortool.journal.durablemark import drop_mark
from mirrortool.journal.lineage import LINEAGE_BYTES, Epoch, History
from mirrortool.journal.point import Until
from mirrortool.journal.pointlookup import require_commit
from mirrortool.journal.position import FrameEnd
from mirrortool.journal.recordercheckpoint import RecorderCheckpoint
from mirrortool.journal.setaside import Dropped, count_after, fork, frame_end_at
from mirrortool.journal.slots import lose_after_fork
from mirrortool.journal.unfinished import (
    PromotionNote,
    Unfinished,
    check_finished,
    load_note,
    remove_note,
    save_note,
)
from mirrortool.lifecycle import Opened
from mirrortool.mirror import volumelabels
from mirrortool.mirror.checkpoint import Checkpoint, describe
from mirrortool.mirror.directory import Mirror, Promoted
from mirrortool.mirror.findings import Finding, findings, union
from mirrortool.mirror.findings import describe as describe_known
from mirrortool.mirror.openvolumes import open_store
from mirrortool.mirror.partialmirror import not_whole
from mirrortool.operation import CommitKind
from mirrortool.record.heldvolumes import HeldVolumes
from mirrortool.record.missingsegments import forget_noted
from mirrortool.record.scansources import check_apart
from mirrortool.replay.session import Replay
from mirrortool.store.pagesums import copy_sums
from mirrortool.verify import Verify, VerifyResult
from mirrortool.wording import counted, exact_bytes, quoted_word

_SPARE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PromotionPlan:
    """What a promotion would do.

    Attributes:
        commit: the state that the new primary begins with.
        age_seconds: since it was made.
        operations_to_replay: that the mirror lacks of it.
        end: where the journal is cut.
        dropped: what lies after it.
    """

    commit: Commit
    age_seconds: float
    operations_to_replay: int
    end: FrameEnd
    dropped: Dropped


class Promotion:
    """A promotion; `with` releases the locks. First `drain`, then `verify` or not, then `carry_out`.

    Attributes:
        plan: what it will do; None if an earlier one has only to be completed, or is complete.
        promoted: of the earlier one; or of this one, when it is carried out.
        is_complete: whether nothing is left to be done.
        known_bad: what verifications found wrong with the mirror, before it was opened.
    """

    def __init__(
        self,
        mirror_path: str,
        *,
        journal_path: str | None = None,
        until: Until | None = None,
        allow_fuzzy: bool = False,
        force_known_bad: bool = False,
    ) -> None:
        """Lock the journal and look at everything; nothing is changed.

        But a base that had begun to take the place of older files, when a receiver ended, comes to its place.

        Args:
            journal_path: where the journal is, by default where the mirror's last replay found it.
            until: promote at the last commit at or before this; by default at the newest.
            allow_fuzzy: promote a commit under which a volume changed, too.
            force_known_bad: promote a mirror of which a verification found that pages are bad, too.
        Raises:
            ChangedOutsideError: it is known to be bad.
            LockedError: a recorder, a receiver or a replay is running.
            PromotedError: the mirror was promoted with another journal, or another one was since.
            UnfinishedPromotionError: another mirror's promotion was interrupted.
            NotComparableError: there is no commit yet, or the base is not complete.
            FuzzyCommitError, PastPointError, JournalError: there is no such state.
        """
        self.mirror = Mirror(mirror_path)
        path = journal_path or self.mirror.journal_path
        if until is not None and until.is_newest:
            until = None
        with ExitStack() as opening:
            opening.enter_context(_lock(Journal(path, finishing=Unfinished.PROMOTION)))
            finish_base_transfer(Journal(path, finishing=Unfinished.PROMOTION))
            self.journal = Journal(path, finishing=Unfinished.PROMOTION)  # as it is under the lock
            with self.mirror.lock(exclusive=True, doing="promote", promoting=True):
                self._note = self._find_note()
                self.promoted = self.mirror.promoted
                self.is_complete = self.promoted is not None and self._note is None
                self.plan = None if self.promoted else self._plan(until, allow_fuzzy)
                self.known_bad = findings(self.mirror) if self.plan else []
                self._check_known_bad(force_known_bad)
            self._opened = Opened(opening.pop_all(), "promotion", mirror_path)

    def __enter__(self) -> Promotion:
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    def drain(self, run: Callable[[Replay], Checkpoint] = Replay.run, *, verifies: bool = True) -> None:
        """Bring the mirror to the commit.

        Args:
            run: runs the replay.
            verifies: `verify` follows, so that no volume is refused for its time alone.
        Raises:
            MirrortoolError: as a replay does; the mirror is where that left it, and still a mirror.
        """
        self._opened.require()
        assert self.plan is not None
        commit = self.plan.commit
        until = Until(lsn=commit.lsn)  # what is known to be bad was forced by the caller
        with Replay(
            self.journal.path, self.mirror.path, until=until, trusts_times=not verifies, force_known_bad=True
        ) as replay:
            try:
                run(replay)
            except JournalError:  # damage after the commit does not matter
                if replay.mirror.checkpoint.position != commit.position:
                    raise
        self.mirror = Mirror(self.mirror.path)

    def verify(self, run: Callable[[Verify], VerifyResult] = Verify.run) -> VerifyResult:
        """Prove that the mirror is the primary at the commit.

        Args:
            run: runs the verification.
        Raises:
            ChangedOutsideError: some pages are bad that were not known to be when the promotion was forced; or the
                mirror's sums are wrong.
            CorruptJournalError: the journal does not have the state sum of the mirror's checkpoint.
        """
        self._opened.require()
        with Verify(self.mirror.path) as verify:
            result = run(verify)
            if verify.journal_error:
                raise verify.journal_error
        new = result.bad_pages - _count_known(result, self.known_bad)
        if new:
            raise ChangedOutsideError(
                f"{counted(new, 'page is', 'pages are')} not what the primary had, so it is not promoted",
                where=self.mirror.path,
                remedy=f"mirrortool verify {quoted_word(self.mirror.path)} names them; another mirror may be sound",
            )
        if result.table_is_right is False:
            raise self._wrong_sums(", ".join(result.wrong_sums))
        if result.journal_agrees is False:
            raise CorruptJournalError(
                "the journal does not have the state sum of the mirror's checkpoint, so it is not promoted",
                where=self.journal.path,
                remedy="mirrortool verify of the journal tells whether its state sums are right",
            )
        return result

    def carry_out(self) -> Promoted:
        """Make the mirror the primary; what an earlier call left undone is done.

        Raises:
            MirrortoolError: it is not complete. If journal and mirror are not as they were, promote completes it.
        """
        self._opened.require()
        if not self.is_complete:
            with self.mirror.lock(exclusive=True, doing="promote", promoting=True):
                if self._note is None:
                    self._begin()
                try:
                    self._complete()
                except MirrortoolError as error:
                    again = "then run promote again, which completes what was begun"
                    error.remedy = f"{error.remedy}; {again}" if error.remedy else again
                    raise
            self.is_complete = True
        assert self.promoted is not None
        return self.promoted

    def _check_known_bad(self, is_forced: bool) -> None:
        if self.known_bad and not is_forced:
            raise ChangedOutsideError(
                f"{describe_known(self.mirror, self.known_bad, clock.now_ns())}; so it is not promoted",
                where=self.mirror.path,
                remedy="mirrortool verify proves it anew; another mirror may be sound; --force-known-bad promotes it "
                "as it is",
            )

    def _find_note(self) -> PromotionNote | None:
        """What an interrupted promotion of this mirror left to be done.

        One that had not noted itself in the mirror yet had changed nothing, so it is forgotten.
        """
        note, promoted = load_note(self.journal.path), self.mirror.promoted
        if note and note.mirror_uuid != self.mirror.uuid:
            check_finished(self.journal.path)
        if note and promoted is None:
            remove_note(self.journal.path)
            return None
        if promoted and not note:
            self.mirror.check_not_replaced(self.journal)
        known = (note.epoch,) if note else self.journal.history.epochs
        if promoted and promoted.epoch not in known:
            raise PromotedError(
                f"the mirror was promoted with another journal, at position {promoted.epoch.start}",
                where=self.mirror.path,
                remedy=f"its volumes are recorded in {promoted.journal_path}",
            )
        return note

    def _plan(self, until: Until | None, allow_fuzzy: bool) -> PromotionPlan:
        self.mirror.check_is_of(self.journal)
        self._check_places()
        commit, checkpoint = require_commit(self.journal, until), self.mirror.checkpoint
        self._check_kind(commit, allow_fuzzy)
        reached = max(checkpoint.position.lsn, checkpoint.reached_lsn)
        if reached > commit.lsn and until is None:
            raise NotComparableError(
                f"no commit after LSN {commit.lsn}, but {describe(checkpoint)}",
                where=self.mirror.path,
                remedy="promote another mirror, or wait for the commit that it was going to",
            )
        if reached > commit.lsn:
            raise PastPointError(
                f"the mirror is at LSN {reached} already, after the commit at LSN {commit.lsn}",
                where=self.mirror.path,
                remedy=f"mirrortool replay {quoted_word(self.journal.path)} NEW --until {commit.lsn} makes another",
            )
        self.journal.history.promoted(commit.position, b"")  # one more there may be
        end = frame_end_at(self.journal, commit.position)
        return PromotionPlan(
            commit,
            max(0, clock.now_ns() - commit.time_ns) / 1e9,
            commit.lsn - checkpoint.position.lsn,
            end,
            count_after(self.journal, end, check=until is None),
        )

    def _check_places(self) -> None:
        """A primary can have its volumes where the mirror has them."""
        if not self.mirror.holds_all:
            raise not_whole(self.mirror, self.journal)
        for kept in self.mirror.kept:
            if problem := kept.place.why_not_promoted():
                what, remedy = problem
                raise UnusableVolumeError(f"volume {kept.name} {what}", where=self.mirror.path, remedy=remedy)

    def _check_kind(self, commit: Commit, allow_fuzzy: bool) -> None:
        if commit.kind == CommitKind.INCOMPLETE:
            raise NotComparableError(
                f"at LSN {commit.lsn} the primary's initial scan had not ended: the mirror lacks some of it",
                where=self.journal.path,
                remedy="wait until the initial scan is complete, or name an earlier commit that is complete with "
                "--until",
            )
        if commit.kind == CommitKind.FUZZY and not allow_fuzzy:
            raise FuzzyCommitError(
                f"the commit at LSN {commit.lsn} is fuzzy: a volume changed while it was scanned",
                where=self.journal.path,
                remedy="name an earlier commit with --until, or give --allow-fuzzy and check the file systems",
            )

    def _begin(self) -> None:
        """Steps 2 and 3, after the last checks."""
        plan, mirror, checkpoint = self.plan, self.mirror, self.mirror.checkpoint
        assert plan is not None
        if checkpoint.position != plan.commit.position or not checkpoint.is_consistent:
            raise NotComparableError(
                f"{describe(checkpoint)}, not at LSN {plan.commit.lsn}", where=mirror.path, remedy="promote again"
            )
        check_apart(self.journal.path, self._volume_paths())
        sums = mirror.open_sums(write=False)
        try:
            if sums.compute_state_sum() != checkpoint.state_sum:
                raise self._wrong_sums(mirror.sums_path)
        finally:
            sums.close()
        self._check_space(plan)
        epoch = self.journal.history.promoted(plan.commit.position, secrets.token_bytes(LINEAGE_BYTES)).current
        now, here = clock.now_ns(), files.absolute(self.journal.path)
        open_store(mirror, write=True).close()  # the volumes are there, and as they were left
        self._note = PromotionNote(files.absolute(mirror.path), mirror.uuid, plan.end, epoch, now)
        save_note(self.journal.path, self._note)
        mirror.save_promoted(Promoted(epoch, here, now))
        self.promoted = mirror.promoted

    def _complete(self) -> None:
        """Steps 4 to 7."""
        note, journal, mirror = self._note, self.journal, self.mirror
        assert note is not None
        open_store(mirror, write=True).close()
        if journal.history.current != note.epoch:
            drop_mark(journal.path)  # what is cut was durable, and is not missed
            fork(journal, note.end, journal.epoch)
            files.make_directory(journal.sums_path, exist_ok=True)
            copy_sums(mirror.sums_path, journal.sums_path, [kept.name for kept in mirror.kept])
            journal.save_volume_paths(self._volume_paths())
            drop_base_transfer(journal)
            volumelabels.remove(mirror)
            forget_noted(journal)  # it told of the old primary's volumes
            self._save_recorder_checkpoint(note)
            lose_after_fork(journal, note.end.position, mirror.uuid.hex())
            journal.next_scan = None  # that was the old primary's
            journal.save_history(_with_epoch(journal.history, note.epoch), note.end)
        remove_note(journal.path)

    def _save_recorder_checkpoint(self, note: PromotionNote) -> None:
        checkpoint = self.mirror.checkpoint
        with HeldVolumes(self.journal) as held:
            sizes = checkpoint.sizes.items()
            records = held.records()
            held.note_as_left(are_synced=True)
            self.journal.save_recorder_checkpoint(
                RecorderCheckpoint(
                    note.end.position,
                    checkpoint.state_sum,
                    clock.now_ns(),
                    hostinfo.boot_id(),
                    {name: replace(records[name], size=size) for name, size in sizes},
                ),
                note.epoch.lineage,
            )

    def _volume_paths(self) -> dict[str, str]:
        return {kept.name: files.absolute(self.mirror.volume_path(kept)) for kept in self.mirror.kept}

    def _check_space(self, plan: PromotionPlan) -> None:
        directory = self.mirror.sums_path
        tables = [files.find_facts(files.join(directory, name)) for name in files.list_directory(directory)]
        needed = _SPARE_BYTES + sum(facts.allocated for facts in tables if facts) + plan.dropped.size
        if files.free_bytes(self.journal.path) < needed:
            raise NoSpaceError(
                f"the journal needs {exact_bytes(needed)} for sums and for what is dropped",
                where=self.journal.path,
                remedy="free some space and run the command again; nothing was changed",
            )

    def _wrong_sums(self, where: str) -> MirrortoolError:
        return ChangedOutsideError(
            "the mirror's sums do not give the primary's state sum, so it is not promoted",
            where=where,
            remedy=f"mirrortool verify --journal {quoted_word(self.journal.path)} {quoted_word(self.mirror.path)} "
            "proves the pages without them",
        )


def _count_known(result: VerifyResult, known: Sequence[Finding]) -> int:
    """How many of the bad pages were known; of those that were not listed, as many as are found."""
    listed = union(known)
    count = sum(
        max(0, min(run.first_page + run.count, end) - max(run.first_page, first))
        for run in result.bad_runs
        for volume, first, end in listed
        if volume == run.volume
    )
    return min(result.bad_pages, count + sum(finding.unlisted for finding in known))


def _with_epoch(history: History, epoch: Epoch) -> History:
    begun = history.promoted(epoch.start, epoch.lineage)
    assert begun.current == epoch, "the journal was locked, or noted, since the epoch was chosen"
    return begun


def _lock(journal: Journal) -> File:
    try:
        return journal.lock("promote")
    except LockedError as error:
        error.remedy = "stop its recorder or receiver first: nothing may arrive while the mirror is promoted"
        raise
