"""Whatever stops a promotion, the next one completes it; until then nobody can take the half for a whole."""

from __future__ import annotations

import errno
import itertools
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mirrortool import hostinfo
from mirrortool.errors import HostError, JournalError, MirrortoolError, PromotedError, UnfinishedPromotionError
from mirrortool.journal.commits import Until
from mirrortool.journal.directory import Journal
from mirrortool.journal.unfinished import load_note
from mirrortool.mirror.directory import Mirror
from mirrortool.promote import Promotion
from mirrortool.record.recovery import OpenJournal
from tests.fakes.disk import Call, PowerCut, faulty
from tests.fakes.journals import replay_all
from tests.fakes.parts import in_parts
from tests.fakes.promotions import (
    AFTER,
    FRAMES,
    Site,
    check_is_primary,
    check_slots,
    make_site,
    promote,
    register,
    snapshot,
)


def copy_site(site: Site, path: Path) -> Site:
    """The same; mirror.json names the journal by its path."""
    copied = Site(path, site.primary)
    for name in ("J", "M"):
        shutil.rmtree(path / name, ignore_errors=True)
        shutil.copytree(site.path / name, path / name)
    Mirror(copied.mirror).follow_to(Journal(copied.journal))
    return copied


def carry_out_under(site: Site, fault: Callable[[Call], object], chance: random.Random | None) -> bool:
    """Drain and verify in peace, then carry out with this fault; whether it got through."""
    with Promotion(site.mirror) as promotion:
        promotion.drain()
        with faulty(fault) as system:
            try:
                promotion.carry_out()
            except (PowerCut, HostError):
                if chance:
                    system.disk.cut_power(chance)
                return False
    return True


def check_half(site: Site, before: dict[str, bytes]) -> None:
    """Old state, or one that only promote can use."""
    is_begun = load_note(site.journal) is not None
    is_marked = Mirror(site.mirror).promoted is not None
    if not is_begun and not is_marked:
        now = snapshot(Path(site.journal)).items()
        assert {name: data for name, data in now if not name.endswith(".new")} == before
        replay_all(site.journal, site.mirror)
        return
    if is_begun:
        for use in (lambda: OpenJournal(site.journal), lambda: replay_all(site.journal, site.path / "third")):
            with pytest.raises(UnfinishedPromotionError, match=f"promote {site.mirror} completes it"):
                use()
    if is_marked:
        with pytest.raises((PromotedError, UnfinishedPromotionError)):
            replay_all(site.journal, site.mirror)
        with pytest.raises((PromotedError, MirrortoolError)):
            replay_all(site.primary, site.mirror)


def kill(number: int) -> Callable[[Call], object]:
    def fault(call: Call) -> None:
        if call.number >= number:
            raise PowerCut

    return fault


def fail(number: int) -> Callable[[Call], object]:
    def fault(call: Call) -> None:
        if call.number == number:
            raise OSError(errno.EIO, "failed by the test")

    return fault


@pytest.mark.parametrize(("kind", "loses"), [(kill, False), (kill, True), (fail, False)], ids=["kill", "power", "EIO"])
@in_parts(2)
def test_it_is_completed_whatever_call_it_stopped_at(
    place: Path, kind: Callable[[int], Callable[[Call], object]], loses: bool, part: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Every other one; when the power fails, the others."""
    made = make_site(place, FRAMES + AFTER, file_bytes=600, until=Until(lsn=11))
    register(made.journal, made.mirror)
    (place / "run").mkdir()
    halves = 0
    for number in itertools.count(1 + (part + loses) % 2, 2):
        site = copy_site(made, place / "run")
        before = snapshot(Path(site.journal))
        is_done = carry_out_under(site, kind(number), random.Random(number) if loses else None)
        if is_done:
            break
        if loses:
            monkeypatch.setattr(hostinfo, "boot_id", lambda number=number: f"boot {number}")
        check_half(site, before)
        halves += load_note(site.journal) is not None
        promotion = site.promote()
        assert promotion.is_complete
        check_slots(site.journal)
        dropped = Path(site.journal, "forked").iterdir()
        assert sum(path.stat().st_size for path in dropped) > 0
        check_is_primary(site.journal, promotion, place / "third")
    assert number > 30 and halves > 10, (number, halves)


def test_what_stops_it_says_that_it_must_be_run_again(site: Site) -> None:
    with Promotion(site.mirror) as promotion:
        promotion.drain()
        with faulty(lambda call: _stop_at("recorder.json", call)), pytest.raises(HostError, match="run promote again"):
            promotion.carry_out()
        promotion.carry_out()
    check_is_primary(site.journal, promotion, site.path / "third")


def test_one_that_had_changed_nothing_yet_is_forgotten(site: Site) -> None:
    """The note is there, the mirror is not marked; and it went on with another copy of the journal since."""
    with Promotion(site.mirror, until=Until(lsn=9)) as promotion:
        promotion.drain()
        with faulty(lambda call: _stop_at("mirror.json", call)), pytest.raises(HostError):
            promotion.carry_out()
    assert load_note(site.journal) is not None
    replay_all(site.primary, site.mirror)
    check_is_primary(site.journal, site.promote(journal_path=site.journal), site.path / "third")


def _stop_at(name: str, call: Call) -> None:
    if name in call.path:
        raise OSError(errno.EIO, "failed by the test")


def test_another_mirror_does_not_take_over_an_interrupted_promotion(site: Site) -> None:
    replay_all(site.journal, site.path / "M2")
    with Promotion(site.mirror) as promotion:
        promotion.drain()
        with faulty(kill(30)), pytest.raises(PowerCut):
            promotion.carry_out()
    with pytest.raises(UnfinishedPromotionError, match=site.mirror):
        promote(str(site.path / "M2"))
    site.promote()


def _strange_notes() -> dict[str, object]:
    start = {"lsn": 11, "chain": "0" * 16}
    epoch = {"epoch": 1, "lineage": "0" * 32, "position": start}
    good = {"mirror_path": "M", "mirror_uuid": "0" * 32, "begins": epoch, "time_ns": 1}
    return {
        "nothing": {},
        "no list": [],
        "another end": {**good, "end": {"position": {**start, "lsn": 9}, "file": 1, "offset": 128}},
        "a file after the end": {**good, "end": {"position": start, "file": 12, "offset": 128}},
    }


@pytest.mark.parametrize("note", _strange_notes().values(), ids=_strange_notes().keys())
def test_a_note_that_makes_no_sense_is_an_error_of_the_journal(site: Site, note: object) -> None:
    Path(site.journal, "promoting.json").write_text(json.dumps(note))
    for use in (site.promote, lambda: replay_all(site.journal, site.path / "third")):
        with pytest.raises(JournalError, match=r"promoting\.json"):
            use()
