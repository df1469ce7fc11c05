"""`mirrortool trace` as a user sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool.cli import trace
from mirrortool.cli.main import main
from mirrortool.errors import BadLogError
from mirrortool.replay.tracing import Divided, Ended, Post, Started, TraceRecord, UnitRun
from mirrortool.replay.writeunit import How
from mirrortool.trace.jsonlines import decode, encode
from tests.docs.jsonfields import documented, keys_of
from tests.docs.manual import page
from tests.docs.workshop import run
from tests.trace.records import STARTED, plan, unit

REMEDY = "name a file that replay --trace wrote"


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trace of a real replay."""
    directory = tmp_path_factory.mktemp("traced")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        Path("disk.img").write_bytes(bytes(range(1, 255)) * 16384)
        run("init", "J", "disk=disk.img", "-q")
        run("record", "J", "-q")
        run("replay", "J", "M", "-q", "--unit", "op", "--groups", "2", "--tasks", "3", "--trace", "t.jsonl")
    return directory / "t.jsonl"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes records into a file in the current directory; gives its name."""
    monkeypatch.chdir(tmp_path)

    def write(*records: TraceRecord) -> str:
        Path("t.jsonl").write_bytes(b"".join(map(encode, records)))
        return "t.jsonl"

    return write


def overlapping(count: int) -> list[TraceRecord]:
    """Each unit after the first is a violation."""
    return [STARTED, plan(), *(unit(number, 1, 9) for number in range(count)), Ended(count, 9)]


def test_a_real_replay_is_proved_and_summed_up(replayed: Path) -> None:
    lines = run("trace", str(replayed)).splitlines()
    counts = [line for line in lines if line.startswith("in order: ")]
    assert len(counts) == 1 and lines[1] == "units that share a page: one by one, in the journal's order"
    assert lines[4].split()[:5] == ["auto", "2", "3", "op", "buffered"]
    for start in ("direct ", "mini-queue ", "counter wait ", "longest chain of units that overlap: ", "TASK "):
        assert any(line.startswith(start) for line in lines), start


def test_a_replay_whose_lines_were_swapped_is_not_proved(
    replayed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last unit takes the times of the first: what lies between two drains began too early, or ended too late."""
    monkeypatch.chdir(tmp_path)
    records = [decode(line, "") for line in replayed.read_bytes().splitlines()]
    units = [record for record in records if isinstance(record, UnitRun)]
    early = replace(units[-1], start_ns=units[0].start_ns, end_ns=units[0].start_ns, footprint=units[0].footprint)
    swapped = [early if record is units[-1] else record for record in records]
    Path("t.jsonl").write_bytes(b"".join(map(encode, swapped)))
    assert main(["trace", "t.jsonl"]) == trace.EXIT_VIOLATED
    assert "VIOLATION" in capsys.readouterr().out


def test_fields_of_json(replayed: Path, write: Callable[..., str]) -> None:
    wanted = documented(page("mirrortool-trace").sub_part("JSON"))
    value = json.loads(run("trace", str(replayed), "--json"))
    wrong = json.loads(run("trace", write(*overlapping(2)), "--json", expected=1))
    assert set(keys_of(value)) | set(keys_of(wrong)) == wanted
    assert (value["trace"], value["is_proved"], value["violations"]) == (str(replayed), True, [])
    assert value["units"] == value["direct"] + value["mini_queue"] + value["counter_waits"]
    assert value["units"] == sum(task["units"] for task in value["tasks"]) == sum(p["units"] for p in value["plans"])
    assert (wrong["is_proved"], wrong["violation_count"], wrong["broken"]) == (
        False, 1, [{"rule": "together", "count": 1}]
    )  # fmt: skip
    assert wrong["violations"][0] | {"what": ""} == {
        "rule": "together", "what": "", "replay": 1, "sequence": 1, "lsn": 101, "other_sequence": 0, "other_lsn": 100,
        "page": 0,
    }  # fmt: skip


def test_ten_violations_are_shown_and_all_are_counted(write: Callable[..., str]) -> None:
    lines = run("trace", write(*overlapping(15)), expected=1).splitlines()
    assert lines[0].startswith("together: unit 1 (LSN 101) was applied at the same time as unit 0 (LSN 100), both on")
    assert [line.partition(":")[0] for line in lines[:10]] == ["together"] * 10
    assert lines[10:12] == ["… and 4 more violations", "14 VIOLATIONS: 15 units in 1 section between drains"]
    assert not any(line.startswith("units that share a page") for line in lines)


def test_the_rules_of_the_page_are_those_of_the_program() -> None:
    from tests.docs.manual import items

    heads = [head for head, _ in items(page("mirrortool-trace").sub_part("What is proved"))]
    assert heads == [f"Ql {rule.value}" for rule in trace.Rule]


def test_an_end_that_is_missing_is_told(write: Callable[..., str]) -> None:
    lines = run("trace", write(STARTED, plan(), unit(0, 1, 2))).splitlines()
    assert "the end is missing: killed, or still running" in lines
    records = [STARTED, plan(), Ended(0, 1), STARTED, plan()]
    lines = run("trace", write(*records)).splitlines()
    assert "2 replays in this file" in lines
    assert "the ends of 1 replay are missing: killed, or still running" in lines


def test_nothing_but_the_result_is_told(write: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", write(*overlapping(1)), "-q"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("data", "code", "told"),
    [
        (None, 32, "mirrortool: t.jsonl: cannot open: No such file or directory; check the path\n"),
        (b"", 60, "mirrortool: t.jsonl: is not a trace; name a file that replay --trace wrote\n"),
        (b'{"type": "unit"}\n', 60, f"mirrortool: t.jsonl, line 1: field 'how' is missing or not valid; {REMEDY}\n"),
        (b"{}\n", 60, f"mirrortool: t.jsonl, line 1: is not a line of a trace; {REMEDY}\n"),
        (b'{"lsn": 1, "first_page": 0}\n', 60, f"mirrortool: t.jsonl, line 1: is not a line of a trace; {REMEDY}\n"),
    ],
)
def test_what_is_not_a_trace(
    data: bytes | None, code: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if data is not None:
        Path("t.jsonl").write_bytes(data)
    assert main(["trace", "t.jsonl"]) == code
    assert capsys.readouterr() == ("", told)
    assert code != 60 or BadLogError.exit_code == code


@pytest.mark.parametrize("width", [40, 60, 80])
def test_lines_fit_a_narrow_terminal(width: int, write: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_width", lambda: width)
    hour = 3600 * 10**9
    records = [
        Started("j", "m", 4096, 0),
        Divided(0, "interleaved", 256, 16, "batch", "buffered"),
        *(
            unit(
                number, number * hour, (number + 1) * hour, (0, 9), payload_bytes=(1 << 30) - 1, group=200,
                task=number % 16, how=How.COUNTER_WAIT, wait_ns=number * hour,
                posts=(Post((number + 1) % 16, number * hour), Post((number + 2) % 16, number * hour)),
            )
            for number in range(100)
        ),
        Ended(100, 101 * hour),
    ]  # fmt: skip
    lines = run("trace", write(*records)).splitlines()
    assert max(map(len, lines)) <= max(width, 60)
    table = lines[lines.index(next(line for line in lines if line.startswith("TASK"))) :]
    assert max(map(len, table)) <= width


def test_many_tasks_are_cut_short(write: Callable[..., str]) -> None:
    units = [unit(number, number, number + 1) for number in range(40)]
    lines = run("trace", write(STARTED, plan(), *units, Ended(40, 41))).splitlines()
    assert lines[-2:] == ["… and 8 more tasks; --json lists them", "88 tasks of 128 applied no unit"]


def test_a_trace_without_units_proves_nothing(write: Callable[..., str]) -> None:
    assert run("trace", write(STARTED, plan(), Ended(0, 1))) == "nothing to prove: no unit was applied\n"


def test_a_few_of_many_are_not_shown_as_none_and_tasks_that_did_nothing_are_counted(write: Callable[..., str]) -> None:
    units = [unit(number, 2 * number + 2, 2 * number + 3, task=number % 2) for number in range(999)]
    last = unit(999, 2000, 2001, task=2, how=How.MINI_QUEUE, sent_by=1, sent_ns=2000)
    lines = run("trace", write(STARTED, plan(groups=2, tasks=3), *units, last, Ended(1000, 3000))).splitlines()
    shares = {line.split()[0]: line.split("  ")[-1].strip() for line in lines if "1178" in line or "1150" in line}
    assert shares == {"direct": ">99 %", "mini-queue": "<1 %"}
    assert any(line.startswith("RANGES ") for line in lines)
    assert lines[-1] == "3 tasks of 6 applied no unit"


def test_times_of_a_violation_count_from_the_first_plan_of_the_file(write: Callable[..., str]) -> None:
    second = 10**9
    wrong = [unit(0, 8 * second, 9 * second), unit(1, 8 * second, 9 * second)]
    name = write(STARTED, plan(second), Ended(0, second), STARTED, plan(7 * second), *wrong, Ended(2, 9 * second))
    (line, *_) = run("trace", name, expected=1).splitlines()
    assert "7.000000000 s to 8.000000000 s" in line
    assert run("trace", name, "--timeline", "x.svg", "--window", "7.000000000-8.000000000", expected=1)
