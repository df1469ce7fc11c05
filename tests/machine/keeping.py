"""Base and prune: what is promised stays, of the journal and of the copy."""

from __future__ import annotations

from hypothesis import strategies as st

from mirrortool import Journal, Keep, MakeBase, Until, prune
from mirrortool.journal.bases.listing import base_lsns
from tests.machine.site import SHARES, Site, at, rule

KEEPS = st.sampled_from(
    [Keep(size=0), Keep(size=3000), Keep(seconds=0.0), Keep(seconds=0.0, size=0), Keep(seconds=1e6)]
)


class Keeping(Site):
    def _kept(self, in_copy: bool) -> str:
        return self.copy_path if in_copy and self.has_copy else self.journal_path

    @rule(in_copy=st.booleans(), where=SHARES)
    def base(self, in_copy: bool, where: float) -> None:
        path = self._kept(in_copy)
        restorable = self.restorable(path)
        if not restorable:
            return
        lsn = restorable[at(where, len(restorable))]
        with self.power():
            with MakeBase(path, until=Until(lsn=lsn)) as making:
                made = making.commit.lsn
                making.run()
            assert made <= lsn and made in base_lsns(Journal(path))
            assert self.model.state_at(made) == self.model.state_at(lsn), "a heartbeat alone may lie between"
            self.done["base"] += 1
            if path == self.journal_path:
                self.model.kept(made)

    @rule(in_copy=st.booleans(), keep=KEEPS, catches_up=st.booleans(), makes_base=st.booleans(), where=SHARES)
    def prune(self, in_copy: bool, keep: Keep, catches_up: bool, makes_base: bool, where: float) -> None:
        """After all readers, or only the recorder, have caught up, and a base of some commit was made, or as it is."""
        path = self._kept(in_copy)
        if self.recorder:
            self.write_back(checkpoint=True)  # else the recorder holds files back
        if catches_up:
            self._catch_up(path)
        if makes_base:
            self.base(in_copy, where)
        before = self.restorable(path)
        with self.power():
            pruned = prune(path, keep)
            self.done["prune"] += 1
            self.done["pruned files"] += len(pruned.plan.files)
        self._check_left(path, keep, before)

    def _catch_up(self, path: str) -> None:
        self.ship(follows=False)
        for mirror, source in self.made_mirrors().items():
            if source == path and mirror not in self.forked:
                with self.power():
                    self.replay(source, mirror)

    def _check_left(self, path: str, keep: Keep, before: list[int]) -> None:
        """What was promised is left; and from the newest base on, everything."""
        left = self.restorable(path)
        if keep.seconds and keep.size is None:
            assert left == before, "what was promised is gone"
        newest_base = max(base_lsns(Journal(path)), default=0)
        kept = {lsn for lsn in before if lsn >= newest_base and lsn in self.model.commits}
        assert kept <= set(left), "what follows the newest base cannot be restored any more"
        self.check_slots()
