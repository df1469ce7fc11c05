"""What one thread removes is read once by another that holds no lock: it may be gone at a second look.

An interpreter without a global lock (3.13t) lets that happen; here it always does.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mirrortool.errors import NoSpaceError
from mirrortool.journal.directory import Journal
from mirrortool.nbd.server import Server
from mirrortool.record.detach import Detachment
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.liverecording import LiveRecording
from mirrortool.record.missingsegments import NotedSegments
from mirrortool.record.recorder import Recorder
from mirrortool.record.volumeside import VolumeSide
from tests.fakes.volumes import PAGE, Primary, make_primary


class GoneAtTheSecondLook:
    """An attribute that another thread clears between two reads of it."""

    def __init__(self, value: object) -> None:
        self._values: Iterator[object] = iter([value])

    def __get__(self, instance: object, owner: object = None) -> object:
        return next(self._values, None)

    def __set__(self, instance: object, value: object) -> None:
        pass


@pytest.fixture
def recorder(directory: str) -> Iterator[Recorder]:
    primary: Primary = make_primary(directory, {"a": 4 * PAGE})
    with Recorder(primary.journal_path) as opened:
        yield opened


def test_a_volume_accepts_writes_again_while_one_is_refused(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(VolumeSide, "problem", GoneAtTheSecondLook(NoSpaceError("full", where="a")), raising=False)
        with pytest.raises(NoSpaceError, match=r"^a: full$"):
            recorder.write("a", 0, b"x")
    recorder.write("a", 0, b"x")


def test_the_journal_catches_up_while_its_lack_is_counted(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = NotedSegments(Journal(recorder.journal.path))
    noted.add({0})
    monkeypatch.setattr(Detachment, "_noted", GoneAtTheSecondLook(noted), raising=False)
    assert recorder._detachment.segment_count == 1
    assert recorder._detachment.segment_count == -1


def test_the_initial_scan_continues_while_its_problem_is_told(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LiveRecording(recorder, _server, lambda _: None, lambda _: None) as recording:
        monkeypatch.setattr(InitialScan, "problem", GoneAtTheSecondLook(NoSpaceError("full", where="a")), raising=False)
        assert recording.initial_scan_problem == "a: full"
        assert recording.initial_scan_problem == ""


def _server(_exports: object) -> Server:
    return Server([], [], on_event=lambda _: None)
