"""What a verification found is known until it is put right: by what exactly, and by what not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mirrortool import clock, files
from mirrortool.cli.main import main
from mirrortool.cli.statustext import lines_of
from mirrortool.errors import AccessError, ChangedOutsideError, NoSpaceError
from mirrortool.mirror import findings as module
from mirrortool.mirror import receipts
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.findings import count_pages, describe, findings
from mirrortool.promote import Promotion
from mirrortool.replay.session import Replay
from mirrortool.status import mirror_status, problems_of
from mirrortool.store import pagesums
from mirrortool.verify import Verify, VerifyCancelled, VerifyResult
from tests.fakes.journals import PAGE, Commit, JournalMaker, Resize, Write, Zero, images_of, making, replay_all

PAGES = 3000


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JournalMaker]:
    monkeypatch.setattr("mirrortool.replay.delegator.find_changed_page", lambda *_, **_names: None)
    frame = Write("a", 0, b"x" * (40 * PAGE)), Commit()
    with making(tmp_path / "J", {"a": PAGES * PAGE}, *frame) as made:
        yield made


@pytest.fixture
def mirror(maker: JournalMaker, tmp_path: Path) -> Path:
    replay_all(maker.journal, tmp_path / "M")
    return tmp_path / "M"


def spoil(mirror: Path, *pages: int) -> None:
    """As a disk does it, of which the file system knows nothing: what it would tell of a write is not asked."""
    (mirror / "seen.json").unlink(missing_ok=True)
    with open(mirror / "volumes/a.img", "r+b") as file:
        for page in pages:
            os.pwrite(file.fileno(), b"rot", page * PAGE)


def verified(mirror: Path, *, cached: bool = False) -> VerifyResult:
    with Verify(str(mirror), cached=cached) as verify:
        return verify.run()


def known(mirror: Path) -> list[tuple[int, int]]:
    """First page and end of each run that is known to be bad."""
    return [(first, end) for _, first, end in module.union(findings(Mirror(str(mirror))))]


def test_what_was_found_is_known_until_a_later_verification_finds_none(mirror: Path) -> None:
    spoil(mirror, 3, 4, 9)
    verified(mirror)
    assert known(mirror) == [(3, 5), (9, 10)]
    with open(mirror / "volumes/a.img", "r+b") as file:
        os.pwrite(file.fileno(), b"xxx", 3 * PAGE)
    verified(mirror)
    assert known(mirror) == [(4, 5), (9, 10)], "the newest says all that there is to say"
    with open(mirror / "volumes/a.img", "r+b") as file:
        for page in (4, 9):
            os.pwrite(file.fileno(), b"xxx", page * PAGE)
    verified(mirror)
    assert not known(mirror)
    assert not os.listdir(mirror / "bad")


def test_the_cache_does_not_disprove_what_the_device_was_found_to_hold(mirror: Path) -> None:
    clean = (mirror / "volumes/a.img").read_bytes()
    spoil(mirror, 3)
    verified(mirror)
    (mirror / "volumes/a.img").write_bytes(clean)
    verified(mirror, cached=True)
    assert known(mirror) == [(3, 4)]
    verified(mirror)
    assert not known(mirror)
    spoil(mirror, 5)
    verified(mirror, cached=True)
    assert known(mirror) == [(5, 6)]
    (mirror / "volumes/a.img").write_bytes(clean)
    verified(mirror, cached=True)
    assert not known(mirror), "what the cache said, the cache may take back"


REPAIRS = [
    ([Write("a", 4, b"y" * PAGE)], [(3, 4), (5, 6), (2000, 2001)]),
    ([Zero("a", 3, 2)], [(5, 6), (2000, 2001)]),
    ([Zero("a", 0, 2900)], []),  # large enough to run alone
    ([Resize("a", 100 * PAGE)], [(3, 6)]),
    ([Resize("a", 100 * PAGE), Resize("a", PAGES * PAGE)], [(3, 6)]),
    ([Write("a", 7, b"y" * PAGE)], [(3, 6), (2000, 2001)]),
]


@pytest.mark.parametrize(("operations", "left"), REPAIRS)
@pytest.mark.parametrize("read_back", [True, False])
def test_a_replay_that_writes_a_page_and_reads_it_back_puts_it_right(
    maker: JournalMaker, mirror: Path, operations: Sequence[Write], left: list[tuple[int, int]], read_back: bool
) -> None:
    spoil(mirror, 3, 4, 5, 2000)
    verified(mirror)
    before = known(mirror)
    maker.frame(*operations)
    maker.frame(Commit())
    with Replay(maker.journal.path, str(mirror), read_back=read_back) as replay:
        replay.run()
        assert count_pages(replay.known_bad) == sum(end - first for first, end in (left if read_back else before))
    assert known(mirror) == (left if read_back else before)
    result = verified(mirror)
    bad = [(run.first_page, run.first_page + run.count) for run in result.bad_runs]
    assert bad == left, "what is left is what a verification finds"


def test_who_stops_a_verification_keeps_what_was_found_and_disproves_nothing(
    mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = (mirror / "volumes/a.img").read_bytes()
    spoil(mirror, 3)
    verified(mirror)
    (mirror / "volumes/a.img").write_bytes(clean)
    spoil(mirror, 2000)
    receipts_before = os.listdir(mirror / "receipts")
    with Verify(str(mirror)) as verify:
        compare = verify._compare

        def compare_and_stop(sums: pagesums.PageSums) -> None:
            compare(sums)
            raise VerifyCancelled

        monkeypatch.setattr(verify, "_compare", compare_and_stop)
        with pytest.raises(VerifyCancelled):
            verify.run()
    assert known(mirror) == [(3, 4), (2000, 2001)]
    assert os.listdir(mirror / "receipts") == receipts_before, "nothing was proved"
    assert "stopped" in describe(Mirror(str(mirror)), findings(Mirror(str(mirror))), clock.now_ns())


def test_a_mirror_that_is_made_anew_has_no_past(maker: JournalMaker, mirror: Path) -> None:
    spoil(mirror, 3)
    verified(mirror)
    (mirror / "mirror.json").unlink()
    (mirror / "volumes/a.img").unlink()
    (mirror / "last-replay.json").unlink()
    replay_all(maker.journal, mirror)
    assert not findings(Mirror(str(mirror)))
    assert receipts.newest(Mirror(str(mirror))) is None


def test_a_finding_that_cannot_be_read_counts_until_a_verification(mirror: Path) -> None:
    spoil(mirror, 3)
    name = receipts.name_of(verified(mirror).started_ns)
    (mirror / "bad" / name).write_text("{")
    spoil(mirror, 3)
    (problem,) = problems_of(mirror_status(str(mirror)))
    assert problem.exit_code == 1
    assert f"cannot be read from {mirror}/bad/{name}" in str(problem)
    with open(mirror / "volumes/a.img", "r+b") as file:
        os.pwrite(file.fileno(), b"xxx", 3 * PAGE)
    verified(mirror)
    assert not findings(Mirror(str(mirror)))


def test_what_an_older_version_found_holds_until_there_is_another_receipt(maker: JournalMaker, mirror: Path) -> None:
    """0.1.0 kept receipts alone, without the field `cached`."""
    spoil(mirror, 3, 5)
    receipt = mirror / "receipts" / receipts.name_of(verified(mirror).started_ns)
    values = json.loads(receipt.read_text())
    receipt.write_text(json.dumps({name: values[name] for name in values if name not in ("cached", "volumes")}))
    (mirror / "bad" / receipt.name).unlink()
    assert known(mirror) == [(3, 4), (5, 6)]
    verified_cached = verified(mirror, cached=True)
    assert verified_cached.bad_pages == 2
    maker.frame(Write("a", 3, b"y" * (3 * PAGE)), Commit())
    replay_all(maker.journal, mirror)
    assert not known(mirror)


def test_replay_repairs_what_an_older_version_found(maker: JournalMaker, mirror: Path) -> None:
    spoil(mirror, 3, 5)
    receipt = mirror / "receipts" / receipts.name_of(verified(mirror).started_ns)
    values = json.loads(receipt.read_text())
    receipt.write_text(json.dumps({name: values[name] for name in values if name not in ("cached", "volumes")}))
    (mirror / "bad" / receipt.name).unlink()
    maker.frame(Write("a", 3, b"y" * PAGE), Commit())
    replay_all(maker.journal, mirror)
    assert known(mirror) == [(5, 6)]
    maker.frame(Write("a", 5, b"y" * PAGE), Commit())
    replay_all(maker.journal, mirror)
    assert not known(mirror)


@pytest.mark.parametrize("error", [NoSpaceError("full"), AccessError("read-only")])
def test_a_result_that_cannot_be_kept_is_told(
    mirror: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise error

    spoil(mirror, 3)
    monkeypatch.setattr(files, "replace_small", refuse)
    assert main(["verify", str(mirror)]) == 1
    assert "status does not show it" in capsys.readouterr().err


def test_status_replay_and_promote_say_what_is_known(
    maker: JournalMaker, mirror: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "never verified" in "\n".join(lines_of(mirror_status(str(mirror))))
    verified(mirror)
    assert "verified 0 s ago at LSN 2: no bad page" in "\n".join(lines_of(mirror_status(str(mirror))))
    assert main(["status", str(mirror)]) == 0
    spoil(mirror, 3)
    verified(mirror)
    now = clock.now_ns() + 3 * 3600 * 10**9
    monkeypatch.setattr(clock, "now_ns", lambda: now)
    capsys.readouterr()
    assert main(["status", str(mirror)]) == 1
    said = capsys.readouterr()
    assert "verified 3 h ago: 1 bad page;" in said.err
    assert "verified 3 h ago at LSN 2: 1 bad page" in said.out
    assert main(["status", str(mirror), "--json"]) == 1
    values = json.loads(capsys.readouterr().out)
    assert values["known_bad"]["bad_pages"] == [{"volume": "a", "first_page": 3, "count": 1}]
    assert values["verified"] | {"time_ns": 0, "time": None} == {
        "time_ns": 0, "time": None, "applied_lsn": 2, "bad_page_count": 1, "is_right": False, "cached": False,
        "other_volume": None, "through_server_cache": False,
    }  # fmt: skip
    maker.frame(Commit())
    assert main(["replay", maker.journal.path, str(mirror), "--no-slot"]) == 0, "replay's code does not change"
    assert "KNOWN BAD: verified 3 h ago: 1 bad page\n" in capsys.readouterr().out
    for extra in ([], ["--no-verify"], ["--dry-run"]):
        assert main(["promote", str(mirror), "--yes", *extra]) == 21
        assert "verified 3 h ago: 1 bad page" in capsys.readouterr().err
    image = images_of(mirror)
    assert main(["promote", str(mirror), "--yes", "--force-known-bad"]) == 0
    assert images_of(mirror) == image
    capsys.readouterr()
    assert main(["status", str(mirror)]) == 0, "what its volumes hold is the primary's"


def test_a_replay_that_is_refused_says_what_is_known(
    maker: JournalMaker, mirror: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(mirror, 3)
    verified(mirror)
    maker.frame(Write("a", 9, b"y" * PAGE), Commit())
    monkeypatch.setattr("mirrortool.replay.delegator.find_changed_page", lambda *_, **_names: 3)
    capsys.readouterr()
    assert main(["replay", maker.journal.path, str(mirror), "--no-slot"]) == 21
    assert "is not as the last replay left it; verified 0 s ago: 1 bad page;" in capsys.readouterr().err


def test_force_is_for_what_is_known_only(mirror: Path) -> None:
    spoil(mirror, 3)
    verified(mirror)
    spoil(mirror, 7)
    with Promotion(str(mirror), force_known_bad=True) as promotion:
        promotion.drain()
        with pytest.raises(ChangedOutsideError, match="1 page is not what"):
            promotion.verify()
    assert known(mirror) == [(3, 4), (7, 8)]
    with Promotion(str(mirror), force_known_bad=True) as promotion:
        promotion.drain()
        promotion.verify()


def test_another_file_in_a_volumes_place_is_told(mirror: Path) -> None:
    verified(mirror)
    image = mirror / "volumes/a.img"
    content = image.read_bytes()
    image.rename(mirror.parent / "away.img")
    image.write_bytes(content)
    assert "in another file than volume a is now" in "\n".join(lines_of(mirror_status(str(mirror))))


AGES = [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172_799, "47 h"),
        (172_800, "2 days"), (-5, "0 s")]  # fmt: skip


@pytest.mark.parametrize(("seconds", "said"), AGES)
def test_ages_are_in_the_largest_unit_that_fits(seconds: int, said: str) -> None:
    assert receipts.age(seconds * 10**9) == said
