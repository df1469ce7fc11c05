"""What is set while many threads work is as it was afterwards, however that ends."""

from __future__ import annotations

import gc
import sys

import pytest

from mirrortool.processsettings import taking_turns


def settings() -> object:
    return sys.getswitchinterval(), gc.get_threshold()


def test_threads_take_turns_more_often_and_garbage_waits() -> None:
    gc.set_threshold(2000)  # as Python itself does from 3.13 on; before, it is less
    before = gc.get_threshold()
    with taking_turns(0.0001):
        assert sys.getswitchinterval() == pytest.approx(0.0001)
        assert gc.get_threshold()[0] > 50 * before[0]
        assert gc.get_threshold()[1:] == before[1:]


def test_everything_is_as_it_was_after_an_error_too() -> None:
    before = settings()
    with pytest.raises(KeyError), taking_turns(0.0001), taking_turns(0.0002):
        raise KeyError
    assert settings() == before
