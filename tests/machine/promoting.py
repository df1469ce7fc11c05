"""Promote: the far mirror becomes the primary, and the old one is refused from then on."""

from __future__ import annotations

import os

import pytest
from hypothesis import strategies as st

from mirrortool import CommitKind, Mirror, Promotion, Replay, Shipping, newest_commits
from mirrortool.errors import MirrortoolError, PromotedError
from tests.fakes.disk import PowerCut
from tests.fakes.journals import ONE_TASK
from tests.fakes.volumes import Primary
from tests.machine.site import SEEDS, Site, precondition, rule


def can_promote(machine: Site) -> bool:
    """There is a mirror on the other host, and something in the copy."""
    return machine.has_copy and machine.place("far") in machine.made_mirrors()


class Promoting(Site):
    @precondition(can_promote)
    @rule(drops=st.booleans(), seed=SEEDS)
    def promote(self, drops: bool, seed: int) -> None:
        """The old primary's host is gone, or only seems to be; some of what it sent was not committed, or all was."""
        if drops and self.recorder:
            self.write_much(seed, 3)
            self.ship(follows=True)
        mirror, journal_path = self.place("far"), self.copy_path
        goal = self.model.commit_at_or_before(self.head_of(journal_path))
        self.kill()
        while not self._has_promoted(mirror):
            self.cut_in = 0
            self.system.disk.is_off = False
        old = self.journal_path
        self._take_over(mirror, journal_path, goal)
        self._check_refused(old, mirror)
        self.done["promote"] += 1

    def _has_promoted(self, mirror: str) -> bool:
        """Whether no crash came between."""
        self.is_exposed = True
        try:
            with Promotion(mirror) as promotion:
                if promotion.plan:
                    promotion.drain()
                    promotion.verify()
                promotion.carry_out()
            return True
        except PowerCut:
            self.done["promotion cut"] += 1
            if self.loses_power:
                self.cut_power()
            return False
        finally:
            self.is_exposed = False

    def _take_over(self, mirror: str, journal_path: str, goal: int) -> None:
        """The site is now that of the other host; the mirror that stood near follows the new primary, if it can."""
        near = os.path.join(self.path, "near")
        if os.path.exists(f"{near}/mirror.json"):
            checkpoint = Mirror(near).checkpoint
            if max(checkpoint.position.lsn, checkpoint.reached_lsn) > goal:
                self.forked.add(near)
        self.generation += 1
        self.acknowledged_lsn = 0
        self.journal_path = journal_path
        paths = {name: f"{mirror}/volumes/{name}.img" for name in self.model.now}
        self.primary = Primary(os.path.dirname(journal_path), paths)
        self.model.cut(goal)
        self.model.kept(goal)
        assert self.primary.contents() == self.model.now
        (newest,) = newest_commits(self.journal, 1)
        assert newest.lsn == goal and newest.kind != CommitKind.INCOMPLETE
        self.start_recorder()
        self.learn()

    def _check_refused(self, old: str, promoted: str) -> None:
        """Nothing that the old primary has gets to the new one, and nothing replays into its volumes."""
        with pytest.raises(MirrortoolError) as refused:
            Shipping.open(old, [self.journal_path]).run()
        assert refused.value.exit_code in (13, 14, 32), refused.value
        with pytest.raises(PromotedError), Replay(self.journal_path, promoted, plan=ONE_TASK) as replay:
            replay.run()
