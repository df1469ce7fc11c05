"""`mirrortool trace --timeline` as a user sees it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mirrortool.cli.main import main
from mirrortool.cli.tracetimeline import parse_pages, parse_window
from mirrortool.trace.jsonlines import encode
from tests.docs.workshop import make_image, run
from tests.trace.scenes import example, long_trace

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def _traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, records in (("t", example()), ("long", long_trace(300))):
        Path(name).write_bytes(b"".join(map(encode, records)))


def texts(path: str) -> list[str]:
    return ["".join(each.itertext()) for each in ElementTree.fromstring(Path(path).read_text()).iter(f"{SVG}text")]


def draw(*arguments: str) -> list[str]:
    """The texts of a picture; what the trace proves does not matter."""
    main(["trace", *arguments, "--timeline", "out.svg", "--json"])
    return texts("out.svg")


def test_trace_of_a_real_replay_is_drawn() -> None:
    make_image(Path("disk.img"))
    run("init", "J", "disk=disk.img")
    run("record", "J", "-q")
    run("replay", "J", "M", "-q", "--trace", "trace.jsonl", "--unit", "op", "--groups", "1", "--tasks", "2")
    value = json.loads(run("trace", "trace.jsonl", "--timeline", "tasks.svg", "--json", "-q"))
    assert value["timeline"] == "tasks.svg"
    shown = texts("tasks.svg")
    assert "Group 0" in shown and any(each.startswith("LSN 1") for each in shown)
    assert f"{value['units']} unit" in " ".join(shown)
    assert "mirrortool trace trace.jsonl --timeline tasks.svg" in shown


def test_pages_and_window_choose_a_part_and_the_picture_has_the_command() -> None:
    shown = draw("t", "--pages", "300")
    assert "1 unit of 5, in seconds 0.001400-0.008000 of the trace." in shown
    assert "mirrortool trace t --timeline out.svg --pages 300-300" in shown
    shown = draw("t", "--window", "0.0082-0.009")
    assert "1 unit of 5, in seconds 0.008200-0.009000 of the trace." in shown
    assert "mirrortool trace t --timeline out.svg --window 0.0082-0.009" in shown


def test_command_has_seconds_that_can_be_given_again() -> None:
    shown = draw("t", "--window", "0.000001-0.002")
    assert "mirrortool trace t --timeline out.svg --window 0.000001-0.002" in shown


def test_an_empty_trace_is_not_replaced_by_its_picture(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").touch()
    assert main(["trace", "empty", "--timeline", "./empty"]) == 2
    assert "would replace the trace" in capsys.readouterr().err


def test_a_part_that_was_chosen_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    main(["trace", "long", "--timeline", "out.svg"])
    told = capsys.readouterr().err
    assert "out.svg: " in told and "units of 300, in seconds" in told
    assert told.rstrip().endswith("--window or --pages choose another.")


def test_json_says_that_nothing_was_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    main(["trace", "t", "--json"])
    assert json.loads(capsys.readouterr().out)["timeline"] is None


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (32, ["--timeline", "nowhere/out.svg"], "nowhere/out.svg: its directory does not exist; make it"),
        (2, ["--pages", "0-3"], "--timeline draws, which is not given"),
        (2, ["--window", "0-3"], "--timeline draws, which is not given"),
        (2, ["--timeline", "out.svg", "--window", "7-9"], "no unit was applied in these seconds; the trace lasts"),
        (2, ["--timeline", "out.svg", "--pages", "7777"], "no unit touches these pages; the trace lasts"),
        (2, ["--timeline", "out.svg", "--pages", "0", "--window", "7-9"], "these pages in these seconds; the trace"),
        (32, ["--timeline", "/proc/x.svg"], "/proc/x.svg: cannot"),
        (2, ["--timeline", "out.svg", "--window", "9-7"], "is not from a second to a later one"),
        (2, ["--timeline", "out.svg", "--pages", "9-7"], "is not a range of pages"),
        (32, ["--timeline", "t"], "t: does not hold a figure"),
        (32, ["--timeline", "."], "is a directory"),
    ],
)
def test_what_cannot_be_drawn(
    capsys: pytest.CaptureFixture[str], code: int, arguments: list[str], message: str
) -> None:
    before = Path("t").read_bytes()
    assert main(["trace", "t", *arguments]) == code
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == "" and ".new" not in captured.err
    assert not Path("out.svg").exists() and Path("t").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "pages"),
    [
        ("0", (0, 0)),
        ("256-511", (256, 511)),
        (f"{1 << 63}-{1 << 63}", (1 << 63, 1 << 63)),
        ("0x2100-0x21ff", (0x2100, 0x21FF)),
        ("0x10-17", (16, 17)),
        ("0x1F", (31, 31)),
    ],
)
def test_ranges_of_pages(text: str, pages: tuple[int, int]) -> None:
    assert parse_pages(text) == pages


@pytest.mark.parametrize("text", ["", "-", "1-", "-1", "5-4", "1,2", "0x", "0xg", "0x11-16", "1-2-3", "9" * 5000])
def test_what_is_not_a_range_of_pages(text: str) -> None:
    with pytest.raises(ValueError, match="is not a range of pages"):
        parse_pages(text)


@pytest.mark.parametrize("text", ["", "1", "1-", "2-1", "1-1", "1s-2s", "nan-inf", "1e3-1e4", "-1-2", "9" * 5000])
def test_what_is_not_a_window(text: str) -> None:
    with pytest.raises(ValueError, match="is not from a second to a later one"):
        parse_window(text)
