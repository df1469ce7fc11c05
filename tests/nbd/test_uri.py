"""NBD URIs: each form leads where its text says, and nothing that asks for more than is done here passes."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortool.errors import UsageError
from mirrortool.nbd.uri import is_nbd_uri, parse_uri
from mirrortool.sockets.addresses import TcpAddress, UnixAddress


@pytest.mark.parametrize(
    ("text", "address", "export"),
    [
        ("nbd://host/disk", TcpAddress("host", 10809), "disk"),
        ("nbd://host:1/a/b%20c", TcpAddress("host", 1), "a/b c"),
        ("nbd://[::1]:10/x", TcpAddress("::1", 10), "x"),
        ("nbd://host", TcpAddress("host", 10809), ""),
        ("nbd://host/", TcpAddress("host", 10809), ""),
        ("nbd://host//x", TcpAddress("host", 10809), "/x"),
        ("nbd+unix:///disk?socket=/run/s", UnixAddress("/run/s"), "disk"),
        ("nbd+unix:///?socket=/run/a%20b%3F", UnixAddress("/run/a b?"), ""),
        ("nbd+unix://?socket=/s", UnixAddress("/s"), ""),
    ],
)
def test_a_uri_leads_where_it_says(text: str, address: object, export: str) -> None:
    found = parse_uri(text)
    assert (found.address, found.export, found.is_tls, str(found)) == (address, export, False, text)
    assert is_nbd_uri(text)


def test_under_tls_the_hosts_name_is_checked_unless_another_is_given() -> None:
    found = parse_uri("nbds://host/disk?tls-certificates=/pki")
    assert (found.is_tls, found.certificates, found.hostname) == (True, "/pki", "host")
    assert parse_uri("nbds://host/disk?tls-hostname=other").hostname == "other"
    local = parse_uri("nbds+unix:///disk?socket=/s")
    assert (local.is_tls, local.certificates, local.hostname) == (True, None, None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nbd+vsock://1/x", "scheme"),
        ("nbd+ssh://host/x", "scheme"),
        ("nbd+unix:/x?socket=/s", "does not begin"),
        ("nbd:host:1", "does not begin"),
        ("nbd:///x", "names no host"),
        ("nbd://host:0x1/x", "Port"),
        ("nbd://host:99999/x", "ort"),
        ("nbd://[::1/x", "IPv6"),
        ("nbd://user@host/x", "user"),
        ("nbd://host/x?socket=/s", "nbd+unix"),
        ("nbd://host/x?tls-certificates=/s", "begin it with nbds"),
        ("nbds://host/x?tls-psk-file=/s", "tls-psk-file is not known"),
        ("nbds://host/x?tls-certificates=pki", "from the root"),
        ("nbd://host/x#y", "fragment"),
        ("nbd://host/x y", "%"),
        ("nbd://host/x\ny", "%"),
        ("nbd://host/%ff", "utf-8"),
        ("nbd://host/" + "n" * 4097, "4096 bytes"),
        ("nbd+unix:///x", "socket=PATH"),
        ("nbd+unix:///x?socket=", "socket=PATH"),
        ("nbd+unix:///x?socket=relative", "from the root"),
        ("nbd+unix:///x?socket=/a%00b", "socket=PATH"),
        ("nbd+unix:///x?socket=/a&socket=/b", "twice"),
        ("nbd+unix://host/x?socket=/a", "three slashes"),
        ("nbd+unix:///x?socket=/" + "a" * 200, "107 bytes"),
    ],
)
def test_what_is_not_understood_whole_is_refused_in_one_line(text: str, why: str) -> None:
    assert is_nbd_uri(text) == ("://" in text)
    with pytest.raises(UsageError) as caught:
        parse_uri(text)
    assert why in str(caught.value) and len(caught.value.what.splitlines()) == 1


@pytest.mark.parametrize("text", ["disk.img", "/dev/nbd0", "nbd:disk", "nbd0", "./nbd://x", "nbdx://y"])
def test_a_path_is_not_a_uri(text: str) -> None:
    assert not is_nbd_uri(text)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30))
def test_any_name_of_an_export_can_be_written(name: str) -> None:
    assert parse_uri(f"nbd://host/{quote(name, safe='')}").export == name


@given(st.text(max_size=60))
def test_any_other_text_is_refused_or_a_uri(text: str) -> None:
    for beginning in ("nbd://", "nbds+unix:///"):
        try:
            parse_uri(beginning + text)
        except UsageError:
            pass
