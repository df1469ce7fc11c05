"""Replay: the journal into one mirror, the copy into another; to the end, or to a commit of the past."""

from __future__ import annotations

import shutil

from hypothesis import strategies as st

from mirrortool.errors import ForkedJournalError, PastPointError, PrunedJournalError, UsageError
from tests.fakes.journals import images_of
from tests.machine.site import SHARES, Site, at, rule


class Replaying(Site):
    @rule(which=st.integers(0, 1))
    def replay_newest(self, which: int) -> None:
        mirror, source = list(self.mirrors.items())[which % len(self.mirrors)]
        goal = self.model.commit_at_or_before(self.head_of(source))
        if not goal:
            return
        with self.power():
            try:
                reached = self.replay(source, mirror)
            except ForkedJournalError:
                assert mirror in self.forked, "the mirror's history is not forked"
                self.forked.remove(mirror)
                self.done["fork"] += 1
                self.make_anew(mirror)
                return
            assert mirror not in self.forked, "the mirror has what no history has"
            assert reached == goal
            assert images_of(mirror) == self.model.state_at(goal)
            if source == self.journal_path:
                self.model.kept(goal)
            self.done["replay"] += 1

    @rule(where=SHARES, from_copy=st.booleans())
    def replay_until(self, where: float, from_copy: bool) -> None:
        """A mirror is brought to any commit that is left, or says that it is past it, or that nothing leads there."""
        made = [path for path in self.made_mirrors() if path not in self.forked]
        if not made:
            return
        made = made[-1:] if from_copy else made
        mirror, source = made[0], self.mirrors[made[0]]
        commits = [lsn for lsn in sorted(self.model.commits) if lsn <= self.head_of(source)]
        if not commits:
            return
        goal, before = commits[at(where, len(commits))], self.checkpoint(mirror)
        with self.power():
            is_past = max(before.position.lsn, before.reached_lsn, before.resync_lsn) > goal
            try:
                assert self.replay(source, mirror, goal) == goal
            except PastPointError:
                assert is_past
                return
            except (PrunedJournalError, UsageError):
                assert goal not in self.restorable(source), "a commit that is kept cannot be reached"
                return
            assert not is_past, "a mirror went back"
            assert images_of(mirror) == self.model.state_at(goal)
            self.done["replay until"] += 1

    @rule(where=SHARES, from_copy=st.booleans())
    def replay_the_past(self, where: float, from_copy: bool) -> None:
        """A new mirror, as of any commit that can be restored."""
        source = self.copy_path if from_copy and self.has_copy else self.journal_path
        commits = self.restorable(source)
        if commits:
            goal = commits[at(where, len(commits))]
            with self.power():
                self.check_restores(source, goal)

    def check_restores(self, source: str, goal: int) -> None:
        scratch = self.scratch()
        assert self.replay(source, scratch, goal) == goal
        assert images_of(scratch) == self.model.state_at(goal)
        shutil.rmtree(scratch)
        self.done["restored"] += 1
