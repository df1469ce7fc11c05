"""Verify: journal, copy and mirrors; status and log; and at the end, everything."""

from __future__ import annotations

from mirrortool import Audit, CommitKind, Journal, JournalStatus, MirrorStatus, Verify, commits, marks, status_of
from mirrortool.journal.bases.listing import base_lsns
from tests.fakes.journals import images_of
from tests.machine.model import PERHAPS_NAMED
from tests.machine.site import Site, precondition, rule


class Verifying(Site):
    @precondition(lambda machine: machine.made_mirrors())
    @rule()
    def verify(self) -> None:
        with self.power():
            for path in self.made_mirrors():
                self.verify_mirror(path)

    def verify_mirror(self, path: str) -> None:
        if path not in self.forked:
            self.check_mirror(path)
        with Verify(path, cached=True) as verify:
            result = verify.run()
        assert result.is_right, result
        self.done["verify"] += 1

    @rule()
    def tell(self) -> None:
        """Status and log have what the model has."""
        with self.power():
            self.check_log(self.journal_path)
            self.check_status()

    def check_log(self, path: str) -> None:
        first = next(iter(Journal(path).file_starts()), 1)
        head = self.head_of(path)
        known = {lsn: name for lsn, name in self.model.commits.items() if first <= lsn <= head}
        found = {commit.lsn: commit for commit in commits(Journal(path)) if commit.lsn <= head}
        assert known.keys() <= found.keys(), "a commit is missing"
        for lsn, commit in found.items():
            assert commit.kind != CommitKind.FUZZY
            if known.get(lsn, PERHAPS_NAMED) != PERHAPS_NAMED:
                assert commit.name == known[lsn]
        names = {found[named.lsn].name for named in marks(Journal(path)) if named.lsn <= head}
        assert names >= {name for name in known.values() if name and name != PERHAPS_NAMED}, "a mark is missing"

    def check_status(self) -> None:
        status = status_of(self.journal_path)
        assert isinstance(status, JournalStatus) and status.damage is None
        assert (status.head.lsn, status.commit and status.commit.lsn) == (self.model.head_lsn, self.model.newest)
        assert {volume.name: volume.size for volume in status.volumes} == {
            name: len(content) for name, content in self.model.now.items()
        }
        for path, source in self.made_mirrors().items():
            if path in self.forked:
                continue
            of_mirror = status_of(path)
            assert isinstance(of_mirror, MirrorStatus) and not of_mirror.known_bad
            if not of_mirror.damage and of_mirror.checkpoint.is_consistent:
                newest = self.model.commit_at_or_before(self.head_of(source))
                assert (of_mirror.lag_operations or 0) <= max(0, newest - of_mirror.checkpoint.position.lsn)
        self.done["status"] += 1

    def audit(self, path: str) -> None:
        result = Audit(path).run()
        assert result.lsn == self.head_of(path)
        self.done["audit"] += 1

    def prove(self) -> None:
        """Every commit that is left is restored; journal, copy and mirrors are proved; and the site still works."""
        if not self.recorder:
            self.start_recorder()
            self.learn()
        assert self.primary_contents() == self.model.now
        self.check_slots()
        for path in (self.journal_path, *([self.copy_path] if self.has_copy else [])):
            self.audit(path)
            self.check_log(path)
            self.restore_all(path)
        for path, source in self.made_mirrors().items():
            self.verify_mirror(path)
            goal = self.model.commit_at_or_before(self.head_of(source))
            if path not in self.forked and goal:
                assert self.replay(source, path) == goal
                assert images_of(path) == self.model.state_at(goal)
        self.recorder.close()
        assert self.primary.contents() == self.model.now

    def restore_all(self, path: str) -> None:
        """Every commit once, most in one mirror that goes from one to the next; each base begins one."""
        wanted = self.restorable(path)
        bases = {0, *base_lsns(Journal(path))} & {0, *wanted}
        mirror = self.scratch()
        for lsn in wanted:
            if lsn in bases:
                mirror = self.scratch()
            assert self.replay(path, mirror, lsn) == lsn
            assert images_of(mirror) == self.model.state_at(lsn), f"LSN {lsn}"
            self.done["restored"] += 1
