"""A link gives every reply, and breaks when nothing more is to be heard; what it started ends with it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from mirrortool.errors import LinkError
from mirrortool.ship import link as module
from mirrortool.ship.link import StreamLink
from mirrortool.ship.messagestream import Stream
from mirrortool.ship.protocol import Message, MessageKind, NoReceiverError
from mirrortool.ship.remote import STATE_BEGINS, ProcessLink
from tests.fakes.daemon import children_of
from tests.fakes.waiting import PATIENCE_SECONDS
from tests.ship.pairs import messages


@contextmanager
def linked(silence_seconds: float) -> Iterator[tuple[StreamLink, socket.socket]]:
    """A link, and what the other side of it is."""
    near, far = socket.socketpair()
    with near, far:
        link = StreamLink(Stream(near.fileno(), near.fileno()), lambda: None, silence_seconds=silence_seconds)
        try:
            yield link, far
        finally:
            with suppress(OSError):
                near.shutdown(socket.SHUT_RDWR)
            link.close()


def test_replies_come_in_their_order_and_then_why_there_are_no_more() -> None:
    with linked(PATIENCE_SECONDS) as (link, far):
        far.sendall(messages(*(Message(MessageKind.PLACE, {"offset": number}) for number in range(3))))
        far.close()
        for number in range(3):
            reply = link.receive(PATIENCE_SECONDS)
            assert reply and reply.fields().integer("offset") == number
        for _ in range(2):
            with pytest.raises(LinkError, match="the other side ended"):
                link.receive(PATIENCE_SECONDS)


def test_who_is_silent_for_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAIT_SECONDS", 0.01)
    with linked(0.02) as (link, _), pytest.raises(LinkError, match="nothing was heard"):
        assert link.receive(PATIENCE_SECONDS) is None


def test_a_signal_of_the_terminal_does_not_reach_what_a_link_runs() -> None:
    """It is for us: what was sent is to be acknowledged first."""
    before = children_of(os.getpid())
    link = ProcessLink(["cat"], lambda: None)
    try:
        (child,) = set(children_of(os.getpid())) - set(before)
        assert os.getpgid(child) == child
    finally:
        link.close()
    assert child not in children_of(os.getpid())


def test_what_a_receiver_answered_when_it_was_asked_is_not_why_its_link_broke() -> None:
    """It is asked on its own host (SIGUSR1), and its standard error is that of ssh."""
    link = ProcessLink(["sh", "-c", f"echo no more memory >&2; echo '{STATE_BEGINS} into J: LSN 7' >&2"], lambda: None)
    try:
        with pytest.raises(LinkError, match="sh said: no more memory"):
            link.receive(PATIENCE_SECONDS)
    finally:
        link.close()


def test_a_shell_that_does_not_find_the_program_is_known_before_ssh_has_ended() -> None:
    """On a busy host ssh may still run when what the shell said has come."""
    script = "echo 'bash: line 1: mirrortool: command not found' >&2; exec >&-; read line"
    link = ProcessLink(["sh", "-c", script], lambda: None)
    try:
        with pytest.raises(NoReceiverError, match="--remote-path"):
            link.receive(20)
    finally:
        link.close()
