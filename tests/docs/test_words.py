"""One meaning a word, and plain English: words and phrases that are retired are in no source, manual page or README.

Why each is: it had several meanings (`settle`), the opposite one for most readers ("behind" an LSN, which is after it),
or is hard to read for somebody who is not a native speaker. Words that are used are in mirrortool(1), WORDS.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docs.manual import ROOT, Page, pages

PACKAGE = ROOT / "mirrortool"
SOURCES = sorted(PACKAGE.rglob("*.py"))


class Retired(NamedTuple):
    """A phrase that is not used any more, an example, and what is said in its place."""

    pattern: str
    example: str
    instead: str


RETIRED = [
    Retired(r"settl(?:e|ing)\w*", "until the sums are settled", "drained, applied, flushed, ended, decided"),
    Retired(
        r"\bbehind (?:the |its |that )?(?:LSN|commit|position|checkpoint)s?\b(?!')",
        "slots behind the commit are lost",
        "after; a mirror is behind, which is its lag",
    ),
    Retired(r"\bbase scan", "the base scan of a volume", "initial scan"),
    Retired(r"\bso (?:many|long|much)\b", "after so long", "this many, that long, the number of"),
    Retired(r"\bma(?:kes?|de) no sense\b", "a file that makes no sense", "is not valid, cannot be parsed"),
    Retired(r"\bat work\b", "a recorder is at work", "running, in use, being recorded"),
    Retired(r"\b(?:he|his|him|she)\b", "so he waits", "it, for a process; they, for a person"),
    Retired(r"\bfor who\b", "for who waits", "for a reader that"),
    Retired(r"\b(?:go|goes|going|gone|went) on\b(?! to\b)", "the replay goes on", "continues, resumes, keeps running"),
    Retired(r"(?<!there )\bis no command\b", "'x' is no command", "is not a command"),
    Retired(r"\bto whom\b", "to whom it belongs", "to which"),
]
PLAIN = [
    "The mirror is 5 seconds behind its primary, so that it lacks the newest commit.",
    "Operations behind the journal's newest commit.",
    "There is no command of this name. The header, the shell and this history go onward.",
    "A somewhat long line.",
]


def retired(text: str) -> Iterator[str]:
    """The retired phrases of a text, each with what stands around it."""
    joined = re.sub(r"\s*\n\s*(?:#:? +)?", " ", text)
    for each in RETIRED:
        for match in re.finditer(each.pattern, joined, re.IGNORECASE):
            around = joined[max(match.start() - 40, 0) : match.end() + 40]
            yield f"{match[0]!r} in {around!r}: {each.instead}"


def doubles(sources: Iterable[str]) -> set[str]:
    """Names that more than one public class at the top of a module has."""
    names = Counter(
        node.name
        for source in sources
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    return {name for name, count in names.items() if count > 1}


@pytest.mark.parametrize("each", RETIRED, ids=lambda each: each.example)
def test_a_retired_phrase_is_found(each: Retired) -> None:
    assert len(list(retired(f"Before. {each.example.capitalize()}, after."))) == 1
    assert len(list(retired(each.example.replace(" ", "\n    # ")))) == 1


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_passes(text: str) -> None:
    assert list(retired(text)) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_source_has_no_retired_phrase(path: Path) -> None:
    """Its names, comments, docstrings and messages."""
    assert list(retired(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("manual", pages(), ids=lambda manual: f"{manual.name}.{manual.section}")
def test_a_page_has_no_retired_phrase(manual: Page) -> None:
    assert list(retired(manual.plain())) == []


def test_the_readme_has_no_retired_phrase() -> None:
    assert list(retired((ROOT / "README.md").read_text(encoding="utf-8"))) == []


def test_a_name_that_two_classes_have_is_found() -> None:
    assert doubles(["class Lag: ...", "class Lag: ...\nclass _Own: ...", "class _Own: ...\nclass Plan: ..."]) == {"Lag"}


def test_each_public_class_has_a_name_of_its_own() -> None:
    assert doubles(path.read_text(encoding="utf-8") for path in SOURCES) == set()
