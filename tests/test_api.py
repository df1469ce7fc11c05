"""The public API: what `import mirrortool` lists is there, does the main job, and is not loaded before it is wanted."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mirrortool
from mirrortool.errors import UsageError


@pytest.fixture
def journal(tmp_path: Path) -> str:
    """Of a volume, d, of 40 pages, recorded once."""
    (tmp_path / "d.img").write_bytes(b"x" * (160 << 10))
    path = str(tmp_path / "J")
    mirrortool.init(path, [mirrortool.NewVolume("d", str(tmp_path / "d.img"))])
    with mirrortool.Scan(path) as scan:
        scan.run()
    return path


@pytest.mark.parametrize("name", mirrortool.__all__)
def test_each_name_is_there_and_in_the_docstring(name: str) -> None:
    assert callable(getattr(mirrortool, name))
    assert name in dir(mirrortool)
    assert {each for each in dir(mirrortool) if not each.startswith("_")} == set(mirrortool.__all__)
    assert mirrortool.__doc__ is not None
    assert name in mirrortool.__doc__


def test_the_main_job_from_python(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"x" * 10_000)
    journal, mirror = str(tmp_path / "J"), str(tmp_path / "M")
    mirrortool.init(journal, [mirrortool.NewVolume("disk", str(tmp_path / "disk.img"))], 4096)
    with mirrortool.Scan(journal) as scan:
        scan.run()
    mirrortool.mark(journal, "first")
    with mirrortool.Replay(journal, mirror, until=mirrortool.Until(mark="first")) as replay:
        replay.run()
    with mirrortool.Verify(mirror) as verify:
        assert verify.run().is_right
    assert (tmp_path / "M" / "volumes" / "disk.img").read_bytes() == b"x" * 10_000


def test_live_recording_from_python(tmp_path: Path) -> None:
    journal, mirror = str(tmp_path / "J"), str(tmp_path / "M")
    mirrortool.init(journal, [mirrortool.NewVolume("disk", str(tmp_path / "disk.img"), 1 << 20)], 4096)
    with mirrortool.Recorder.open(journal) as recorder:
        mirrortool.InitialScan(recorder).run()
        recorder.write("disk", 5000, b"hello")
        recorder.commit("greeted")
        recorder.write("disk", 5000, b"HELLO")
        assert recorder.read("disk", 4999, 7) == b"\0HELLO\0"
    with mirrortool.Replay(journal, mirror, until=mirrortool.Until(mark="greeted")) as replay:
        replay.run()
    with mirrortool.Verify(mirror) as verify:
        assert verify.run().is_right
    assert (tmp_path / "M" / "volumes" / "disk.img").read_bytes()[5000:5005] == b"hello"
    assert (tmp_path / "disk.img").read_bytes()[5000:5005] == b"HELLO"


def test_types_are_of_the_same_places() -> None:
    """What a type checker reads is what is loaded."""
    tree = ast.parse(Path(mirrortool.__file__).read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    found = {
        alias.asname or alias.name: (str(node.module).removeprefix("mirrortool."), alias.name)
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert found == mirrortool._PLACES
    assert sorted(found) == sorted(mirrortool.__all__)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        mirrortool.nothing_of_this_name  # noqa: B018  # the look-up is what is tried


def test_shipping_and_keeping_from_python(journal: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy")
    shipping = mirrortool.Shipping.open(journal, [copy])
    shipping.run()
    (shipped,) = shipping.statistics()
    (commit,) = mirrortool.commits(mirrortool.Journal(copy))
    assert (shipped.acknowledged, commit.kind) == (commit.position, mirrortool.CommitKind.SCAN)
    with mirrortool.MakeBase(journal) as making:
        assert making.run() > 0
    assert mirrortool.prune(journal, mirrortool.Keep(seconds=60.0)).kept == 1
    (slot,) = mirrortool.slots(mirrortool.Journal(journal))
    assert mirrortool.drop_slot(mirrortool.Journal(journal), slot.name).where == copy
    assert mirrortool.Audit(journal).run().bases == 1


def test_marks_are_listed_once_as_their_names_mean_them(journal: str) -> None:
    for name in ("a", "b", "a"):
        mirrortool.mark(journal, name)
    opened = mirrortool.Journal(journal)
    newest = [commit.lsn for commit in mirrortool.newest_commits(opened, 2)]
    assert [(each.name, each.lsn) for each in mirrortool.marks(opened)] == [("b", newest[0]), ("a", newest[1])]


def test_importing_a_log_from_python(journal: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("fio version 2 iolog\nd add\nd open\nd write 4096 8192\nd close\n")
    with mirrortool.Recorder.open(journal) as recorder:
        result = mirrortool.import_log(recorder, str(log), mirrortool.LogFormat.FIO)
        with pytest.raises(UsageError, match="no volume x"):
            mirrortool.import_log(recorder, str(log), mirrortool.LogFormat.LOGWRITES, volume="x")
    assert result.statistics.writes == 1
    assert (tmp_path / "d.img").read_bytes()[4096:12288] != b"x" * 8192


CLOSED: dict[str, Callable[[mirrortool.Recorder], object]] = {
    "write": lambda recorder: recorder.write("d", 0, b"y" * 4096),
    "write in part": lambda recorder: recorder.write("d", 1, b"y"),
    "zero": lambda recorder: recorder.zero("d", 0, 4096),
    "read": lambda recorder: recorder.read("d", 0, 1),
    "read nothing": lambda recorder: recorder.read("d", 0, 0),
    "extents": lambda recorder: list(recorder.extents("d", 0, 1)),
    "flush": lambda recorder: recorder.flush(),
    "commit": lambda recorder: recorder.commit(),
    "write back": lambda recorder: recorder.write_back(),
    "attach": lambda recorder: recorder.attach(),
    "initial scan": lambda recorder: mirrortool.InitialScan(recorder).run(),
}


@pytest.mark.parametrize("use", CLOSED.values(), ids=list(CLOSED))
def test_a_recorder_that_is_closed_says_so(journal: str, use: Callable[[mirrortool.Recorder], object]) -> None:
    with mirrortool.Recorder.open(journal) as recorder:
        pass
    with pytest.raises(UsageError, match="this recorder is closed; open another"):
        use(recorder)
    recorder.close()


def test_what_is_closed_says_so_and_does_nothing(journal: str, tmp_path: Path) -> None:
    """Its locks are given back: whatever it did would be done beside others."""
    mirror = str(tmp_path / "M")
    with mirrortool.Replay(journal, mirror) as replay:
        replay.run()
    with mirrortool.Scan(journal) as scan, mirrortool.Verify(mirror) as verify, mirrortool.MakeBase(journal) as base:
        pass
    with mirrortool.Promotion(mirror) as promotion:
        pass
    before = mirrortool.Journal(journal).history
    uses = [replay.run, scan.run, verify.run, base.run, promotion.drain, promotion.verify, promotion.carry_out]
    for use in uses:
        with pytest.raises(UsageError, match="is closed; open another"):
            use()
    assert mirrortool.Journal(journal).history == before and mirrortool.Mirror(mirror).promoted is None


@pytest.mark.parametrize(("offset", "length"), [(0, -5), (-1, 5), (-5, 0), (160 << 10, 1)])
def test_what_is_outside_a_volume_is_refused(journal: str, offset: int, length: int) -> None:
    with mirrortool.Recorder.open(journal) as recorder:
        for use in (recorder.read, recorder.zero, lambda *range_: list(recorder.extents(*range_))):
            with pytest.raises(UsageError, match="lie outside volume d"):
                use("d", offset, length)


def test_amounts_that_make_no_sense_are_refused(journal: str, tmp_path: Path) -> None:
    mirror = str(tmp_path / "M")
    refused: list[Callable[[], object]] = [
        lambda: mirrortool.init(str(tmp_path / "J2"), [mirrortool.NewVolume("d", str(tmp_path / "d2"), -1)]),
        lambda: mirrortool.Replay(journal, mirror, delay_seconds=-1.0),
        lambda: mirrortool.Replay(journal, mirror, bytes_per_second=0),
        lambda: mirrortool.Replay(journal, mirror, window_bytes=-1),
        lambda: mirrortool.ShipOptions(bytes_per_second=-1),
        lambda: mirrortool.ShipOptions(silence_seconds=0.0),
        lambda: mirrortool.Keep(seconds=-1.0),
        lambda: mirrortool.Keep(size=-1),
    ]
    for call in refused:
        with pytest.raises(UsageError):
            call()
    assert sorted(os.listdir(tmp_path)) == ["J", "d.img"]


def test_importing_it_loads_nothing() -> None:
    code = "import sys, mirrortool; sys.exit(any(name.startswith('mirrortool.') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
