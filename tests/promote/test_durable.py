"""A promotion that is complete stays so whatever a disk loses, and one that was stopped is completed durably."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirrortool import hostinfo
from mirrortool.journal.commits import Until
from mirrortool.journal.directory import Journal
from mirrortool.journal.unfinished import load_note
from mirrortool.mirror.directory import Mirror
from mirrortool.promote import Promotion
from mirrortool.record.missingsegments import NotedSegments
from tests.fakes.cuts import EACH_CALL, kill_everywhere, lose_everywhere
from tests.fakes.promotions import AFTER, FRAMES, Site, check_is_primary, check_slots, make_site, promote, register


class Promoting:
    """The promotion of a site's mirror, at the last steps; the journal was recorded here once, and detached."""

    def __init__(self, place: Path) -> None:
        self._made = make_site(place, FRAMES + AFTER, file_bytes=600, until=Until(lsn=11))
        register(self._made.journal, self._made.mirror)
        NotedSegments(Journal(self._made.journal)).add({0})
        with Promotion(self._made.mirror) as promotion:
            promotion.drain()
            promotion.verify()
        self.site = Site(place / "run", self._made.primary)

    def prepare(self) -> None:
        for name in ("J", "M"):
            shutil.rmtree(self.site.path / name, ignore_errors=True)
            shutil.copytree(self._made.path / name, self.site.path / name)
        Mirror(self.site.mirror).follow_to(Journal(self.site.journal))

    def act(self) -> None:
        with Promotion(self.site.mirror) as self.promotion:
            self.promotion.carry_out()

    def check(self, has_ended: bool = True) -> None:
        journal = self.site.journal
        if has_ended:
            assert load_note(journal) is None and Mirror(self.site.mirror).promoted is not None
        elif load_note(journal) is None:
            assert Mirror(self.site.mirror).promoted is None or Journal(journal).epoch == 1, "nobody completes it"
        self.promotion = promote(self.site.mirror)
        assert self.promotion.is_complete
        check_slots(journal)
        assert not Path(Journal(journal).detached_path).exists()
        with another_boot():
            check_is_primary(journal, self.promotion, self.site.path / "third")


@contextmanager
def another_boot() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hostinfo, "boot_id", lambda: "another-boot")
        yield


@EACH_CALL
def test_a_promotion_that_ended_is_complete_whatever_the_disk_loses(place: Path, step: int) -> None:
    promoting = Promoting(place)
    lose_everywhere(promoting.prepare, promoting.act, promoting.check, least=60, step=step)


@EACH_CALL
def test_a_promotion_that_was_killed_is_completed_durably(place: Path, step: int) -> None:
    promoting = Promoting(place)
    kill_everywhere(promoting.prepare, promoting.act, promoting.check, least=60, step=step)
