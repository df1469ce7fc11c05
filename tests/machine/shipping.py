"""Ship to the copy."""

from __future__ import annotations

from hypothesis import strategies as st

from mirrortool import Journal, Shipping, newest_commits
from tests.machine.site import Site, rule


class Ships(Site):
    @rule(follows=st.booleans())
    def ship(self, follows: bool) -> None:
        """With the mirror of the copy behind it, or not."""
        head_lsn = self.model.head_lsn
        with self.power():
            Shipping.open(self.journal_path, [self.copy_path]).run()
            self.acknowledged_lsn = head_lsn
            self.model.kept(head_lsn)
            newest = newest_commits(Journal(self.copy_path), 1)
            assert [commit.lsn for commit in newest] == [self.model.newest][: len(newest)]
            self.done["ship"] += 1
            if follows and self.model.commit_at_or_before(head_lsn):
                self.replay(self.copy_path, self.place("far"))
