"""A mirror that holds some volumes has their bytes and the sums of all, so that each check holds on each host alone."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool.errors import NotAMirrorError, UnusableVolumeError, UsageError
from mirrortool.journal.point import Until
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.mirror import directory
from mirrortool.mirror.directory import Mirror
from mirrortool.promote import Promotion
from mirrortool.replay.engine import Plan
from mirrortool.replay.makebase import MakeBase
from mirrortool.verify import Verify
from tests.fakes.histories import History, make_history
from tests.fakes.journals import (
    PAGE,
    Commit,
    Resize,
    Write,
    Zero,
    assert_verifies,
    images_of,
    make_journal,
    memory_directory,
    replay_all,
    shrink_pieces,
)
from tests.fakes.serial import volumes_at

BOTH = ("a", "b")


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


def sums_of(mirror: Path) -> dict[str, bytes]:
    """The sums of each volume, one after another."""
    opened = Mirror(str(mirror))
    with closing(opened.open_sums(write=False)) as sums:
        assert sums.compute_state_sum() == opened.checkpoint.state_sum
        volumes = opened.volumes
        return {
            volume.name: sums.read(volumes.first_page(volume), volumes.page_count(volume)) if volume.size else b""
            for volume in volumes
        }


@pytest.mark.parametrize("plan", [Plan(), Plan(groups=3, tasks=2, unit="op")])
@pytest.mark.parametrize("seed", range(2))
def test_each_mirror_has_its_volumes_and_the_sums_of_all(place: Path, seed: int, plan: Plan) -> None:
    """At each of some commits, in one mirror continued, and with the sums that a mirror of all has."""
    history = make_history(place / "J", seed)
    for lsn in [*history.commits[::15], history.commits[-1]]:
        whole = replay_all(history.journal, place / "whole", until=Until(lsn=lsn))
        for name in BOTH:
            options = {} if (place / name).exists() else {"only": [name]}
            checkpoint = replay_all(history.journal, place / name, until=Until(lsn=lsn), plan=plan, **options)
            assert checkpoint.state_sum == whole.state_sum
            assert checkpoint.sizes == whole.sizes
            assert images_of(place / name) == {name: history.states[lsn][name]}
            assert sums_of(place / name) == sums_of(place / "whole")
            assert_verifies(place / name)


_STEPS = st.tuples(st.sampled_from("abc"), st.sampled_from("wzr"), st.integers(0, 9), st.integers(1, 4))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(_STEPS, max_size=20),
    st.sets(st.sampled_from("abc"), min_size=1, max_size=2),
    st.sampled_from([1, 3 * PAGE, 16 << 20]),
)  # fmt: skip
def test_any_history_and_any_volumes(steps: list[tuple[str, str, int, int]], only: set[str], window_bytes: int) -> None:
    sizes = dict.fromkeys("abc", 14 * PAGE)
    frames: list[list[Write | Zero | Resize | Commit]] = []
    for number, (name, kind, page, count) in enumerate(steps):
        if kind == "r":
            frames.append([Resize(name, (14 + page) * PAGE + count), Commit()])
        else:
            change = Write(name, page, bytes([number + 1]) * PAGE * count) if kind == "w" else Zero(name, page, count)
            frames.append([change, Commit()])
    with pytest.MonkeyPatch.context() as patch, memory_directory() as path:
        shrink_pieces(patch)
        journal = make_journal(path / "J", sizes, [*frames, [Commit()]])
        replay_all(journal, path / "M", only=sorted(only), window_bytes=window_bytes)
        expected = volumes_at(journal)
        assert images_of(path / "M") == {name: expected[name] for name in only}
        assert_verifies(path / "M")


def test_nothing_of_the_others_is_made_or_needed(place: Path) -> None:
    history = make_history(place / "J", 3)
    replay_all(history.journal, place / "M", only=["b"], targets={"b": str(place / "b.img")})
    assert os.listdir(place / "M" / "volumes") == []
    assert [holder.name for holder in Mirror(str(place / "M")).holders()] == ["b"]
    with Verify(str(place / "M"), journal_path=history.journal.path) as verify:
        result = verify.run()
    assert result.is_right
    assert result.not_held == ["a"]
    size = Mirror(str(place / "M")).volumes["b"].size
    assert result.pages_checked == -(-size // PAGE)


def test_a_page_of_its_own_that_is_wrong_is_found(place: Path) -> None:
    history = make_history(place / "J", 3)
    replay_all(history.journal, place / "M", only=["b"])
    path = place / "M" / "volumes" / "b.img"
    data = bytearray(path.read_bytes())
    data[5 * PAGE] ^= 1
    path.write_bytes(data)
    with Verify(str(place / "M")) as verify:
        assert [(run.volume, run.first_page) for run in verify.run().bad_runs] == [("b", 5)]


def _pruned(history: History) -> int:
    """Make a base in the middle, and remove what is before."""
    lsn = history.commits[len(history.commits) * 2 // 3]
    with MakeBase(history.journal.path, Until(lsn=lsn)) as making:
        making.run()
    assert prune(history.journal.path, Keep(size=0)).plan.files
    return lsn


@pytest.mark.usefixtures("no_sync")
@pytest.mark.parametrize("is_new", [True, False])
def test_a_base_gives_its_volumes_pages_and_the_sums_of_the_others(place: Path, is_new: bool) -> None:
    history = make_history(place / "J", 11)
    if not is_new:
        early = Until(lsn=history.commits[len(history.commits) // 5])
        replay_all(history.journal, place / "M", only=["a"], until=early)
    _pruned(history)
    replay_all(history.journal, place / "M", **({"only": ["a"]} if is_new else {}))
    replay_all(history.journal, place / "whole")
    assert images_of(place / "M") == {"a": history.states[history.commits[-1]]["a"]}
    assert sums_of(place / "M") == sums_of(place / "whole")
    assert_verifies(place / "M")


def test_a_mirror_keeps_what_it_holds(place: Path) -> None:
    history = make_history(place / "J", 3)
    replay_all(history.journal, place / "M", only=["b"])
    replay_all(history.journal, place / "M", only=["b"])
    for only, what in ((["a"], "made to hold b"), (["a", "b"], "made to hold b")):
        with pytest.raises(UsageError, match=what):
            replay_all(history.journal, place / "M", only=only)
    with pytest.raises(UsageError, match="volume a is kept in"):
        replay_all(history.journal, place / "M", targets={"a": str(place / "x")})
    replay_all(history.journal, place / "whole")
    with pytest.raises(UsageError, match="made to hold all volumes"):
        replay_all(history.journal, place / "whole", only=["b"])


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"only": ["c"]}, "no volume c; its volumes: a, b"),
        ({"only": []}, "at least one volume"),
        ({"only": ["a"], "targets": {"b": "x"}}, "volume b is not held"),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_is_left(place: Path, options: dict[str, object], what: str) -> None:
    history = make_history(place / "J", 3)
    with pytest.raises(UsageError, match=what):
        replay_all(history.journal, place / "M", **options)
    assert not (place / "M").exists()


def test_it_is_not_promoted_and_the_error_says_what_is_missing_where_it_is_and_what_helps(place: Path) -> None:
    history = make_history(place / "J", 3)
    for name in BOTH:
        replay_all(history.journal, place / name, only=[name], slot=name)
    with pytest.raises(UnusableVolumeError) as refused:
        Promotion(str(place / "a"))
    assert str(refused.value) == (
        f"{place}/a: the mirror holds only a, and a primary has b (b in {place}/b), too; mirrortool replay "
        f"{history.journal.path} NEW makes a mirror with it, too; promote that"
    )
    (place / "b" / "mirror.json").unlink()
    with pytest.raises(UnusableVolumeError, match="a primary has b, too"):
        Promotion(str(place / "a"))


def test_an_older_reader_refuses_it_by_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = make_history(place / "J", 3)
    replay_all(history.journal, place / "whole")
    assert json.loads((place / "whole" / "mirror.json").read_text())["format"] == 1
    replay_all(history.journal, place / "M", only=["b"])
    monkeypatch.setattr(directory, "MIRROR_FORMAT", 1)
    with pytest.raises(NotAMirrorError, match=r"format 2, and this mirrortool knows formats up to 1.*use mirrortool 0"):
        Mirror(str(place / "M"))
    Mirror(str(place / "whole"))


def test_a_kind_that_is_not_known_is_not_taken_for_another(place: Path) -> None:
    history = make_history(place / "J", 3)
    replay_all(history.journal, place / "M", only=["b"])
    path = place / "M" / "mirror.json"
    values = json.loads(path.read_text())
    values["volumes"][0]["kind"] = "other"
    path.write_text(json.dumps(values))
    with pytest.raises(NotAMirrorError, match="'kind'"):
        Mirror(str(place / "M"))


def test_many_windows_of_what_is_not_held_choose_a_plan_all_the_same(place: Path) -> None:
    frames = [[Write("b", page % 50, random.Random(page).randbytes(PAGE)), Commit()] for page in range(400)]
    journal = make_journal(
        place / "J", {"a": 50 * PAGE, "b": 50 * PAGE}, [*frames, [Write("a", 3, b"x" * PAGE), Commit()]]
    )
    replay_all(journal, place / "M", only=["a"], window_bytes=4 * PAGE, plan=None)
    assert images_of(place / "M") == {"a": volumes_at(journal)["a"]}
