"""What is noted in a mirror, and what it is made of, stays so after a power cut, once the call has returned."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool import files, jsonfile
from mirrortool.errors import NotAMirrorError
from mirrortool.journal.directory import Journal
from mirrortool.journal.lineage import Epoch
from mirrortool.journal.position import Position
from mirrortool.mirror import findings, lastreplay, lastseen, receipts, volumeregistry
from mirrortool.mirror.directory import Mirror, Promoted
from mirrortool.mirror.findings import Finding, Repairs
from mirrortool.mirror.keptbacking import BackTarget
from mirrortool.mirror.newbacking import NewBacking
from mirrortool.mirror.newmirror import create
from mirrortool.mirror.receipts import BadPages
from mirrortool.mirror.targetvolume import prepare_target
from mirrortool.store.backing import read_header
from tests.fakes.cuts import lose_after, lose_everywhere
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write, assert_verifies, memory_directory, replay_all

HERE = Position(2, 7)
PROMOTED = Promoted(Epoch(1, b"l" * 16, HERE), "/J", 7)
OTHER = "ab" * 16
RECEIPT = "00000000000000000007.json"
BAD = Finding(RECEIPT, 7, HERE, runs=(BadPages("a", 1, 1),), found=1)
LAST = lastreplay.LastReplay(1, 2, 3, 4, 5, 6, 7, 8)


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


@pytest.fixture
def journal(place: Path) -> Journal:
    maker = JournalMaker(place / "J", {"a": 8 * PAGE})
    maker.frame(Write("a", 0, b"a" * PAGE), Commit())
    return maker.close()


@pytest.fixture
def mirror(place: Path, journal: Journal) -> Mirror:
    replay_all(journal, place / "M")
    return Mirror(str(place / "M"))


def again(mirror: Mirror) -> Mirror:
    return Mirror(mirror.path)


def note_volume(mirror: Mirror) -> None:
    where = mirror.volume_path(mirror.kept[0])
    facts = files.find_facts(where)
    assert facts
    volumeregistry.note(OTHER, mirror.path, "a", where, facts.identity)


def registered(mirror: Mirror) -> list[str]:
    where = mirror.volume_path(mirror.kept[0])
    facts = files.find_facts(where)
    assert facts
    return [each.mirror for each in volumeregistry.find(where, facts.identity)]


def follow_promoted(mirror: Mirror) -> None:
    journal = Journal(mirror.journal_path)
    journal.save_history(journal.history.promoted(mirror.checkpoint.position, b"n" * 16))
    mirror.follow_to(journal)


def raise_position(mirror: Mirror) -> None:
    """The checkpoint continues, over what another program wrote."""
    mirror.save_checkpoint(replace(mirror.checkpoint, position=Position(5, 5), reached_lsn=5))
    lastseen.carry_over(mirror)


NOTED: dict[str, tuple[Callable[[Mirror], object], Callable[[Mirror], object]]] = {
    "a checkpoint": (
        lambda m: m.save_checkpoint(replace(m.checkpoint, reached_lsn=9)),
        lambda m: again(m).checkpoint.reached_lsn == 9,
    ),
    "that it was promoted": (lambda m: m.save_promoted(PROMOTED), lambda m: again(m).promoted == PROMOTED),
    "an epoch": (follow_promoted, lambda m: again(m).history.current.number == 1),
    "its slot": (lambda m: m.keep_slot("another"), lambda m: again(m).slot == "another"),
    "what was found": (lambda m: findings.save(m, BAD), lambda m: findings.findings(again(m)) == [BAD]),
    "what was found by a mirror of an older version": (
        lambda m: (os.rmdir(f"{m.path}/bad"), findings.save(m, BAD)),
        lambda m: findings.findings(again(m)) == [BAD],
    ),
    "a receipt": (
        lambda m: receipts.keep(m, RECEIPT, {}),
        lambda m: os.path.exists(f"{m.receipts_path}/{RECEIPT}"),
    ),
    "the last replay": (lambda m: lastreplay.save(m.path, LAST), lambda m: lastreplay.load(m.path) == LAST),
    "how the volumes are": (
        lambda m: (lastseen.forget(m), lastseen.note(m, lastseen.look(m))),
        lambda m: os.path.exists(f"{m.path}/seen.json"),
    ),
    "that it is not known how the volumes are": (
        lastseen.forget,
        lambda m: not os.path.exists(f"{m.path}/seen.json"),
    ),
    "that another program wrote": (
        raise_position,
        lambda m: jsonfile.load(f"{m.path}/seen.json", NotAMirrorError).object("position").integer("lsn") == 5,
    ),
    "whose a volume is": (note_volume, lambda m: OTHER in registered(m)),
}


@pytest.mark.parametrize("what", NOTED)
def test_what_was_noted_is_durable_when_the_call_returns(
    mirror: Mirror, what: str, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    monkeypatch.setenv(volumeregistry.PLACE, str(place / "registry" / "of" / "mine"))
    act, is_there = NOTED[what]
    if what == "how the volumes are":
        os.remove(f"{mirror.path}/seen.json")
    lose_after(lambda: act(mirror))
    assert is_there(mirror)


def test_a_mirror_that_is_made_is_whole_or_can_be_made(place: Path, journal: Journal) -> None:
    path, target = place / "made", place / "targets" / "target.img"
    target.parent.mkdir()

    def prepare() -> None:
        shutil.rmtree(path, ignore_errors=True)
        target.unlink(missing_ok=True)

    def act() -> None:
        create(str(path), journal, {"a": str(target)})

    def check(has_ended: bool) -> None:
        try:
            made = Mirror(str(path))
        except NotAMirrorError:
            assert not has_ended
            act()
        else:
            assert target.stat().st_size == 8 * PAGE
            assert {"sums", "volumes", "receipts", "bad"} <= set(os.listdir(path))
            made.open_sums(write=False).close()
        replay_all(journal, path)
        assert_verifies(path)

    lose_everywhere(prepare, act, check, least=20)


def test_a_target_is_of_zeros_when_it_was_prepared(place: Path, journal: Journal) -> None:
    target = place / "target.img"
    target.write_bytes(b"x" * 9 * PAGE)
    lose_after(lambda: prepare_target(str(target), journal.volumes["a"], overwrite=True))
    assert target.read_bytes() == bytes(8 * PAGE)


def test_a_backing_has_its_name_and_its_header_when_it_was_made(place: Path) -> None:
    path = place / "back"
    backing = NewBacking(BackTarget(str(path), 1 << 20), b"m" * 16, 64 << 10, overwrite=False, raw=False)
    lose_after(lambda: backing.make(None))
    with files.open_file(str(path)) as file:
        header = read_header(file)
    assert header is not None and header.extent_bytes == 64 << 10


def test_sums_that_were_mended_are_durable_before_it_is_forgotten_that_they_were_wrong(mirror: Mirror) -> None:
    """Else a power cut would leave wrong sums of which nobody knows."""
    segments = Path(mirror.sums_path, "a.segments")
    segments.write_bytes(bytes(segments.stat().st_size))
    findings.save(mirror, replace(BAD, runs=(), found=0, sums="wrong"))

    def act() -> None:
        sums = mirror.open_sums(write=True)
        Repairs(mirror).mend_sums(sums, mirror.checkpoint)
        sums.close()

    lose_after(act)
    assert not findings.findings(again(mirror))
    assert not mirror.open_sums(write=False).prove().contradicted
