"""A value that an option does not take is refused, with an example of one that it does."""

from __future__ import annotations

import pytest

from mirrortool.cli.options import parse_mode, parse_named_path


@pytest.mark.parametrize("text", ["", "rw", "0999", "-1", "1000", "0o1777", "1_0_0_0"])
def test_what_is_not_a_mode_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="mode, such as 0660"):
        parse_mode(text)


@pytest.mark.parametrize(("text", "mode"), [("0", 0), ("600", 0o600), ("0660", 0o660), ("777", 0o777)])
def test_a_mode_is_in_octal(text: str, mode: int) -> None:
    assert parse_mode(text) == mode


@pytest.mark.parametrize("text", ["", "=", "a=", "=b", "a"])
def test_a_name_without_a_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not NAME=PATH"):
        parse_named_path(text)


def test_a_path_may_contain_what_separates_it_from_the_name() -> None:
    assert parse_named_path("a=b=c") == ("a", "b=c")
