"""`mirrortool bench` as a user sees it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mirrortool.bench.figure import Settings
from mirrortool.cli.bench import parse_latency
from tests.docs.jsonfields import documented, keys_of
from tests.docs.manual import page
from tests.docs.workshop import run

QUICK = ("bench", "--latency", "0us", "--writes", "60", "--groups", "2", "--tasks", "3", "--runs", "1")


SVG = "{http://www.w3.org/2000/svg}"


def test_four_lines_and_what_they_are_of() -> None:
    lines = run(*QUICK).splitlines()
    assert "60 writes" in lines[0] and "one run" in lines[0]
    assert "a store that sleeps 0 ms" in lines[1]
    assert lines[2].split() == ["WAY", "SECONDS", "WRITES/S", "SPEED"]
    titles = ("the primary's order (FIG. 2)", "one task (FIG. 4)", "2 groups of 1 task", "2 groups of 3 tasks")
    assert len(lines) == 7
    for line, title in zip(lines[3:], titles, strict=True):
        assert line.startswith(title) and line.endswith("#")


def test_peers_are_compared() -> None:
    lines = run(*QUICK, "--peers").splitlines()
    assert [line.split("  ")[0] for line in lines[-4:]] == [
        "WORKLOAD",
        "independent writes",
        "10 % conflict",
        "10 % conflict, and a whole range every 500",
    ]


def test_fields_of_json() -> None:
    value = json.loads(run(*QUICK, "--peers", "--json", "-q"))
    assert set(keys_of(value)) == documented(page("mirrortool-bench").sub_part("JSON"))
    assert value["store"] == "sleeps"
    assert value["figure"] is None
    assert [way["way"] for way in value["ways"]] == ["order", "task", "groups", "groups-tasks"]
    assert json.loads(run(*QUICK, "--json"))["peers"] == []


def test_figure_is_written_with_the_numbers_of_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    value = json.loads(run(*QUICK, "--figure", "plot.svg", "--json"))
    assert value["figure"] == "plot.svg"
    texts = "".join(ElementTree.fromstring(Path("plot.svg").read_text()).itertext())
    for way in value["ways"]:
        assert f"{way['writes_per_second']:,.0f}  ({way['speedup']:.1f} ×)" in texts


def test_timeline_shows_the_groups_of_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert json.loads(run(*QUICK, "--timeline", "tasks.svg", "--json"))["timeline"] == "tasks.svg"
    texts = [each.text for each in ElementTree.fromstring(Path("tasks.svg").read_text()).iter(f"{SVG}text")]
    assert {"Group 0", "Group 1"} <= set(texts)
    assert any(re.fullmatch(r"task [0-2]", text or "") for text in texts)  # which of them get work is chance
    assert not any(text and "buffered" in text for text in texts)
    assert any(text and text.startswith("60 units of 60, ") for text in texts)
    assert "mirrortool bench --timeline FILE --latency 0ms --writes 60 --groups 2 --tasks 3 --runs 1" in texts


@pytest.mark.parametrize(
    "wrong",
    [
        ["--figure", "x.svg", "--timeline", "./x.svg"],
        ["--latency", "1"],
        ["--latency", "2s"],
        ["--writes", "0"],
        ["--groups", "500"],
        ["--runs", "0"],
    ],
)
def test_arguments_that_make_no_sense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*QUICK, *wrong, expected=2) == ""


@pytest.mark.parametrize("option", ["--figure", "--timeline"])
def test_a_directory_that_is_missing_is_an_error_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*QUICK, option, "nowhere/plot.svg", expected=32) == ""


@pytest.mark.parametrize(("text", "seconds"), [("200us", 0.0002), ("1ms", 0.001), ("1.5ms", 0.0015), ("1s", 1)])
def test_latencies(text: str, seconds: float) -> None:
    assert parse_latency(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "-1ms", "1m", "ms", "1 ms"])
def test_what_is_no_latency(text: str) -> None:
    with pytest.raises(ValueError, match="is not a latency"):
        parse_latency(text)


def test_expected_time_counts_every_way() -> None:
    assert Settings(0.001, 1000, 2, 5, 3).seconds_expected() == pytest.approx(3 * (2 + 0.5 + 0.1))
    assert Settings(0.001, 1000, 2, 5, 3, traced=True).seconds_expected() == pytest.approx(3 * (2 + 0.5 + 0.1) + 0.1)
