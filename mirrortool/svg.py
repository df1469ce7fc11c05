"""SVG text for pictures that need no library, no script and no font of their own, on a light and a dark background.

Rule: any text is safe to pass: what XML cannot hold, and what changes the direction of text, is replaced.
Rule: the width of a text is guessed from its letters, and rather too large: no font is known here.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import accumulate
from xml.sax.saxutils import escape

_LIGHT = {"ink": "#1f2328", "faint": "#59636e", "grey": "#8c959f", "blue": "#0969da", "canvas": "#ffffff"}
_DARK = {"ink": "#f0f6fc", "faint": "#9198a1", "grey": "#656c76", "blue": "#4493f8", "canvas": "#0d1117"}
"""The colours of both backgrounds, by name."""

_WIDE_EM, _NARROW_EM = 0.66, 0.4
_FULL_WIDTH = 0x1100
"""Characters from here on may be as wide as they are high."""
_NARROW = frozenset(" .,:;'|!-()[]fijlrt/")
_BAD_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"})


def document(width: int, height: int, title: str, description: str, style: str, body: Iterable[str]) -> str:
    """A whole picture; sizes in pixels."""
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img">',
        f"  <title>{safe(title)}</title>",
        f"  <desc>{safe(description)}</desc>",
        f"  <style>{style}</style>",
        *body,
        "</svg>",
        "",
    ])  # fmt: skip


def style(rules: str, light: Mapping[str, str] | None = None, dark: Mapping[str, str] | None = None) -> str:
    """Rules with the colours of both backgrounds: `%(ink)s` stands for the colour of that name.

    Args:
        light, dark: colours of the picture's own.
    """
    return (
        f"{rules % {**_LIGHT, **(light or {})}}"
        f"    @media (prefers-color-scheme: dark) {{{rules % {**_DARK, **(dark or {})}}    }}\n  "
    )


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    """A line of text; `y` is that of its base line, `kind` a class of the style."""
    named = f' class="{kind}"' if kind else ""
    return f'  <text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{safe(content)}</text>'


def safe(content: str) -> str:
    """Any text as XML holds it."""
    return escape("".join("\N{REPLACEMENT CHARACTER}" if _is_bad(c) else c for c in content))


def text_width(content: str, size: float) -> float:
    """About the pixels that a line of text of this font size needs, at most."""
    return size * sum(map(_em, content))


def fitted(content: str, size: float, width: float) -> str:
    """As much of a text as fits into the width; an ellipsis stands for what does not."""
    widths = list(accumulate(map(_em, content)))
    if not widths or widths[-1] * size <= width:
        return content
    kept = bisect_right(widths, width / size - _em("…"))
    return content[:kept] + "…" if kept else ""


def wrapped(content: str, size: float, width: float) -> list[str]:
    """A text in lines that fit; a word that does not is shortened."""
    lines: list[str] = []
    for word in content.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(fitted(word, size, width))
    return lines


def _em(character: str) -> float:
    """The width of a character, measured in font sizes."""
    if ord(character) >= _FULL_WIDTH:
        return 1.1
    return _NARROW_EM if character in _NARROW else _WIDE_EM


def _is_bad(character: str) -> bool:
    return character != "\n" and unicodedata.category(character) in _BAD_CATEGORIES
