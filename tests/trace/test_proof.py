"""Any file is proved, refused with where it is wrong, or read up to where its writer was killed; in bounded memory."""

from __future__ import annotations

import os

import pytest

from mirrortool.errors import AccessError, BadLogError
from mirrortool.replay.tracing import Ended
from mirrortool.trace import proof
from mirrortool.trace.jsonlines import encode
from mirrortool.trace.proof import Prover, TraceCancelled, TraceReader
from tests.trace.records import STARTED, plan, unit

RECORDS = [STARTED, plan(), unit(0, 1, 2), unit(1, 2, 3), Ended(2, 9)]
LINES = b"".join(map(encode, RECORDS))


def proved(tmp_path, data: bytes):
    path = tmp_path / "t.jsonl"
    path.write_bytes(data)
    return Prover(str(path)).run()


@pytest.mark.parametrize("chunk", [1, 7, 100, 1 << 18])
def test_lines_are_read_whatever_the_pieces(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(proof, "_CHUNK_BYTES", chunk)
    (tmp_path / "t").write_bytes(LINES + encode(STARTED))
    with TraceReader(str(tmp_path / "t")) as reader:
        assert list(reader.records()) == [*RECORDS, STARTED]
        assert reader.offset == reader.size


def test_a_trace_that_was_cut_anywhere_is_proved_up_to_there(tmp_path):
    first = len(encode(STARTED))
    for end in range(first, len(LINES), 5):
        found = proved(tmp_path, LINES[:end])
        assert found.is_proved and found.cut_off == 1, end
        assert found.summary.units == max(0, LINES[:end].count(b"\n") - 2)
    assert proved(tmp_path, LINES).cut_off == 0


def test_several_replays_in_one_file(tmp_path):
    found = proved(tmp_path, LINES + encode(STARTED) + encode(plan()) + LINES)
    assert (found.replays, found.cut_off, found.summary.units, found.is_proved) == (3, 1, 4, True)


@pytest.mark.parametrize("data", [b"", b"no trace", b"{", b"\0" * 4096])
def test_what_has_no_line_of_a_trace_is_refused(data, tmp_path):
    with pytest.raises(BadLogError, match=r"t\.jsonl: is not a trace"):
        proved(tmp_path, data)


def test_damage_names_its_line(tmp_path):
    lines = LINES.splitlines(keepends=True)
    with pytest.raises(BadLogError, match=r"t\.jsonl, line 3: is not a line of a trace"):
        proved(tmp_path, b"".join([*lines[:2], b"{}\n", *lines[2:]]))
    with pytest.raises(BadLogError, match=r"t\.jsonl, line 2: has a unit with no plan before it"):
        proved(tmp_path, lines[0] + lines[2])


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path):
    with (tmp_path / "t.jsonl").open("wb") as file:
        file.write(LINES)
        file.truncate(1 << 40)
    with pytest.raises(BadLogError, match="line 6: is not a line of a trace: it is too long"):
        Prover(str(tmp_path / "t.jsonl")).run()


def test_violations_are_counted_and_the_first_ten_kept(tmp_path):
    units = [unit(number, 1, 9) for number in range(15)]
    found = proved(tmp_path, b"".join(map(encode, [STARTED, plan(), *units, Ended(15, 9)])))
    assert not found.is_proved
    assert (sum(found.broken.values()), len(found.violations)) == (14, 10)


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    remedies = {"save it into a file first": ("fifo", "FIFO"), "name a file that replay": ("", "directory")}
    for remedy, (name, kind) in remedies.items():
        with pytest.raises(AccessError, match=f"is a {kind}, not a trace; {remedy}"):
            Prover(str(tmp_path / name)).run()


def test_a_cancelled_proof_proves_nothing(tmp_path):
    (tmp_path / "t").write_bytes(LINES)
    prover = Prover(str(tmp_path / "t"))
    prover.cancel()
    with pytest.raises(TraceCancelled):
        prover.run()


def test_progress_is_told_from_the_begin_to_the_end(tmp_path):
    (tmp_path / "t").write_bytes(LINES)
    prover = Prover(str(tmp_path / "t"))
    assert prover.progress() == proof.TraceProgress(0, 0, 0, 0)
    prover.run()
    assert prover.progress() == proof.TraceProgress(len(LINES), len(LINES), 2, 0)
