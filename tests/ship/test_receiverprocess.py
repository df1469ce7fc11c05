"""A receiver at the end of a stream waits for room only while its sender would hear that there is some."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mirrortool.errors import LinkError, NoSpaceError
from mirrortool.journal.rawframes import RunReader, find_end
from mirrortool.ship.messagestream import Stream
from mirrortool.ship.protocol import VERSION, Message, MessageKind
from mirrortool.ship.receiverprocess import ReceiverProcess
from tests.fakes.disk import FullDisk, faulty
from tests.fakes.journals import Commit, make_journal
from tests.ship.pairs import messages


@pytest.fixture
def said(tmp_path: Path) -> bytes:
    """What a sender says up to the first frames."""
    journal = make_journal(tmp_path / "J", {"disk": 512}, [[Commit()]])
    with RunReader(journal) as reader:
        run = reader.next_run(1 << 20)
        assert run
        values = {"file": run.file_first_lsn, "offset": run.offset}
        data = Message(MessageKind.DATA, values, bytes(run.data))
    hello = {"version": VERSION, "journal": journal.description.identity(), "end": find_end(journal).to_json()}
    return messages(Message(MessageKind.HELLO, {**hello, "is_one_way": False, "follows": True}), data)


def test_a_full_disk_is_not_waited_for_once_the_sender_is_gone(tmp_path: Path, said: bytes) -> None:
    disk = FullDisk(tmp_path / "C")
    disk.is_full = True
    source, sink = os.pipe()
    answers, answering = os.pipe()
    try:
        os.write(sink, said)
        os.close(sink)
        with faulty(disk), pytest.raises(NoSpaceError):
            ReceiverProcess(str(tmp_path / "C"), Stream(source, answering)).run()
    finally:
        for descriptor in (source, answers, answering):
            os.close(descriptor)


def test_a_sender_that_is_silent_for_too_long_is_given_up(tmp_path: Path, said: bytes) -> None:
    source, sink = os.pipe()
    answers, answering = os.pipe()
    try:
        os.write(sink, said)
        with pytest.raises(LinkError, match="the sender was silent for 0 seconds"):
            ReceiverProcess(str(tmp_path / "C"), Stream(source, answering), silence_seconds=0.01).run()
    finally:
        for descriptor in (source, sink, answers, answering):
            os.close(descriptor)
