"""Text in pictures: safe, and no wider than was said."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from mirrortool import svg


@pytest.mark.parametrize("content", ["plain", "<&>\"'", "\0\x1b\x7f", "\ud800", "\u202e\u2028\ufeff", "a\nb", "日本"])
def test_any_text_can_be_held(content: str) -> None:
    root = ElementTree.fromstring(svg.document(10, 10, content, content, "", [svg.text(0, 0, content)]).encode())
    shown = next(each.text or "" for each in root if each.tag.endswith("}text"))
    assert len(shown) == len(content)
    assert [a for a, b in zip(content, shown, strict=True) if a != b and b != "\N{REPLACEMENT CHARACTER}"] == []


def test_what_controls_a_reader_is_replaced() -> None:
    assert svg.safe("a\x1b[31m\u202eb\ud800") == "a\ufffd[31m\ufffdb\ufffd"


@pytest.mark.parametrize("width", [0, 5, 12, 40, 100, 1000])
@pytest.mark.parametrize("content", ["", "LSN 1034", "0123456789" * 4, "日本" * 20, "iiiiiiiiii"])
def test_fitted_text_fits_and_is_as_long_as_it_can_be(content: str, width: float) -> None:
    fitted = svg.fitted(content, 11, width)
    assert svg.text_width(fitted, 11) <= width
    if fitted != content:
        kept = len(fitted.removesuffix("…"))
        assert fitted in ("", content[:kept] + "…")
        assert svg.text_width(content[: kept + 1] + "…", 11) > width


def test_wrapped_lines_fit_and_lose_no_word() -> None:
    content = "one two three four five six seven eight nine ten " * 5
    lines = svg.wrapped(content, 12, 120)
    assert " ".join(lines).split() == content.split()
    assert all(svg.text_width(line, 12) <= 120 for line in lines)
    assert svg.wrapped("x" * 100, 12, 120)[0].endswith("…")


def test_style_has_the_colours_of_both_backgrounds() -> None:
    text = svg.style(".a { fill: %(ink)s; stroke: %(own)s }", {"own": "red"}, {"own": "pink"})
    light, dark = text.split("@media (prefers-color-scheme: dark)")
    assert "#1f2328" in light and "red" in light
    assert "#f0f6fc" in dark and "pink" in dark
