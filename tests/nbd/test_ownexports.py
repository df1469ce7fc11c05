"""What our servers say of an export tells the journal, and nobody else's text does."""

from __future__ import annotations

import pytest

from mirrortool.nbd.ownexports import describe_export, journal_of

UUID = bytes(range(16))


@pytest.mark.parametrize("more", ["", "at LSN 12", "two\nlines"])
def test_the_journal_is_found_again(more: str) -> None:
    assert journal_of(describe_export(UUID, "disk-1.img", more)) == UUID


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mirrortool volume disk",
        "in memory",
        "x " + describe_export(UUID, "disk"),
        "mirrortool volume a of journal ff",
    ],
)
def test_another_text_tells_nothing(text: str) -> None:
    assert journal_of(text) is None
